"""The folder of a run, and how a run is told to stop."""

from __future__ import annotations

import json
import os
import signal
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from tinyalex.data.writing import lock, write_whole
from tinyalex.errors import TinyalexError, UsageError, WriteError


class RunFolder:
    """config.toml, metrics.jsonl, last.npz, best.npz and pictures, all in one folder.

    metrics.jsonl has one JSON object a line, with `event` = step, epoch or note. While a run writes
    here, `lock` holds its process number, and keeps other runs out.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics = path / "metrics.jsonl"
        self._unlock: Callable[[], object] = lambda: None

    @classmethod
    def create(cls, path: str | None, architecture: str) -> RunFolder:
        """A new folder, by default runs/<time>-<architecture>. It must not hold a run already."""
        folder = cls(
            Path(path) if path else _unused(f"{datetime.now():%Y%m%d-%H%M%S}-{architecture}")
        )
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(folder.path, error) from None
        folder.lock()
        if any((folder.path / name).exists() for name in ("last.npz", "best.npz")):
            folder.close()
            raise UsageError(
                f"{folder.path} already holds a run. Continue it with --resume {folder.path}, or "
                "choose another folder with --output-dir."
            )
        folder.write("metrics.jsonl", "")
        return folder

    @classmethod
    def resume(cls, source: Path, path: str | None, step: int, epoch: int) -> RunFolder:
        """The folder `source` of a run to go on with, or a new one that begins with its records.

        What was recorded after `step`, or of later epochs than `epoch`, is forgotten: the resumed
        run records it again.
        """
        old = folder = cls(source)
        if path is None or Path(path).resolve() == source.resolve():
            folder.lock()
        else:
            folder = cls.create(path, "")
        kept = [
            record
            for record in old.records()
            if record["step"] <= step and (record["event"] == "step" or record["epoch"] <= epoch)
        ]
        folder.write("metrics.jsonl", "".join(json.dumps(record) + "\n" for record in kept))
        return folder

    def lock(self) -> None:
        """Keeps other runs from writing here until `close`, or until this process ends."""
        path = self.path / "lock"
        try:
            file = _locked(path)
        except OSError as error:
            raise cannot_write(path, error) from None
        self._unlock = weakref.finalize(self, _unlock, path, file)
        for left in self.path.glob(".*.png.*"):  # of a drawing that was killed
            left.unlink()

    def close(self) -> None:
        """Lets other runs write here."""
        self._unlock()

    def write(self, name: str, text: str) -> None:
        """Writes a small file of the run as a whole."""
        try:
            write_whole(self.path / name, text.encode())
        except OSError as error:
            raise cannot_write(self.path / name, error) from None

    def record(self, event: str, values: Mapping[str, Any]) -> None:
        """Adds a line to metrics.jsonl."""
        try:
            with open(self.metrics, "a", encoding="utf-8") as file:
                file.write(json.dumps({"event": event, **values}) + "\n")
        except OSError as error:
            raise cannot_write(self.metrics, error) from None

    def records(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; one that a crash cut short is left out."""
        found = []
        lines = (
            self.metrics.read_text(encoding="utf-8").splitlines() if self.metrics.exists() else []
        )
        for line in lines:
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return found


def _locked(path: Path) -> int:
    """The descriptor of a file that only this process has locked; its content is our number.

    The system takes the lock back when the process ends, however that happens: a file that is left
    behind locks nothing. Raises UsageError if another process has the lock.
    """
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if not lock(file):
            holder = os.read(file, 20).decode()
            os.close(file)
            raise UsageError(
                f"{path.parent} is being written by another run, process {holder}. Let it finish "
                f"or end it (kill {holder}), or choose another folder with --output-dir."
            )
        with suppress(FileNotFoundError):
            if os.path.samestat(os.stat(file), os.stat(path)):
                os.truncate(file, 0)
                os.write(file, str(os.getpid()).encode())
                return file
        os.close(file)  # its run has just ended and removed it: others will lock a new one


def _unlock(path: Path, file: int) -> None:
    path.unlink(missing_ok=True)
    os.close(file)


def _unused(name: str) -> Path:
    """runs/<name>, with a number behind it if another run began in the same second."""
    path, number = Path("runs") / name, 2
    while path.exists():
        path, number = Path("runs") / f"{name}-{number}", number + 1
    return path


def cannot_write(path: Path, error: OSError) -> WriteError:
    """The error for a file or folder of a run that cannot be written."""
    return WriteError(
        f"Cannot write {path}: {error.strerror}. Free some space, or choose a folder that you may "
        "write to with --output-dir."
    )


class StoppedBySignal(TinyalexError):
    """The user pressed Ctrl-C or the system asked the run to end; its state has been saved."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class Stop:
    """Turns the first SIGINT or SIGTERM into a wish that the loop looks at after each step.

    A second one ends the process at once.
    """

    def __init__(self) -> None:
        self.number: int | None = None

    def __enter__(self) -> Stop:
        self._before = {n: signal.signal(n, self._hear) for n in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        for n in self._before:
            signal.signal(n, signal.SIG_DFL)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        for n, handler in self._before.items():
            signal.signal(n, handler)
