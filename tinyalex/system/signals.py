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


AT_ONCE = (signal.SIGINT, signal.SIGTERM)
# A lost terminal's, which comes twice, from the system and from the shell; and what Slurm sends
# before a job's time is over. Windows has neither.
ONCE = tuple(getattr(signal, name) for name in ("SIGHUP", "SIGUSR1") if hasattr(signal, name))


class Stop:
    """Record of the first signal, at which the loop looks after each step.

    SIGINT, SIGTERM, SIGUSR1, and SIGHUP unless it is ignored, as by nohup. A second SIGINT or
    SIGTERM ends the process at once.
    """

    def __init__(self) -> None:
        self.number: int | None = None

    def __enter__(self) -> Self:
        caught = (*AT_ONCE, *(n for n in ONCE if signal.getsignal(n) != signal.SIG_IGN))
        self._before = {n: signal.signal(n, self._receive) for n in caught}
        return self

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        for n in self._before:
            signal.signal(n, signal.SIG_DFL if n in AT_ONCE else signal.SIG_IGN)

    def __exit__(self, *raised: object) -> None:
        for n, handler in self._before.items():
            signal.signal(n, handler)
