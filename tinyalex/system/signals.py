"""Signals that tell a run to stop."""

import signal
from types import FrameType
from typing import Self

from tinyalex.errors import TinyalexError


class StoppedBySignal(TinyalexError):
    """The user pressed Ctrl-C or the system asked the run to end; its state has been saved."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class Stop:
    """Record of the first SIGINT or SIGTERM, at which the loop looks after each step.

    A second one ends the process at once.
    """

    def __init__(self) -> None:
        self.number: int | None = None

    def __enter__(self) -> Self:
        self._before = {n: signal.signal(n, self._receive) for n in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        for n in self._before:
            signal.signal(n, signal.SIG_DFL)

    def __exit__(self, *raised: object) -> None:
        for n, handler in self._before.items():
            signal.signal(n, handler)
