"""Devices whose streams work as late or as early as the rules allow.

They stand in CuPy's and the driver's place.

A stream queues what it is asked for. A late one does it when somebody waits for it: the host for an
event, a stream or a copy, or another stream's work for an event; so what nobody waits for is not
there yet. An early one does it at once, up to where it has to wait for what a late one has not done
yet; so what it does not wait for it is ahead of. Memory that is freed is taken again by the next
array of its size: a device's for the same stream, which fills it with NaN when it comes to that,
the host's at once; so what still reads or writes it finds, or leaves, something else. Kernels run
in plain Python, products in NumPy.
"""

import weakref
from collections import defaultdict, deque
from contextlib import ExitStack, contextmanager, nullcontext
from ctypes import c_uint8
from types import SimpleNamespace
from unittest import mock

import numpy as np
import offline

from tinyalex.gpu import device, gemm, launch

KERNELS = [kernel for _, kernel in offline.kernels()]
UNIT = 512


class Event:
    """What a stream had been asked for when it was recorded."""

    def __init__(self, stream):
        self.stream, self.position = stream, stream.asked

    @property
    def reached(self):
        return self.stream.done >= self.position

    @property
    def done(self):
        """True in the end for a host that asks again and again, which it waits for here."""
        self.synchronize()
        return True

    def synchronize(self):
        self.stream.work_off(self.position)

    __call__ = synchronize


class Stream:
    """A queue of work and of events to wait for. ptr: its handle. early: by the order of making."""

    all, entered, early = [], [], ()

    def __init__(self, non_blocking=True):
        assert non_blocking, "CUDA's own stream would wait for all others"
        self.queue, self.asked, self.done, self.busy = deque(), 0, 0, False
        self.ptr = len(self.all)
        self.all.append(self)

    def ask(self, work):
        self.queue.append(work)
        self.asked += 1
        self.go_on()

    def next(self):
        """Does what is first in the queue, which stays there until it is done."""
        self.busy = True
        self.queue[0]()
        self.queue.popleft()
        self.done += 1
        self.busy = False

    def work_off(self, position):
        while self.done < position:
            self.next()
        self.go_on()

    @classmethod
    def go_on(cls):
        """The early ones do what they can."""
        for stream in (cls.all[i] for i in cls.early if i < len(cls.all)):
            while stream.queue and not stream.busy and getattr(stream.queue[0], "reached", True):
                stream.next()

    def synchronize(self):
        self.work_off(self.asked)

    def record(self):
        return Event(self)

    def wait_event(self, event):
        self.ask(event)

    def __enter__(self):
        self.entered.append(self)

    def __exit__(self, *raised):
        self.entered.pop()


