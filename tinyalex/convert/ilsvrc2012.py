"""The classes of ILSVRC-2012, of which files of weights have only the number."""

from importlib.resources import files


def classes() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The 1000 WordNet ids in order, and a short name of each."""
    text = files(__package__).joinpath("ilsvrc2012.txt").read_text(encoding="utf-8")
    lines = [line.partition(" ") for line in text.splitlines() if not line.startswith("#")]
    return tuple(wnid for wnid, _, _ in lines), tuple(name for _, _, name in lines)
