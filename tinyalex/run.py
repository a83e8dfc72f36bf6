"""The folder of a run, and how a run is told to stop."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from tinyalex.errors import TinyalexError, UsageError, WriteError


class RunFolder:
    """config.toml, metrics.jsonl, last.npz, best.npz and pictures, all in one folder.

    metrics.jsonl has one JSON object a line, with `event` = step, epoch or note.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics = path / "metrics.jsonl"

    @classmethod
    def create(cls, path: str | None, architecture: str) -> RunFolder:
        """A new folder, by default runs/<time>-<architecture>. It must not hold a run already."""
        folder = cls(
            Path(path) if path else _unused(f"{datetime.now():%Y%m%d-%H%M%S}-{architecture}")
        )
        if (folder.path / "last.npz").exists():
            raise UsageError(
                f"{folder.path} already holds a run. Continue it with --resume {folder.path}, or "
                "choose another folder with --output-dir."
            )
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(folder.path, error) from None
        folder.write("metrics.jsonl", "")
        return folder

    def write(self, name: str, text: str) -> None:
        """Writes a small file of the run as a whole."""
        partial = self.path / f"{name}.partial"
        try:
            partial.write_text(text, encoding="utf-8")
            os.replace(partial, self.path / name)
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

    def rewind(self, step: int) -> None:
        """Forgets what was recorded after `step`: a resumed run records it again."""
        kept = [record for record in self.records() if record["step"] <= step]
        self.write("metrics.jsonl", "".join(json.dumps(record) + "\n" for record in kept))


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