class Pool:
    """Blocks of bytes by size; those whose users are gone are taken again."""

    def __init__(self):
        self.free, self.blocks = defaultdict(list), []

    def take(self, size):
        size = -(-size // UNIT) * UNIT
        if not self.free[size]:
            self.blocks.append(np.empty(size, np.uint8))
            self.free[size].append(self.blocks[-1])
        return self.free[size].pop()

    def give_back(self, user, block):
        """Frees the block when its user, any object, is gone."""
        weakref.finalize(user, self.free[block.nbytes].append, block)


HOST = Pool()
DEVICE = defaultdict(Pool)  # by stream


class User:
    """Whoever is kept by an array and its views."""


def raw(a):
    """The same memory as a NumPy array that keeps nobody from freeing it; a copy of other memory.

    The driver copies what is in no pinned memory before it returns.
    """
    at = a.ctypes.data
    for pool in (HOST, *DEVICE.values()):
        for block in pool.blocks:
            if 0 <= at - block.ctypes.data < block.nbytes:
                return np.ndarray(a.shape, a.dtype, block, at - block.ctypes.data, a.strides)
    return np.array(a)


def copy(stream, target, source):
    target, source = raw(target), raw(source)
    stream.ask(lambda: np.copyto(target, source))


class ndarray(np.ndarray):
    """An array on a device. user: what keeps its memory, which its views have too."""

    def __array_finalize__(self, other):
        self.user = getattr(other, "user", None)

    @property
    def data(self):
        return Pointer(self)

    def set(self, source, stream):
        assert (source.shape, source.dtype) == (self.shape, self.dtype)
        copy(stream, self, source)

    def get(self, stream, out=None, blocking=True):
        assert blocking == (out is None), "what is not waited for goes to pinned memory"
        target = np.empty(self.shape, self.dtype) if blocking else out
        source, target_raw = raw(self), target if blocking else raw(target)
        stream.ask(lambda: np.copyto(target_raw, source))
        if blocking:
            stream.synchronize()
        return target

    def copy(self):
        return computed(np.copyto, self.shape, self)

    def __add__(self, other):
        return computed(lambda y, a, b: np.add(a, b, y), self.shape, self, other)

    def __mul__(self, number):
        return computed(lambda y, a: np.multiply(a, number, y), self.shape, self)

    def __setitem__(self, index, source):
        assert index is ..., index
        copy(Stream.entered[-1], self, source)

    def __iadd__(self, other):
        y, term = raw(self), raw(other)
        Stream.entered[-1].ask(lambda: np.add(y, term, y))
        return self

    def __array_ufunc__(self, *arguments, **keywords):
        raise AssertionError("computed by the host")

    def __array_function__(self, function, types, arguments, keywords):
        if function is np.empty_like:
            return empty(arguments[0].shape, arguments[0].dtype)
        assert function is np.concatenate, function
        halves, axis = arguments
        shape = np.concatenate([np.empty(h.shape) for h in halves], axis).shape
        return computed(lambda y, *h: np.concatenate(h, axis, y), shape, *halves)


class Pointer:
    """CuPy's pointer to an array's memory."""

    def __init__(self, array):
        self.array, self.ptr = array, array.ctypes.data

    def copy_from_device_async(self, source, size, stream):
        assert size == self.array.nbytes == source.array.nbytes
        copy(stream, self.array, source.array)


def computed(function, shape, *arrays):
    """What CuPy computes on its current stream."""
    y, stream = empty(shape, arrays[0].dtype), Stream.entered[-1]
    values = [raw(a) for a in (y, *arrays)]
    stream.ask(lambda: function(*values))
    return y


def empty(shape, dtype):
    stream = Stream.entered[-1]
    shape = shape if isinstance(shape, tuple) else (shape,)
    block = DEVICE[stream].take(int(np.prod(shape)) * np.dtype(dtype).itemsize or 1)
    y = np.ndarray.__new__(ndarray, shape, dtype, block)
    y.user = User()
    DEVICE[stream].give_back(y.user, block)
    value, filled = np.nan if y.dtype == np.float32 else 255, raw(y)
    stream.ask(lambda: filled.fill(value))
    return y


def asarray(a):
    y = empty(a.shape, a.dtype)
    copy(Stream.entered[-1], y, np.array(a))
    return y


def alloc_pinned_memory(size):
    block = HOST.take(size)
    block.fill(0xEE)
    user = (c_uint8 * block.nbytes).from_buffer(block)  # kept by the arrays that are made of it
    HOST.give_back(user, block)
    return user


class Device:
    def __init__(self, number=0):
        self.use = lambda: None

    def __enter__(self):
        return self

    def __exit__(self, *raised):
        pass


class Cublas:
    """Products on one stream."""

    def __init__(self, stream, workspace, precision):
        self.stream = Stream.all[stream]

    def gemm(self, *arguments):
        arguments = [(raw(a[0]), *a[1:]) if isinstance(a, tuple) else a for a in arguments]
        self.stream.ask(lambda: gemm.interpret(*arguments))


def for_gpu(kernel, runs, baked, passed=()):
    """In the place of a compiled kernel: how to run its work."""
    first = len(kernel.kinds) - kernel.sizes

    def run(row):
        for i in range(runs):
            count, *values = row[i * (first + 1) : (i + 1) * (first + 1)]
            for index in range(count.value):
                kernel.work(np.int32(index), *values, *baked)

    def plain(row):
        """Its arguments: arrays for pointers, to the end of their memory."""
        kinds = ["Count", *kernel.kinds[:first]] * runs
        return [memory(v, k) if k in launch.DTYPES else v for v, k in zip(row, kinds, strict=True)]

    function = SimpleNamespace(run=run, plain=plain)
    library = SimpleNamespace(get_cufunc=lambda: SimpleNamespace(kernel=function))
    return SimpleNamespace(overloads={"": SimpleNamespace(_codelibrary=library)})


def memory(pointer, kind):
    for pool in DEVICE.values():
        for block in pool.blocks:
            offset = pointer - block.ctypes.data
            if 0 <= offset < block.nbytes:
                return block[offset:].view(launch.DTYPES[kind])
    raise AssertionError("a pointer to nowhere")


def launched(stream, grid, function, *row):
    row = function.plain(row)
    stream.ask(lambda: function.run(row))


class Nccl:
    """cupy.cuda.nccl of one of two ranks, to which the other sends what it is sent."""

    available, NCCL_UINT8 = True, 1

    def get_unique_id(self):
        return "number"

    def NcclCommunicator(self, size, number, rank):
        assert (size, number) == (2, "number")
        return self

    def groupStart(self):
        self.sends, self.receives = [], []

    def send(self, pointer, count, kind, rank, stream):
        self.sends.append((stream, memory(pointer, "Bytes")[:count]))

    def recv(self, pointer, count, kind, rank, stream):
        self.receives.append((stream, memory(pointer, "Bytes")[:count]))

    def groupEnd(self):
        for (stream, source), (_, target) in zip(self.sends, self.receives, strict=False):
            length = min(len(source), len(target))  # of what is not cut in equal halves
            copy(Stream.all[stream], target[:length], source[:length])


CUPY = SimpleNamespace(
    ndarray=ndarray,
    empty=empty,
    asarray=asarray,
    get_default_memory_pool=lambda: None,
    cuda=SimpleNamespace(
        Device=Device,
        Stream=Stream,
        MemoryHook=nullcontext,
        alloc_pinned_memory=alloc_pinned_memory,
        memory=SimpleNamespace(OutOfMemoryError=MemoryError),
        runtime=SimpleNamespace(getDeviceCount=lambda: 2),
    ),
)


@contextmanager
def streams(early=()):
    """The GPU backend on such devices. A place makes two streams: for its work, and for uploads."""
    with ExitStack() as patches, np.errstate(all="ignore"):
        for module, name, value in (
            (device, "xp", CUPY),
            (device, "Cublas", Cublas),
            (device, "launch", launched),
            (device, "LaunchConfig", SimpleNamespace),
            (device, "Stream", SimpleNamespace(from_handle=Stream.all.__getitem__)),
            (device, "_first", []),
            (device, "_entered", []),
            (device, "SIMULATOR", False),
            (launch, "SIMULATOR", False),
            (gemm, "SIMULATOR", False),
            (launch, "how", "gpu"),
            (launch.kernel, "for_gpu", for_gpu),
            (launch, "PLAIN", {"float": np.float32}),
            (Stream, "early", early),
        ):
            patches.enter_context(mock.patch.object(module, name, value, create=True))
        for kernel in KERNELS:
            patches.enter_context(mock.patch.object(kernel, "compiled", {}))
        try:
            yield
        finally:
            Stream.all.clear()
            Stream.entered.clear()
            DEVICE.clear()
