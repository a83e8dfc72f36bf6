"""What a figure shows, read back: its pixels and its texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from tinyalex.figures import canvas

Pixels = npt.NDArray[np.uint8]


def pixels(figure: Figure, folder: Path) -> Pixels:
    """What `save` writes, read back: uint8 (height, width, 3). Nothing reaches the border."""
    canvas.save(figure, folder / "picture.png")
    with Image.open(folder / "picture.png") as image:
        assert image.format == "PNG"
        picture = np.asarray(image.convert("RGB"))
    for border in (picture[:8], picture[-8:], picture[:, :8], picture[:, -8:]):
        assert (border == 255).all()
    return picture


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text)]
