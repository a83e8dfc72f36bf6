"""Canvas of all pictures: its colours and lettering, and how it is written.

matplotlib is imported inside the functions, because commands that draw nothing should not wait for
it; and never as pyplot, which keeps figures in global state and may look for a screen. Places and
lengths are in pixels, from the top left corner.
"""

from __future__ import annotations

import io
import os
from bisect import bisect_left
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyalex.errors import WriteError
from tinyalex.system.arrays import Array
from tinyalex.system.files import remedy, replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GENERATOR = b'<meta name="generator" content="tinyalex">'
DPI = 128  # a power of two, so that pixels to inches and back is exact
MARGIN, HEADER, FOOTER = 40, 80, 64
SUBTITLE = 32  # what a line below the title takes more than HEADER

TEXT, PALE, RULE = "#22272e", "#6a727d", "#d5d9de"
BLUE, OCHRE, MIST = "#1f4e79", "#a3620a", "#b9c6d6"
BAR, TRUE_BAR = "#dfe5ec", "#7fc8a9"  # light enough for dark text, and apart in grey
RIGHT, WRONG = "✓", "✗"  # so that no colour stands alone


def new_figure(width: int, height: int, title: str, subtitle: str = "", note: str = "") -> Figure:
    """White, with its title, what it was drawn from below that, and a note at the bottom."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    room = width - 2 * MARGIN
    write(figure, MARGIN, 48, shortened(title, 12, room), 12)
    for y, text in ((84, subtitle), (height - 24, note)):
        if text:
            write(figure, MARGIN, y, shortened(text, 9, room), 9, color=PALE)
    return figure


def add_axes(figure: Figure, x: float, y: float, width: float, height: float) -> Axes:
    """Axes whose inside is this rectangle."""
    w, h = figure.bbox.size
    return figure.add_axes((x / w, 1 - (y + height) / h, width / w, height / h))


def write(figure: Figure, x: float, y: float, text: str, size: float, **style: Any) -> None:
    """Write one line that stands on y. A $ in a class or folder name is a dollar sign."""
    w, h = figure.bbox.size
    figure.text(x / w, 1 - y / h, text, fontsize=size, parse_math=False, **{"color": TEXT} | style)


def write_beside(axes: Axes, x: float, y: float, text: str, color: str) -> None:
    """Write at the height of the value y; x is a fraction of the axes' width."""
    place = axes.get_yaxis_transform()
    axes.text(x, y, text, transform=place, va="center", fontsize=9, color=color)


def paste(figure: Figure, x: int, y: int, pixels: Array) -> None:
    """Shows uint8 (h, w, 3) as it is, pixel by pixel, with its top left corner at x, y."""
    height = round(figure.bbox.height)
    figure.figimage(pixels, x, height - y - len(pixels), origin="upper")


def shortened(text: str, size: float, width: float) -> str:
    """The text, its end replaced by an ellipsis if it is longer than `width`."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    def too_long(text: str) -> bool:
        font = FontProperties(size=size)
        points = text_to_path.get_text_width_height_descent(text, font, ismath=False)[0]
        return bool(points * DPI / 72 > width)

    if not too_long(text):
        return text
    fit = bisect_left(range(len(text)), True, key=lambda i: too_long(text[: i + 1] + "…"))
    return text[:fit].rstrip() + "…"


def dress(axes: Axes, name: str, unit: str) -> None:
    """Quiet axes: `name` above on the left, `unit` below, whole numbers there, pale lines."""
    from matplotlib.ticker import MaxNLocator

    axes.set_title(name, loc="left", fontsize=10, color=TEXT, pad=20)
    axes.set_xlabel(unit, fontsize=9, color=TEXT)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(labelsize=9, color=RULE, labelcolor=TEXT)
    axes.grid(axis="y", color=RULE, linewidth=0.5)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(PALE)


def add_legend(figure: Figure, axes: Axes, columns: int, length: int) -> None:
    """The names of the lines of `axes`, in a row at the bottom left. length: of a sample line."""
    figure.legend(*axes.get_legend_handles_labels(), loc="lower left", ncols=columns, fontsize=9,
                  labelcolor=TEXT, frameon=False, borderpad=0, borderaxespad=2.5,
                  handlelength=length)  # fmt: skip


def png(figure: Figure) -> bytes:
    """The figure as the content of a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI)
    return file.getvalue()


def is_ours(path: Path) -> bool:
    """True if a file is a PNG by Matplotlib, which says so in each, or a page of ours."""
    try:
        with open(path, "rb") as file:
            start = file.read(300)
    except OSError:  # a folder
        return False
    return GENERATOR in start or (start.startswith(b"\x89PNG") and b"Matplotlib" in start)


def save(figure: Figure, path: Path) -> None:
    """Write the figure as a PNG file; a picture already there is replaced by a whole one only."""
    own = path.with_name(f".{path.name}.{os.getpid()}")  # a run and `show` may draw the same one
    try:
        with replacing(path, own) as file:
            file.write(png(figure))
    except OSError as error:
        raise WriteError(
            f"Cannot write the picture {path}: {error.strerror}. {remedy(error)}"
        ) from error
