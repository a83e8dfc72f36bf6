"""Images and labels from files: the built-in images, folders, archives, batches."""

from collections.abc import Sequence
from pathlib import Path

from tinyalex.data.dataset import Dataset
from tinyalex.data.decode import RULE


def open_data(
    path: str | None,
    size: int,
    seed: int,
    classes: Sequence[str] | None = None,
    hold_out: bool = True,
    max_pixels: int | None = None,
    on_bad_image: str = "error",
    classes_at: int | None = None,
    decoding: int = RULE,
    numbers_from: int | None = None,
) -> Dataset:
    """The images at `path`, or the built-in ones if it is None, as squares of `size` pixels.

    hold_out, seed: whether, and which, training images become validation images where there is no
    validation folder. classes: label by these names, a checkpoint's, instead of by the folders'.
    max_pixels: larger pictures are bad, and are not decoded; None is the default, 64 million.
    on_bad_image: `error` raises when one is read, `skip` finds them all now and leaves them out.
    classes_at: which folder in the path of an image is its class, counted from 1; None goes by the
    names of the folders.
    decoding: the rule of `decode` by which pictures become pixels.
    numbers_from: class folders are numbers, which count the sorted `classes` from this one.
    Raises DataError.
    """
    if path is None:
        from tinyalex.data.builtin import builtin_dataset

        return builtin_dataset(size=size)

    from tinyalex.data.opening import open_dataset

    return open_dataset(
        Path(path),
        size,
        seed=seed,
        classes=classes,
        hold_out=hold_out,
        max_pixels=max_pixels,
        on_bad_image=on_bad_image,
        classes_at=classes_at,
        decoding=decoding,
        numbers_from=numbers_from,
    )
