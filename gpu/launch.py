"""Launching: turns the work of one index into a kernel over many. The only file that knows grids.

    @kernel
    def square(i: int, x: Floats, y: Floats) -> None:
        y[i] = x[i] * x[i]

    square(y.size, x, y)  # square(0, x, y) ... square(y.size - 1, x, y), in no particular order

A kernel takes its index, then flat arrays, then floats, then counts, then sizes: each an int, or a
tuple of them (Sizes) that the kernel unpacks. On a GPU the sizes of a layer are baked into the
compiled kernel, so that its divisions vanish and its loops unroll. What changes from batch to batch
is never a size: the number of indices carries it, or a Count. Arrays go in as bare pointers under
an explicit signature, and a kernel set up for a layer, with its grid and stream, is kept for the
next step and launched without asking Numba, which would take several times as long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from ctypes import c_float, c_int32, c_int64
from typing import Any

import numpy as np
from numpy import int32

from tinyalex.errors import UsageError
from tinyalex.gpu.device import SIMULATOR, count_launch, cuda, current, inline, numba

types = numba.types

Floats = Any
Ints = Any
Bytes = Any
Count = int
Sizes = tuple[int, ...]

ELEMENTS = {"Floats": types.float32, "Ints": types.int32, "Bytes": types.uint8}
TYPES = {name: types.CPointer(t) for name, t in ELEMENTS.items()}
TYPES |= {"float": types.float32, "Count": types.int32}
DTYPES = {name: np.dtype(str(t)) for name, t in ELEMENTS.items()}

THREADS = 256
BLOCKS = 132 * 16  # enough to fill the largest GPU at hand, an H200, twice over
LARGEST = 2**31 - 1 - BLOCKS * THREADS  # of counts: the index behind the last one has 32 bits too
SIMULATED = (1, 2)  # blocks and threads in the simulator, where each is a Python thread

# Who computes: "simulator"; "njit", the same source compiled for the CPU, which makes real layer
# sizes possible without a GPU; "gpu"; "general", a GPU with the sizes as arguments, for tests that
# draw so many sizes that compiling for each would take hours.
how = "simulator" if SIMULATOR else "gpu"


# Numbers as the compiled kernel takes them; Numba's launch would make them from Python's.
PLAIN: dict[str, Any] = {"float": np.float32} if SIMULATOR else {"float": c_float, "Count": c_int32}


def numbers(sizes: tuple[Any, ...]) -> list[int]:
    """Sizes in a row, those in tuples too."""
    return [n for size in sizes for n in ((size,) if isinstance(size, int) else size)]


class kernel:
    """A kernel made of the work of one index."""

    def __init__(self, work: Callable[..., None]) -> None:
        self.work = work
        self.__name__, self.__doc__ = work.__name__, work.__doc__
        kinds = [kind for name, kind in work.__annotations__.items() if name != "return"][1:]
        self.kinds = [getattr(kind, "__name__", kind) for kind in kinds]
        self.sizes = sum(kind in ("int", "Sizes") for kind in self.kinds)
        assert set(self.kinds[: len(self.kinds) - self.sizes]) <= TYPES.keys(), "sizes come last"
        self.compiled: dict[Any, Any] = {}

    def __call__(self, count: int, *arguments: Any) -> None:
        """Runs the work for the indices 0 to count - 1."""
        self.each([(count, *arguments)])

    def each(self, calls: Iterable[tuple[Any, ...]]) -> None:
        """Several calls in one launch, each given as (count, *arguments).

        On a GPU a thread goes from one to the next without waiting for the others. All have the
        same sizes.
        """
        calls = [call for call in calls if call[0]]
        if not calls:
            return
        largest = max(count for count, *_ in calls)
        self.check_count(largest, LARGEST)
        given = (pair for _, *values in calls for pair in zip(values, self.kinds, strict=True))
        count_launch(self.__name__, (value for value, kind in given if kind in DTYPES))
        self.run(tuple((count, self.checked(arguments)) for count, *arguments in calls), largest)

    def run(self, runs: tuple[tuple[int, tuple[Any, ...]], ...], largest: int) -> None:
        """Compute the runs, wherever. largest: of their counts."""
        if how in ("gpu", "general"):
            sizes, row = self.in_a_row(runs)
            self.launcher(len(runs), sizes, min(-(-largest // THREADS), BLOCKS))(*row)
        elif how == "simulator":
            self.once(how, lambda: cuda.jit(self.loop()))[SIMULATED](runs)
        else:
            self.once(how, self.for_cpu)(runs)

    def in_a_row(
        self, runs: tuple[tuple[int, tuple[Any, ...]], ...]
    ) -> tuple[tuple[Any, ...], list[Any]]:
        """The sizes, and the elements of the compiled loop's argument, each of its C type."""
        first = len(self.kinds) - self.sizes
        sizes = runs[0][1][first:]
        assert all(arguments[first:] == sizes for _, arguments in runs), "sizes differ"
        passed = [*map(c_int64, numbers(sizes))] if how == "general" else []
        own = ((c_int32(count), *arguments[:first]) for count, arguments in runs)
        return sizes, [value for values in own for value in (*values, *passed)]

    def launcher(self, runs: int, sizes: tuple[Any, ...], blocks: int) -> Any:
        """The kernel set up for the current place; Numba itself would remember only 128."""
        place, key = current(), (self, how, runs, sizes, blocks)
        if key not in place.launchers:
            baked, passed = (sizes, ()) if how == "gpu" else ((), sizes)
            compiled = self.once((how, runs, baked), lambda: self.for_gpu(runs, baked, passed))
            place.launchers[key] = place.launcher(compiled, blocks, THREADS)
        return place.launchers[key]

    def once(self, key: Any, compile: Callable[[], Any]) -> Any:
        if key not in self.compiled:
            self.compiled[key] = compile()
        return self.compiled[key]

    def loop(self, sizes: tuple[Any, ...] = ()) -> Callable[..., None]:
        """The grid-stride loop over the work of each run, with the sizes as constants."""
        work = self.work if SIMULATOR else inline(self.work)

        def loop(runs: Any) -> None:
            for count, arguments in runs:
                i = int32(cuda.grid(1))
                while i < count:
                    work(i, *(arguments + sizes))
                    i = int32(i + cuda.gridsize(1))

        # By this name Numba keeps what is compiled, an index each: two processes that compile
        # different kernels at once must not write into one. Profilers show it too.
        loop.__qualname__ = "_".join(map(str, (self.__name__, *numbers(sizes))))
        return loop

    def for_gpu(self, runs: int, baked: tuple[Any, ...], passed: tuple[Any, ...] = ()) -> Any:
        signature, loop = self.signature(runs, passed), self.loop(baked)
        try:
            return cuda.jit(signature, cache=True)(loop)
        except RuntimeError:  # there is no folder that Numba may keep it in; or it fails again
            return cuda.jit(signature)(loop)

    def signature(self, runs: int, sizes: tuple[Any, ...] = ()) -> Any:
        """Types of the loop's argument: runs of a count and a tuple, as Numba allows no flat star.

        sizes: those that are not baked in and so are arguments too.
        """
        arguments = [TYPES[kind] for kind in self.kinds[: len(self.kinds) - self.sizes]]
        arguments += map(numba.typeof, sizes)
        run = types.Tuple([types.int32, types.Tuple(arguments)])
        return types.void(types.UniTuple(run, runs))

    def for_cpu(self) -> Any:
        work = numba.njit(self.work)

        @numba.njit
        def loop(runs: Any) -> None:
            for count, arguments in runs:
                for i in range(count):
                    work(int32(i), *arguments)

        return loop

    def checked(self, arguments: Sequence[Any]) -> tuple[Any, ...]:
        """Arguments as the compiled kernel takes them."""
        return tuple(self.plain(*pair) for pair in zip(arguments, self.kinds, strict=True))

    def check_count(self, count: int, largest: int) -> None:
        """Raise UsageError if there are more indices than 32 bits can tell apart."""
        if count > largest:
            raise UsageError(
                f"{self.__name__} would have {count:,} indices, of which 32 bits hold {largest:,}. "
                f"Give a --batch-size smaller by a factor of {count / largest:.2f} or more."
            )

    def plain(self, value: Any, kind: str) -> Any:
        """An argument as the compiled kernel takes it: a pointer, a number or sizes, checked."""
        if kind not in DTYPES:
            return PLAIN[kind](value) if kind in PLAIN else value
        wanted = DTYPES[kind]
        assert value.dtype == wanted, f"{self.__name__} takes {wanted}, not {value.dtype}"
        assert value.flags.c_contiguous, f"{self.__name__} takes contiguous arrays"
        self.check_count(value.size, 2**31 - 1)
        return value.reshape(-1) if SIMULATOR else value.data.ptr
