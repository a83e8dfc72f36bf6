"""Work cut into fixed pieces, shared out among the processor's cores.

The cuts depend on the shapes alone and partial sums are added in the order of the pieces, so the
result is the same, bit for bit, on any number of cores. Within a piece BLAS runs on one thread:
threads of ours over pieces beat BLAS's own over one product at a time, because they also share the
copying between the products.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import numpy as np
from threadpoolctl import ThreadpoolController

PIECES = 8  # at most: so many cores find work
PIECE_BYTES = 1 << 20  # at least: handing less to another thread costs more than it saves
CACHE_BYTES = 1 << 20  # what stays in a core's second-level cache

T = TypeVar("T")

_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
_threads = ThreadPoolExecutor(PIECES, thread_name_prefix="reference")
_blas = ThreadpoolController()


def in_pieces(work: Callable[[slice], T], count: int, nbytes: int) -> list[T]:
    """[work(piece), ...] for the pieces of range(count), in their order.

    nbytes: the memory that all the work goes through, by which it is cut. The calling thread works
    too, and each thread takes the next piece when it is free: waking threads is what costs.
    """
    length = -(-count // min(PIECES, max(1, nbytes // PIECE_BYTES)))
    pieces = [slice(i, min(i + length, count)) for i in range(0, count, length)]
    done: dict[int, T] = {}
    waiting = iter(enumerate(pieces))  # no two threads get the same: a step of it is one bytecode

    def share() -> None:
        # A NaN or infinity passes through the layers; the training loop looks for it in the loss.
        with np.errstate(all="ignore"):
            for i, piece in waiting:
                done[i] = work(piece)

    with _blas.limit(limits=1, user_api="blas"):
        helpers = [_threads.submit(share) for _ in range(min(_cores, len(pieces)) - 1)]
        try:
            share()
        finally:
            wait(helpers)
    for helper in helpers:
        helper.result()
    return [done[i] for i in range(len(pieces))]


def in_cache(piece: slice, bytes_each: int) -> Iterator[slice]:
    """Cuts a piece into runs, each of one element or as many as stay in a core's cache."""
    length = max(1, CACHE_BYTES // bytes_each)
    for start in range(piece.start, piece.stop, length):
        yield slice(start, min(start + length, piece.stop))
