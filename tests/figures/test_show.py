"""The pictures: that they show what they claim, that no text is cut off, and how they are saved."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.figure import Figure
from PIL import ImageColor
from read_back import Pixels, pixels, texts

from tinyalex.errors import WriteError
from tinyalex.figures import canvas, run_figures


def run(epochs: int, steps: int = 10, running: int = 0, val: bool = True) -> list[dict[str, Any]]:
    """Records of a run whose rate drops after every second epoch."""
    records: list[dict[str, Any]] = [{"event": "note", "text": "on the reference", "epoch": 0}]
    for step in range(1, epochs * steps + running + 1):
        epoch = (step - 1) // steps + 1
        lr = 0.01 * 0.1 ** ((epoch - 1) // 2)
        records.append({"event": "step", "step": step, "epoch": epoch, "loss": 7 / step, "lr": lr})
        if step == epoch * steps:
            errors = {"loss": 5 / epoch, "top1_error": 0.8 / epoch, "top5_error": 0.5 / epoch}
            if val:
                errors |= {f"val_{key}": value / 2 for key, value in errors.items()}
            records.append({"event": "epoch", "epoch": epoch, "step": step, "lr": lr, **errors})
    return records


def box(picture: Pixels, color: str | tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the pixels of exactly that colour, the last two exclusive."""
    rgb = ImageColor.getrgb(color) if isinstance(color, str) else color
    y, x = np.nonzero((picture == rgb).all(axis=2))
    assert len(x), f"no pixel is {color}"
    return x.min(), y.min(), x.max() + 1, y.max() + 1


@pytest.mark.parametrize("val", [True, False])
@pytest.mark.parametrize(("epochs", "running"), [(0, 1), (1, 0), (1, 3), (90, 5)])
@pytest.mark.slow
def test_curves_of_runs_of_any_length(epochs: int, running: int, val: bool, tmp_path: Path) -> None:
    figure = run_figures.curves(run(epochs, running=running, val=val), "a run")
    assert pixels(figure, tmp_path).shape == (650, 1400, 3)
    found = texts(figure)
    assert {"a run", "Loss", "Error, percent", "training, by step"} <= set(found)
    assert ("validation" in found) == (val and epochs > 0)
    assert ("training, by epoch" in found) == (epochs > 0)
    assert ("Errors follow when the first epoch is finished." in found) == (epochs == 0)
    if epochs:
        part = 0.5 if val else 1
        assert f"top-1  {100 * 0.8 / epochs * part:.1f} %" in found
        assert f"top-5  {100 * 0.5 / epochs * part:.1f} %" in found
        assert f"{5 / epochs * part:#.3g}" in found


def test_narrow_curves_stand_one_below_the_other(tmp_path: Path) -> None:
    figure = run_figures.curves(run(12), "", narrow=True)
    assert pixels(figure, tmp_path).shape[1] == 560
    figure.draw_without_rendering()
    loss, error = (axes.get_tightbbox() for axes in figure.axes)
    assert error.y1 < loss.y0
    (legend,) = figure.legends
    assert legend.get_window_extent().y1 < error.y0


def test_a_top5_error_of_nothing_is_not_drawn() -> None:
    records = [r | {key: 0.0 for key in r if "top5" in key} for r in run(3)]
    assert any("top-5" in text for text in texts(run_figures.curves(run(3), "")))
    assert not any("top-5" in text for text in texts(run_figures.curves(records, "")))


def test_curves_of_nothing_and_of_a_loss_that_is_not_finite(tmp_path: Path) -> None:
    pixels(run_figures.curves([], "nothing yet"), tmp_path)
    records = run(2)
    records[-1] |= {"loss": float("nan"), "val_loss": float("inf")}
    figure = run_figures.curves(records, "diverged")
    pixels(figure, tmp_path)
    assert not {"nan", "inf"} & set(texts(figure))


def positions(figure: Figure) -> npt.NDArray[np.float64]:
    """Where the steps lie on the axis."""
    return np.asarray(figure.axes[0].lines[0].get_xdata(), np.float64)


def test_steps_lie_on_the_axis_of_epochs() -> None:
    figure = run_figures.curves(run(3, steps=4, running=2), "a run")
    np.testing.assert_allclose(positions(figure), np.arange(1, 15) / 4)
    # The same run, had its first epoch been logged elsewhere.
    tail = [record for record in run(3, steps=4, running=2) if record.get("step", 0) > 4]
    figure = run_figures.curves(tail, "a run")
    np.testing.assert_allclose(positions(figure), np.arange(5, 15) / 4)
    assert figure.axes[0].get_xlim() == (1, 3.5)


def test_steps_repeated_after_resuming_are_shown_once() -> None:
    first, second = run(2, steps=4, running=3), run(3, steps=4)
    resumed = first + [record for record in second if record.get("step", 0) > 8]
    shown, expected = (
        run_figures.curves(records, "").axes[0].lines[0] for records in (resumed, second)
    )
    np.testing.assert_array_equal(shown.get_xydata(), expected.get_xydata())


def test_rates_are_marked_where_they_changed() -> None:
    figure = run_figures.curves(run(5), "a run")
    for axes in figure.axes:
        marks = {t.get_text(): t.get_position()[0] for t in axes.texts if "lr" in t.get_text()}
        assert marks == {"lr 0.001": 2, "lr 0.0001": 4}


