"""Work on many small things by a few threads, the results in order."""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from threading import Event
from typing import TypeVar

from tinyalex.system.threads import Threads

Item = TypeVar("Item")
Result = TypeVar("Result")

_TOGETHER = 16  # what a thread takes at once, so that handing it over costs little
_AHEAD = 4  # such handfuls per thread: enough while one result takes longer to use than others


def in_order(
    work: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Generator[Result, None, None]:
    """`work(item)` for each of `items`, in their order, computed ahead by `workers` threads.

    workers: 0 computes in the caller. What `work` raises is raised here. When the iterator has
    ended, has raised or is closed, its threads have ended too.
    """
    if workers == 0:
        yield from map(work, items)
        return

    def handful(first: int) -> list[Result]:
        some = items[first : first + _TOGETHER]
        return [work(item) for item in some if not stop.is_set()]

    stop = Event()
    under_way: deque[Future[list[Result]]] = deque()
    with Threads(workers, thread_name_prefix="decode") as pool:
        try:
            for first in range(0, len(items), _TOGETHER):
                under_way.append(pool.submit(handful, first))
                if len(under_way) > _AHEAD * workers:
                    yield from under_way.popleft().result()
            while under_way:
                yield from under_way.popleft().result()
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
