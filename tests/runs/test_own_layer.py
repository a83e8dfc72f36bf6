"""A layer of one's own, whose parameter has a name of its own, in all that a run goes through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from runs import few_images, quiet

import tinyalex
from tinyalex import reference
from tinyalex.cli.parser import main
from tinyalex.errors import CheckpointError, UsageError
from tinyalex.judge.gradcheck import gradcheck
from tinyalex.net.layers import KINDS, Augment, Conv2d, Linear, Parameter, Row
from tinyalex.runs import checkpoint


@dataclass(frozen=True)
class PReLU(Row):
    """x where x > 0, else slope x, with a trained slope for each channel."""

    init: float = 0.25
    kind: ClassVar[str] = "prelu"
    kinked: ClassVar[bool] = True

    def parameters(self, shape):
        return {"slope": Parameter(shape[2:], value=self.init)}


def prelu(x, slope):
    return np.where(x > 0, x, slope * x), (x, slope)


def prelu_backward(dy, cache):
    x, slope = cache
    return np.where(x > 0, dy, slope * dy), (dy * np.minimum(x, 0)).sum((0, 1, 2))


OWN = tinyalex.Architecture(
    "own",
    "drawn up here",
    (
        Augment("data", size=28, image_size=32),
        Conv2d("conv1", 4, size=5, stride=4, init_std=0.05),
        PReLU("prelu1"),
        Linear("fc2", 10, init_std=0.05),
    ),
    tinyalex.Recipe(epochs=2, batch_size=16, lr=1e-3, lr_scheduler="constant"),
)


@pytest.fixture
def functions(monkeypatch):
    """The layer's two functions, in the reference."""
    monkeypatch.setattr(reference, "prelu", prelu, raising=False)
    monkeypatch.setattr(reference, "prelu_backward", prelu_backward, raising=False)


@pytest.fixture
def known(functions, monkeypatch):
    """The row, among the kinds of layers."""
    monkeypatch.setitem(KINDS, "prelu", PReLU)


def settings(folder, **changed):
    return tinyalex.Config(backend="reference", output_dir=str(folder), **changed)


@pytest.mark.usefixtures("known")
@pytest.mark.slow
def test_a_run_is_saved_resumed_and_loaded(tmp_path, monkeypatch):
    """Bit for bit, in the format of every checkpoint; without the layer the error says so."""
    few_images(monkeypatch, 60)
    tinyalex.train(settings(tmp_path / "whole", max_steps=6), OWN, say=quiet)
    tinyalex.train(settings(tmp_path / "cut", max_steps=3), OWN, say=quiet)
    assert main(["train", "--resume", str(tmp_path / "cut"), "--max-steps", "6"]) == 0
    whole, cut = (checkpoint.load(tmp_path / run / "last.npz") for run in ("whole", "cut"))
    assert (whole.network, cut.network) == (OWN, OWN)
    for name, value in whole.parameters.items():
        np.testing.assert_array_equal(cut.parameters[name], value)
        np.testing.assert_array_equal(cut.velocities[name], whole.velocities[name])
    assert (whole.parameters["prelu1.slope"] != 0.25).all()

    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    network = tinyalex.load(tmp_path / "whole" / "last.npz", backend="reference")
    features = network.features(image, "conv1")
    slope = whole.parameters["prelu1.slope"]
    np.testing.assert_array_equal(network.features(image, "prelu1"), prelu(features, slope)[0])

    monkeypatch.delitem(KINDS, "prelu")
    with pytest.raises(CheckpointError, match=r"kind 'prelu', which this version .* not know") as e:
        tinyalex.load(tmp_path / "whole" / "last.npz")
    assert "damaged" not in str(e.value)


@pytest.mark.usefixtures("functions")
def test_a_layer_that_could_not_be_loaded_again_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"prelu1 is a PReLU, which .*KINDS does not have"):
        tinyalex.train(settings(tmp_path / "run", max_steps=1), OWN, say=quiet)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("functions")
def test_its_gradients_are_checked_under_their_names(monkeypatch):
    results = gradcheck(OWN, reference)
    assert [r.tensor for r in results if r.layer == "prelu1"] == ["x", "slope"]
    assert "prelu1.slope" in {r.tensor for r in results if r.layer == "network"}
    assert all(r.ok for r in results)

    def wrong(dy, cache):
        dx, dslope = prelu_backward(dy, cache)
        return dx, 1.01 * dslope

    monkeypatch.setattr(reference, "prelu_backward", wrong)
    failed = {r.tensor for r in gradcheck(OWN, reference) if not r.ok}
    assert failed == {"slope", "prelu1.slope"}