@pytest.mark.slow
def test_labels_at_line_ends_do_not_touch() -> None:
    records = run(3)
    records[-1] |= {"val_top1_error": 0.0, "val_top5_error": 0.0}
    figure = run_figures.curves(records, "a run")
    figure.draw_without_rendering()
    top5, top1 = (t.get_window_extent() for t in figure.axes[1].texts if "top" in t.get_text())
    assert top5.y1 < top1.y0


def test_filters_stand_in_their_towers_and_colours(tmp_path: Path) -> None:
    weight = np.zeros((4, 5, 5, 3), np.float32)
    weight[0, :, :] = [1e-3, -1e-3, -1e-3]
    weight[1, :, :] = [-7, 7, -7]
    weight[2, :, :] = [-0.5, -0.5, 0.5]  # the first of the second tower; the fourth stays zero
    figure = run_figures.filters(weight, 2, "conv1")
    picture = pixels(figure, tmp_path)
    red, green, blue = (box(picture, color) for color in ("#ff0000", "#00ff00", "#0000ff"))
    grey = box(picture, (128, 128, 128))
    assert red[:2] == (run_figures.MARGIN, run_figures.HEADER)
    assert red[0] == blue[0] < red[2] < green[0] == grey[0]
    assert red[1] == green[1] < red[3] < blue[1] == grey[1]
    assert blue[1] - red[3] > green[0] - red[2]  # the gap between towers is the wider one
    assert len({(right - left, bottom - top) for left, top, right, bottom in (red, blue)}) == 1
    assert any(text.startswith("4 kernels of 5 x 5 x 3 in 2 towers;") for text in texts(figure))


@pytest.mark.parametrize(
    ("count", "size", "towers"), [(1, 1, 1), (3, 3, 2), (32, 5, 2), (64, 11, 1), (96, 11, 2)]
)
def test_filters_of_every_number_and_size(
    count: int, size: int, towers: int, tmp_path: Path
) -> None:
    weight = np.random.default_rng(0).normal(size=(count, size, size, 3))
    picture = pixels(run_figures.filters(weight, towers, "conv1"), tmp_path)
    assert 900 <= picture.shape[1] <= 1600


def test_the_bar_of_the_true_class_has_its_colour_and_a_mark(tmp_path: Path) -> None:
    images = np.zeros((1, 32, 32, 3), np.uint8)
    images[:] = color = (10, 200, 30)
    probs = np.array([[0.05, 0.5, 0.3, 0.1, 0.03, 0.02]], np.float32)
    titles = ("ant", "bee", "cat", "dog", "elk", "fox")
    figure = run_figures.predictions(images, probs, np.array([2], np.int32), titles, "one image")
    picture = pixels(figure, tmp_path)
    left, top, right, bottom = box(picture, color)
    assert (left, top, right - left, bottom - top) == (
        run_figures.MARGIN,
        run_figures.HEADER,
        300,
        300,
    )
    true, others = box(picture, run_figures.TRUE_BAR), box(picture, run_figures.BAR)
    assert true[0] == others[0] == left
    assert true[2] - left == pytest.approx(0.3 * 300, abs=1)
    assert others[2] - left == pytest.approx(0.5 * 300, abs=1)
    assert others[1] < true[1] < true[3] < others[3]  # the second of five
    found = texts(figure)
    assert {"one image", "bee", "dog", "50.0 %", "3.0 %"} <= set(found)
    assert {"cat", "✓ cat", "✗ mistake"} <= set(found)  # below the image and in its bar
    assert "fox" not in found


def test_predictions_of_few_classes() -> None:
    images = np.zeros((9, 8, 8, 3), np.uint8)
    probs = np.full((9, 2), 0.5)
    figure = run_figures.predictions(images, probs, np.zeros(9, int), ["ant", "bee"], "")
    found = texts(figure)
    assert found.count("✓ ant") == found.count("bee") == 8  # the ninth image is not shown
    assert "✗ mistake" not in found


def test_long_names_end_in_an_ellipsis_before_the_next_text(tmp_path: Path) -> None:
    titles = ["W" * 80, "i" * 300, "$a_b$ and $\\frac$"]
    images, probs = np.zeros((3, 8, 8, 3), np.uint8), np.full((3, 3), 1 / 3)
    figure = run_figures.predictions(images, probs, np.arange(3), titles, "/a/long/path" * 30)
    figure.draw_without_rendering()
    found = texts(figure)
    assert found.count("$a_b$ and $\\frac$") == 3
    assert found.count("✓ $a_b$ and $\\frac$") == 1
    assert sum(text.endswith("…") for text in found) == 9
    extents = [text.get_window_extent() for text in figure.texts]
    assert not any(a.overlaps(b) for i, a in enumerate(extents) for b in extents[:i])
    pixels(figure, tmp_path)


def test_save_replaces_a_picture_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_text("the old one")
    picture = pixels(run_figures.filters(np.ones((1, 3, 3, 3)), 1, "conv1"), tmp_path)
    assert picture.shape[2] == 3
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("place", ["file/picture.png", "missing/picture.png", "folder"])
def test_save_says_what_it_cannot_write(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(WriteError, match=place):
        canvas.save(run_figures.curves(run(1), "a run"), tmp_path / place)
    assert sorted(tmp_path.rglob("*")) == before


def test_matplotlib_waits_until_something_is_drawn_and_pyplot_is_never_imported() -> None:
    program = (
        "import sys\nfrom tinyalex.figures import run_figures\n"
        "assert 'matplotlib' not in sys.modules\n"
        "run_figures.curves([], '')\n"
        "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
