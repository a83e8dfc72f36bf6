"""The presets at a size for tests: what is recognised by shape is then recognised by these."""

import pytest
import small

from tinyalex.net.presets import ARCHITECTURES


@pytest.fixture
def little(monkeypatch):
    """All networks called AlexNet, with an eighth of the channels, under their own names."""
    for name, architecture in list(ARCHITECTURES.items()):
        if architecture.data.image_size == 256:
            monkeypatch.setitem(ARCHITECTURES, name, small.shrunk(architecture))
