"""Errors that a user can meet, each kind with the exit code of the `tinyalex` command.

A message is one paragraph that names the file, the value and the remedy; the command prints it
without a traceback. Codes 130 and 143 (Ctrl-C, SIGTERM) are the shell's.
"""

import difflib
from collections.abc import Iterable
from unicodedata import category


class TinyalexError(Exception):
    """Base of all errors that a user can mend. `exit_code` is what the command returns.

    program: lines of code to copy, which are printed below the message; mostly none.
    """

    exit_code = 1
    program = ""


class DeviceMemoryError(TinyalexError):
    """The memory of a GPU is full. asked, free: bytes wanted, and bytes there were.

    within_reach: the free bytes and those that the program itself holds.
    """

    def __init__(self, asked: int, free: int, within_reach: int) -> None:
        super().__init__(f"The GPU's memory is full: {asked:,} bytes asked, {free:,} bytes free.")
        self.asked, self.free, self.within_reach = asked, free, within_reach


class DifferenceError(TinyalexError):
    """Two backends that should compute the same thing do not."""


class UsageError(TinyalexError):
    """A flag, a name or a combination of settings that cannot be used."""

    exit_code = 2


class DivergedError(TinyalexError):
    """The loss or a parameter is no longer finite."""

    exit_code = 3


class DataError(TinyalexError):
    """Images or folders that cannot be read or do not make sense."""

    exit_code = 4


class CheckpointError(TinyalexError):
    """A checkpoint that is damaged or belongs to another network."""

    exit_code = 5


class WriteError(TinyalexError):
    """The output folder cannot be written."""

    exit_code = 6


NO_MEMORY = (
    "There is not enough memory. Give a smaller batch (--batch-size), a smaller network (--arch), "
    "or end other programs."
)


def printable(text: str) -> str:
    """Text from a file or its name as a terminal may be given it: controls become escapes.

    So do halves of characters, which file names that are not UTF-8 have. Spaces of all widths stay.
    """
    if text.isprintable():
        return text
    return "".join(
        c
        if c.isprintable() or category(c) == "Zs"
        else c.encode("unicode_escape", "surrogatepass").decode()
        for c in text
    )


def nearest(word: str, known: Iterable[str]) -> str:
    """' Did you mean X?' for the known word nearest to `word`, or nothing."""
    words = {name.lower().strip("-"): name for name in known}
    word = word.lower().strip("-")
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.65)
    if len(word) > 2:  # relu for relu-vs-tanh
        close += [w for w in words if w.startswith(word)]
    return f" Did you mean {words[close[0]]!r}?" if close else ""
