"""Pickles read without running code: an unpickler that knows a few names and refuses all others."""

import pickle
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, ClassVar


class Refused(Exception):
    """A name in a pickle that is none of those expected."""


class Pickled:
    """Stand-in for what NumPy pickles: what it is made with, and the state that it is given.

    An array's state: version, shape, dtype, whether in Fortran's order, bytes. A dtype is made with
    a code such as u1, and its state[1] is the byte order.
    """

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


NUMPY = {
    ("numpy.core.multiarray", "_reconstruct"): Pickled,
    ("numpy._core.multiarray", "_reconstruct"): Pickled,
    ("numpy", "ndarray"): Pickled,
    ("numpy", "dtype"): Pickled,
}


class Unpickler(pickle._Unpickler):
    """Dictionaries, lists, numbers, texts, and what the functions in `known` make.

    known: by module and name, what stands in for the function or class of that name.

    The unpickler in Python, not the one in C: that one takes 16 GB of memory for five bytes that
    ask for it (LONG_BINPUT with a large index). file: all of it in memory, so that a length that
    lies reaches no farther than its end. encoding: of Python 2's texts; "bytes" leaves them so.
    """

    def __init__(
        self, file: BinaryIO, known: Mapping[tuple[str, str], Any], encoding: str = "latin1"
    ) -> None:
        super().__init__(file, encoding=encoding)
        self._known = known

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._known:
            raise Refused(f"{module}.{name}")
        return self._known[module, name]

    def load_build(self) -> None:
        """Hands state to objects of ours; Python's own would set any attribute of any object."""
        state = self.stack.pop()  # type: ignore[attr-defined]
        obj = self.stack[-1]  # type: ignore[attr-defined]
        if set_state := getattr(type(obj), "__setstate__", None):
            set_state(obj, state)

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        op: load
        for op, load in pickle._Unpickler.dispatch.items()
        if op not in (pickle.BYTEARRAY8[0], pickle.NEXT_BUFFER[0])  # take memory before they read
    } | {pickle.BUILD[0]: load_build}
