"""The GPU, or the simulator in its place. The only file that imports CuPy or Numba.

With NUMBA_ENABLE_CUDASIM=1 in the environment kernels run in Numba's simulator, one Python thread
per CUDA thread, and NumPy takes CuPy's place, so that all but the drivers' own work can be tested
on any machine.

Kernels are plain functions of one index. Four words mean something else on a GPU than in Python
and are defined here once: `split` (divmod), `span` (range), `power` (**) and `float32(...)` around
every literal, because 0 and 0.0 would make the arithmetic double.
"""

from __future__ import annotations

import math
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numba
import numpy as np
from numba import cuda
from numpy import int32, uint32

from tinyalex.backend import Array
from tinyalex.errors import DeviceMemoryError, UsageError
from tinyalex.gpu.cublas import WORKSPACE_BYTES, Cublas

SIMULATOR = bool(numba.config.ENABLE_CUDASIM)

if SIMULATOR:
    from numba.extending import register_jitable as inline  # still Python, and njit can call it

    xp: Any = np
    split, span = divmod, range

    @inline
    def power(d: float, p: float) -> float:
        """d**p for d > 0."""
        return d**p

else:
    if "numba_cuda" not in (cuda.__file__ or ""):
        raise UsageError(
            "Numba's retired CUDA target answers instead of numba-cuda; `tinyalex doctor` says "
            "what to install."
        )
    import cupy
    from cuda.core import LaunchConfig, Stream, launch
    from numba.cuda.core import config

    xp = cupy
    config.CUDA_LOW_OCCUPANCY_WARNINGS = 0  # some kernels are small: the loss is one number
    inline = cuda.jit(device=True)

    @inline
    def split(i: int, n: int) -> tuple[int, int]:
        """divmod for i >= 0 in 32 bits; Numba's own // divides signed 64-bit numbers."""
        q = int32(uint32(i) // uint32(n))
        return q, int32(i - q * n)

    @inline
    def span(a: int, b: int) -> Any:
        """range with a 32-bit counter."""
        return range(int32(a), int32(b))

    @cuda.jit(device=True, fastmath=True)
    def power(d: float, p: float) -> float:
        """d**p for d > 0 in three instructions; relative error below 3e-6 for d < 1e5."""
        return math.exp2(p * math.log2(d))


CONSTANTS = 16  # rows of numbers that a place keeps: rates and decays, and those of before


@dataclass
class Counts:
    """Work asked of the devices.

    launches: of kernels by their names, and of products as "gemm". bytes: of the arrays that they
    were given, each once, by the same names. products: operations and bytes of each. requests: for
    memory. allocations: how many of these the pool had to pass on, having nothing free. waits: of
    the host for a device.
    """

    launches: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    products: list[tuple[int, int]] = field(default_factory=list)
    requests: int = 0
    allocations: int = 0
    waits: int = 0
    freed: list[int] = field(default_factory=list)  # in the simulator: sizes of arrays now gone

    def simulate_request(self, a: Array) -> None:
        """A request to a pool that keeps what is freed, and serves each size from its like."""
        self.requests += 1
        if a.nbytes in self.freed:
            self.freed.remove(a.nbytes)
        else:
            self.allocations += 1
        weakref.finalize(a, self.freed.append, a.nbytes)

    def floor(self, flops: float, bandwidth: float) -> float:
        """Seconds that a device of so many operations and bytes a second needs at least.

        Each product takes as long as its arithmetic or its bytes, all else as long as its bytes.
        """
        others = sum(size for name, size in self.bytes.items() if name != "gemm")
        products = (max(done / flops, size / bandwidth) for done, size in self.products)
        return others / bandwidth + sum(products)

    def requests_to_cupy(self) -> Any:
        """A hook in the pool, which hears of CuPy's own arrays too."""
        counts = self

        class Hook(xp.cuda.MemoryHook):  # type: ignore[misc]  # CuPy has no types
            def malloc_preprocess(self, **request: int) -> None:
                counts.requests += 1

            def alloc_preprocess(self, **request: int) -> None:
                counts.allocations += 1

        return Hook()


counts: Counts | None = None  # of the `counting` that is going on


@contextmanager
def counting() -> Iterator[Counts]:
    """Counts what the work inside asks of the devices."""
    global counts
    counts = Counts()
    try:
        with nullcontext() if SIMULATOR else counts.requests_to_cupy():
            yield counts
    finally:
        counts = None


@dataclass
class Slot:
    """Memory on a device for what comes from the host; source: its copy's, until it is `copied`."""

    memory: Array
    source: Any = None
    copied: Any = None


class Place:
    """A place where work runs: a device, a stream on it, and a cuBLAS handle on that stream.

    Two places may share a device. `with place:` makes it the current one for allocation, launches
    and products; in the simulator that changes nothing. `launchers` are kernels set up to run here,
    `constants` numbers that are here already. For `upload` there is a second stream, `uploads`.
    """

    def __init__(self, device: int, precision: str = "fp32") -> None:
        self.device = device
        self.launchers: dict[Any, Callable[..., None]] = {}
        self.constants: dict[tuple[float, ...], Array] = {}
        if SIMULATOR:
            return
        count = xp.cuda.runtime.getDeviceCount()
        if device >= count:
            raise UsageError(f"There is no GPU {device}: this machine has {count}, counted from 0.")
        xp.cuda.Device(device).use()  # `with` would go back to GPU 0, and make a context there
        self.stream, self.uploads = (xp.cuda.Stream(non_blocking=True) for _ in range(2))
        self.uploaded = self.stream.record()
        with self.stream, room(WORKSPACE_BYTES):
            workspace = xp.empty(WORKSPACE_BYTES, np.uint8)
            self.slots = deque(Slot(xp.empty(0, np.uint8)) for _ in range(2))
        self.cublas = Cublas(self.stream.ptr, workspace, precision)
        if _entered or _first:
            xp.cuda.Device(current().device).use()

    def launcher(self, compiled: Any, blocks: int, threads: int) -> Callable[..., None]:
        """A kernel of one signature, its grid and this stream: takes plain arguments, in a row.

        Numba itself would look all of them up at every launch, which takes longer than many a
        kernel runs.
        """
        (overload,) = compiled.overloads.values()
        function = overload._codelibrary.get_cufunc().kernel  # loads it into this device
        grid = LaunchConfig(grid=blocks, block=threads)
        return partial(launch, Stream.from_handle(self.stream.ptr), grid, function)

    def __enter__(self) -> Place:
        with ExitStack() as entered:
            if not SIMULATOR:
                entered.enter_context(xp.cuda.Device(self.device))
                entered.enter_context(self.stream)
            _entered.append((self, entered.pop_all()))
        return self

    def __exit__(self, *raised: object) -> None:
        _entered.pop()[1].close()

    def synchronize(self) -> None:
        """Wait until all work of this place is done."""
        _count_wait()
        if not SIMULATOR:
            self.stream.synchronize()


_entered: list[tuple[Place, ExitStack]] = []
_first: list[Place] = []  # the place of work outside any `with`, made when it is first needed


def use(place: Place) -> None:
    """Make `place` the one of this thread's work outside any `with`."""
    assert not _entered, "what is entered goes back to the place before, whichever is used"
    _first[:] = [place]
    if not SIMULATOR:
        xp.cuda.Device(place.device).use()
        place.stream.__enter__()  # `use` of CuPy would be forgotten at the end of the next `with`


def current() -> Place:
    """The innermost place entered, or else the one in use: device 0, if nothing was said."""
    if _entered:
        return _entered[-1][0]
    if not _first:
        use(Place(0))
    return _first[0]


def empty(shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
    """An array at the current place, from memory that was freed there if there is such."""
    if SIMULATOR:
        return unwritten(_counted(np.empty(shape, dtype)))
    current()
    with room(math.prod(shape) * np.dtype(dtype).itemsize):
        return xp.empty(shape, dtype)


def unwritten(a: Array) -> Array:
    """A new array of the simulator, full of what no kernel may leave."""
    a.fill(np.nan if a.dtype == np.float32 else 255)
    return a


def count_launch(name: str, arrays: Iterable[Array]) -> None:
    """Add a launch, and the arrays that it is given, to what is being counted, if anything is."""
    if counts:
        counts.launches[name] += 1
        counts.bytes[name] += sum(a.nbytes for a in arrays)


def count_product(operations: int, arrays: Sequence[Array]) -> None:
    """Add a product, likewise."""
    count_launch("gemm", arrays)
    if counts:
        counts.products.append((operations, sum(a.nbytes for a in arrays)))


def _counted(a: Array) -> Array:
    if counts:
        counts.simulate_request(a)
    return a


def _count_wait() -> None:
    if counts:
        counts.waits += 1


@contextmanager
def room(asked: int) -> Iterator[None]:
    """Say how many bytes were asked and are free, if the current device has no room for them."""
    if SIMULATOR:
        yield
        return
    try:
        yield
    except xp.cuda.memory.OutOfMemoryError:
        free, _ = xp.cuda.Device().mem_info
        held = xp.get_default_memory_pool().used_bytes()
        raise DeviceMemoryError(asked, free, free + held) from None


def check_gradient(dy: Array, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless dy has the shape of what it is the gradient by."""
    if dy.shape != shape:
        raise ValueError(f"gradient {dy.shape} and output {shape} do not fit")


def synchronize() -> None:
    """Wait until the current place has done all its work."""
    current().synchronize()


def asarray(a: Any, role: str = "both") -> Array:
    """A copy of a NumPy array at the current place, whatever its role; nobody waits for it.

    What is at a place already stays as it is. Takes float32, int32 and uint8; TypeError for others.
    """
    if not SIMULATOR and isinstance(a, xp.ndarray):
        return a
    a = np.asarray(a, order="C")
    if a.dtype not in (np.float32, np.int32, np.uint8):
        raise TypeError(f"the GPU backend takes float32, int32 and uint8 arrays, not {a.dtype}")
    if SIMULATOR:
        return _counted(a.copy())
    current()
    with room(a.nbytes):
        return xp.asarray(a)


def constants(values: Sequence[float]) -> Array:
    """float32 (n, 1) at the current place; from before, if they were asked for lately."""
    kept, key = current().constants, tuple(values)
    if key not in kept:
        if len(kept) == CONSTANTS:
            kept.clear()
        kept[key] = asarray(np.array(key, np.float32).reshape(-1, 1))
    return kept[key]


def host_empty(shape: tuple[int, ...], dtype: Any) -> Any:
    """A NumPy array in memory that a device reads and writes while the host goes on."""
    if SIMULATOR:
        return np.empty(shape, dtype)
    count = math.prod(shape)
    memory = xp.cuda.alloc_pinned_memory(count * np.dtype(dtype).itemsize)
    return np.frombuffer(memory, dtype, count).reshape(shape)


def upload(a: Any) -> Array:
    """A copy at the current place that is made while the work before still runs there.

    It lies in one of two slots that take turns: the upload after the next one puts another into it.
    a: an array of host_empty, which must not change until then.
    """
    if SIMULATOR:
        return asarray(a)
    place = current()
    place.slots.rotate()
    slot = place.slots[0]
    if slot.copied:
        _count_wait()
        slot.copied.synchronize()  # the source's memory may be used again now
    before, place.uploaded = place.uploaded, place.stream.record()
    if slot.memory.nbytes < a.nbytes:
        slot.memory = empty((a.nbytes,), np.uint8)
        before = place.stream.record()  # others may use it until then
    place.uploads.wait_event(before)  # the work on what lay in the slot was asked for before
    copy = slot.memory[: a.nbytes].view(a.dtype).reshape(a.shape)
    copy.set(a, place.uploads)
    slot.source, slot.copied = a, place.uploads.record()
    place.stream.wait_event(slot.copied)
    return copy


def download(*arrays: Array) -> Callable[[], tuple[Any, ...]]:
    """Begin copies to the host of what the current place has made; the function waits for them."""
    place, copies = current(), tuple(host_empty(a.shape, a.dtype) for a in arrays)
    for a, copy in zip(arrays, copies, strict=True):
        if SIMULATOR:
            copy[...] = a
        else:
            a.get(place.stream, out=copy, blocking=False)
    copied = None if SIMULATOR else place.stream.record()

    def arrived() -> tuple[Any, ...]:
        _count_wait()
        if copied:
            copied.synchronize()
        return copies

    return arrived


def to_numpy(a: Array) -> Any:
    """A copy of an array on the host, once all work on it is done."""
    _count_wait()
    if SIMULATOR:
        return np.array(a)
    return a.get(stream=current().stream)


def send(x: Array, source: Place, target: Place) -> Array:
    """A copy at `target` of an array that lies at `source`; both may be on one device.

    The copy is work of the source's stream, so x may be freed at once. It waits until the target
    has done what it did with the new array's memory before, and the target waits for its end.
    """
    if SIMULATOR or not isinstance(x, xp.ndarray):  # of a backend on the host
        return x.copy()
    assert x.flags.c_contiguous, "what is sent is contiguous"
    with target:
        y = empty(x.shape, x.dtype)
        unused = target.stream.record()
    with source:
        source.stream.wait_event(unused)
        y.data.copy_from_device_async(x.data, x.nbytes, source.stream)  # peer to peer if they can
        copied = source.stream.record()
    target.stream.wait_event(copied)
    return y
