"""The folder of a run."""

import errno
import json
import math
import os
import sys
import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from tinyalex.errors import CheckpointError, UsageError
from tinyalex.runs import checkpoint
from tinyalex.runs.checkpoint import Checkpoint
from tinyalex.runs.config import Config, from_file
from tinyalex.runs.progress import Progress
from tinyalex.system.files import lock, open_own, write_whole, writing

# What a run writes before it saves anything, in the order in which it does.
FIRST_FILES = (
    "lock",
    "config.toml.partial",
    "config.toml",
    "metrics.jsonl.partial",
    "metrics.jsonl",
    "best.npz.partial",
    "last.npz.partial",
)


NEEDED = {
    "step": {"step", "epoch", "loss", "lr"},
    "epoch": {"step", "epoch", "loss", "top1_error", "top5_error", "lr"},
    "note": {"step", "epoch", "text"},
}
"""What each kind of line of the log has at least."""


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
    def create(cls, path: str | None, architecture: str, settings: str) -> Self:
        """A new folder, by default runs/<time>-<architecture>, with `settings` as config.toml.

        It must hold nothing but what is left of a run that ended before anything was saved.
        """
        folder = cls(
            Path(path) if path else _unused(f"{datetime.now():%Y%m%d-%H%M%S}-{architecture}")
        )
        with writing(folder.path):
            folder.path.mkdir(parents=True, exist_ok=True)
            names = sorted(path.name for path in folder.path.iterdir())
        others = _not_of_a_run(folder.path, names)
        if others and not folder.saved:
            more = f" and {len(others) - 3} more" if len(others) > 3 else ""
            raise UsageError(
                f"{folder.path} holds other files, which a run might write over: "
                f"{', '.join(others[:3])}{more}. Choose a new or empty folder with --output-dir."
            )
        folder.lock()
        if folder.saved:
            folder.close()
            raise UsageError(
                f"{folder.path} already holds a run. Continue it with --resume {folder.path}, or "
                "choose another folder with --output-dir."
            )
        folder._begin(settings)
        folder.write("metrics.jsonl", "")
        return folder

    @classmethod
    def resume(cls, source: Path, path: str | None, settings: str) -> Self:
        """The folder `source` of a run to go on with, or a new one that begins with its log.

        settings: its config.toml from now on.
        """
        if path is not None and Path(path).resolve() != source.resolve():
            folder = cls.create(path, "", settings)
            folder._write_log(cls(source).records())
            return folder
        folder = cls(source)
        folder.lock()
        folder._begin(settings)
        return folder

    def _begin(self, settings: str) -> None:
        """Remove what a run that was killed left of a save or a drawing, and save the settings."""
        saves = [self.path / f"{name}.partial" for name in ("last.npz", "best.npz")]
        for left in (*saves, *self.path.glob(".*.png.*")):
            left.unlink(missing_ok=True)
        self.write("config.toml", settings)

    @property
    def saved(self) -> bool:
        """True if a run has saved anything here."""
        return any((self.path / name).exists() for name in ("last.npz", "best.npz"))

    def restore(
        self, source: Path, state: Checkpoint, moved: bool, say: Callable[[str], None]
    ) -> None:
        """Make the folder hold the run as it was in the checkpoint `source`, wherever that lies.

        state: the run at that point. moved: whether its data lie elsewhere than then. The best
        checkpoint comes first: a run that has last.npz is taken to be complete. The log is cut
        last: what is too long will be cut again, but what is missing would not be trained again.
        """
        best, last = self.path / "best.npz", self.path / "last.npz"
        before = source.with_name("best.npz")
        elsewhere = before.resolve() != best.resolve()
        if before.exists() and (elsewhere or moved):  # else it stays unread: it may be large
            try:
                older = checkpoint.load(before)
            except CheckpointError as error:
                say(f"note: {error}")
            else:
                data = {"data": state.config["data"]}  # moved perhaps; `show` and `eval` look there
                if older.progress.best == state.progress.best:
                    checkpoint.save(replace(older, config=older.config | data), best)
        if source.resolve() != last.resolve():
            checkpoint.save(state, last)
        self.forget(state.progress)

    def forget(self, progress: Progress) -> None:
        """Cut off the log what a run that is resumed at `progress` will record again.

        Epochs that it has finished and the log lacks are put back: a line may be damaged, or have
        been cut off when the run was resumed from a checkpoint older than this one.
        """
        log = [
            record
            for record in self.records()
            if record["step"] <= progress.step
            and (record["event"] == "step" or record["epoch"] <= progress.epoch)
        ]
        there = {record["epoch"] for record in log if record["event"] == "epoch"}
        log += [{"event": "epoch", **r} for r in progress.history if r["epoch"] not in there]
        self._write_log(sorted(log, key=lambda record: record["step"]))

    def _write_log(self, records: Iterable[Mapping[str, Any]]) -> None:
        self.write("metrics.jsonl", "".join(json.dumps(record) + "\n" for record in records))

    def lock(self) -> None:
        """Keep other runs from writing here until `close`, or until this process ends."""
        path = self.path / "lock"
        with writing(path):
            file = _locked(path)
        self._unlock = weakref.finalize(self, _unlock, path, file)

    def close(self) -> None:
        """Let other runs write here."""
        self._unlock()

    def write(self, name: str, text: str) -> None:
        """Write a small file of the run as a whole."""
        with writing(self.path / name):
            write_whole(self.path / name, text.encode())

    def record(self, event: str, values: Mapping[str, Any]) -> None:
        """Add a line to metrics.jsonl."""
        with (
            writing(self.metrics),
            open(self.metrics, "a", encoding="utf-8", opener=open_own) as file,
        ):
            file.write(json.dumps({"event": event, **values}) + "\n")

    def records(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; those that are damaged are left out."""
        return [record for line in self._lines() if (record := _sound(line))]

    def damage(self) -> str:
        """Say what of the log is lost, in a sentence, or an empty text.

        A last line without an end is no damage: a crash cuts it short, and it is trained again.
        """
        if not self.metrics.exists():
            return f"There is no {self.metrics}: the log begins anew."
        lost = sum(line.endswith(b"\n") and not _sound(line) for line in self._lines())
        return f"{self.metrics} has damaged lines, which are left out: {lost:,}." if lost else ""

    def _lines(self) -> list[bytes]:
        try:
            if self.metrics.exists() and not self.metrics.is_file():
                raise OSError(errno.EINVAL, "It is no file")
            return self.metrics.read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CheckpointError(
                f"The log {self.metrics} cannot be read: {error.strerror}. Remove it: a run can be "
                "resumed without."
            ) from None


class ReadFolder(RunFolder):
    """The folder of a run in a process that leaves the writing to another one."""

    def write(self, name: str, text: str) -> None:
        """Write nothing."""

    def record(self, event: str, values: Mapping[str, Any]) -> None:
        """Record nothing."""


def _sound(line: bytes) -> dict[str, Any] | None:
    """The record in a line of the log, or None if it has not all that is read from it."""
    try:
        record = json.loads(line)
        numbers = {key: value for key, value in record.items() if key not in ("event", "text")}
        sound = (
            NEEDED[record["event"]] <= record.keys()
            and all(type(value) in (int, float) for value in numbers.values())
            and type(record["step"]) is int
            and math.isfinite(record["epoch"])
        )
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError):
        return None
    return record if sound else None


def _locked(path: Path) -> int:
    """The descriptor of a file that only this process has locked; its content is our number.

    The system takes the lock back when the process ends, however that happens: a file that is left
    behind locks nothing. Raises UsageError if another process has the lock, or if the file is not
    of a run.
    """
    while True:
        file = open_own(path, os.O_RDWR)
        free, content = lock(file), os.read(file, 20)
        if content.strip(b"0123456789"):
            os.close(file)
            raise UsageError(
                f"{path} is in the way: a run keeps others out with a file of this name. Rename "
                "it, or choose another folder with --output-dir."
            )
        if not free:
            holder = content.decode()
            os.close(file)
            raise UsageError(
                f"{path.parent} is being written by another run, process {holder}. Let it finish "
                f"or end it (kill {holder}), or choose another folder with --output-dir."
            )
        with suppress(FileNotFoundError):
            if os.path.samestat(os.stat(file), os.stat(path)):
                os.truncate(file, 0)
                os.lseek(file, 0, os.SEEK_SET)
                os.write(file, str(os.getpid()).encode())
                return file
        os.close(file)  # its run has just ended and removed it: others will lock a new one


def _unlock(path: Path, file: int) -> None:
    """Remove the file while it is locked: removed later, it might be another run's already.

    Windows removes no open file. There nothing is locked either, so that it can be closed before.
    """
    if sys.platform == "win32":
        os.close(file)
    with suppress(OSError):  # a file that stays locks nothing
        path.unlink()
    if sys.platform != "win32":
        os.close(file)


def _not_of_a_run(folder: Path, names: Iterable[str]) -> list[str]:
    """Names in a folder that were not written by a run which ended before its first save.

    Its config.toml is the first file of a run, and to the letter what those settings are written
    as: one with comments, in another order or with gaps is the user's.
    """
    try:
        text = (folder / "config.toml").read_text(encoding="utf-8")
        begun = from_file(folder / "config.toml", Config()).toml() == text
    except (OSError, UnicodeDecodeError, UsageError):
        begun = False
    ours = FIRST_FILES if begun else FIRST_FILES[:2]
    return [name for name in names if name not in ours]


def _unused(name: str) -> Path:
    """runs/<name>, with a number behind it if another run began in the same second."""
    path, number = Path("runs") / name, 2
    while path.exists():
        path, number = Path("runs") / f"{name}-{number}", number + 1
    return path
