"""Threads that an interrupt cannot leave asleep."""

import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")


class Threads(ThreadPoolExecutor):
    """ThreadPoolExecutor, with Ctrl-C held back while it starts a thread.

    A KeyboardInterrupt inside Thread.start() would leave a thread that the executor does not know
    of, and the process would wait for it for ever at its end.
    """

    def submit(self, work: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Submit work to the threads. Raises MemoryError where the system gives no thread."""
        if len(self._threads) == self._max_workers:  # no thread will be started
            return super().submit(work, *args, **kwargs)
        with interrupts_held_back():
            try:
                return super().submit(work, *args, **kwargs)
            except RuntimeError as error:
                if "start new thread" not in str(error):
                    raise
                raise MemoryError(str(error)) from None


@contextmanager
def interrupts_held_back() -> Iterator[None]:
    """Let a SIGINT that comes meanwhile be handled at the end, as it would have been at once."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield  # no handler of Python's runs here
        return
    heard: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, frame: heard.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if heard:
            handler(*heard[0])
