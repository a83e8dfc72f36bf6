"""Work cut into fixed pieces, shared out among the processor's cores.

The cuts depend on the shapes alone and partial sums are added in the order of the pieces, so the
result is the same, bit for bit, on any number of cores. Within a piece BLAS runs on one thread:
threads of ours over pieces beat BLAS's own over one product at a time, because they also share the
copying between the products.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TypeVar

import numpy as np
from threadpoolctl import ThreadpoolController

from tinyalex.system.threads import Threads

PIECES = 4  # at most, and so of cores; with 8 a step takes a twentieth longer on two
PIECE_BYTES = 1 << 20  # at least: handing less to another thread costs more than it saves
# What one call of NumPy goes through. Less would stay in a nearer cache, and yet be slower: between
# two calls a thread needs the interpreter's lock, and may have to sleep for it.
RUN_BYTES = 1 << 21

T = TypeVar("T")

_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
_blas = ThreadpoolController().select(user_api="blas")
_threads: Threads
_one_caller: threading.Lock


def _begin() -> None:
    """Threads, and the lock of who uses them: both are gone, or held for ever, in a fork."""
    global _threads, _one_caller
    _threads = Threads(PIECES, thread_name_prefix="reference")
    _one_caller = threading.Lock()


_begin()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin)


def in_pieces(work: Callable[[slice], T], count: int, nbytes: int) -> list[T]:
    """[work(piece), ...] for the pieces of range(count), in their order.

    nbytes: the memory that all the work goes through, by which it is cut. The calling thread works
    too, and each thread takes another piece when it is free: waking threads is what costs. The
    caller begins at the first piece and the others at the last, so that on two cores a layer mostly
    finds its input where it was computed. One caller at a time, since the number of BLAS's threads
    is the process's: `work` must not call this function.
    """
    cuts = next((p for p in (PIECES, PIECES // 2) if nbytes >= p * PIECE_BYTES), 1)
    length = -(-count // cuts)
    pieces = [slice(i, min(i + length, count)) for i in range(0, count, length)]
    waiting, done = deque(enumerate(pieces)), {}

    def share(take: Callable[[], tuple[int, slice]]) -> None:
        # A NaN or infinity passes through the layers; the training loop looks for it in the loss.
        with np.errstate(all="ignore"):
            while waiting:
                try:
                    i, piece = take()
                except IndexError:
                    return  # another thread took the last one
                try:
                    done[i] = work(piece)
                except BaseException:
                    waiting.clear()  # nobody begins another one
                    raise

    helpers: list[Future[None]] = []
    with _one_caller, _blas.limit(limits=1):
        try:
            helpers.extend(_threads.submit(share, waiting.pop) for _ in pieces[1:_cores])
            share(waiting.popleft)
        finally:
            waiting.clear()  # empty, unless an interrupt came
            errors = [helper.exception() for helper in helpers]  # waits for each
    for error in filter(None, errors):
        raise error
    return [done[i] for i in range(len(pieces))]


def in_runs(piece: slice, bytes_each: int) -> Iterator[slice]:
    """Cut a piece into runs, each of one element or of as many as RUN_BYTES hold."""
    length = max(1, RUN_BYTES // bytes_each)
    for start in range(piece.start, piece.stop, length):
        yield slice(start, min(start + length, piece.stop))
