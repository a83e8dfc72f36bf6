"""Images that cannot be decoded: they end the work, or are left out."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace

from tqdm import tqdm

from tinyalex.data.layout import Files, Groups, Layout, count_of, listed, reading_order
from tinyalex.data.parallel import in_order
from tinyalex.errors import DataError, printable

_SCAN_THREADS = 4


def too_many(bad: int, total: int) -> bool:
    """True if so many bad images are no accident: more than 10 and than 1 %."""
    return bad > max(10, total // 100)


def check_not_too_many(bad: Sequence[str], total: int) -> None:
    """Raise DataError if there are more bad images than are left out."""
    if too_many(len(bad), total):
        raise DataError(
            f"{count_of(bad)} of {total:,} cannot be decoded: {listed(bad)}. That is more than are "
            "left out (10, or 1 % of all). `tinyalex data check` lists them with the reasons."
        )


def note_on(bad: Sequence[str]) -> str:
    """Note on a data set: how many images are left out, and which."""
    return f"Left out, because they cannot be decoded: {count_of(bad)} ({listed(bad)})."


def without_bad_images(layout: Layout, notes: list[str]) -> Layout:
    """`layout` without the images that cannot be decoded; to know them each is decoded once.

    Which they are depends on the files alone. Raises DataError if they are too many.
    """
    source = layout.source
    if not isinstance(source, Files):  # packed: all of them have been decoded
        return layout

    def is_bad(name: str) -> bool:
        try:
            source.read(name)
        except DataError:
            return True
        return False

    splits = (layout.train, layout.val or {})
    names = [name for groups in splits for _, name in reading_order(groups, source)]
    with (
        closing(in_order(is_bad, names, _SCAN_THREADS)) as answers,
        tqdm(answers, "looking for bad images", len(names), leave=False, disable=None) as bar,
    ):
        bad = [name for name, answer in zip(names, bar, strict=True) if answer]
    if not bad:
        return layout
    shown = [printable(name) for name in bad]
    check_not_too_many(shown, len(names))
    notes.append(note_on(shown))
    left_out = frozenset(bad)

    def rest(groups: Groups) -> Groups:
        return {
            label: [name for name in group if name not in left_out]
            for label, group in groups.items()
        }

    return replace(
        layout, train=rest(layout.train), val=None if layout.val is None else rest(layout.val)
    )
