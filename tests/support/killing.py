"""Ends training runs at random moments and looks at what they leave.

    python killing.py FOLDER COUNT SECONDS SEED SIGNAL...

The trainer is imported once and each attempt is a fork of this process, which therefore must have
no second thread. The child writes a letter into a pipe whenever another part of the run begins; the
parent waits for some part, and a little longer, and sends a signal. Then the checkpoint must load
and the log be sound, and the run is continued, now and then from its best checkpoint, which is an
earlier one, and now and then in another folder. One that comes to its end must have come to what an
uninterrupted run comes to. Ends after COUNT signals or SECONDS, and prints its counts as JSON.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import matplotlib.backends.backend_agg
from runs import pictures, records, saved

import tinyalex.data.opening
import tinyalex.reference
from tinyalex.cli.parser import main
from tinyalex.runs import checkpoint
from tinyalex.training import loop, recorder

FOR_THE_CHILDREN = matplotlib.backends.backend_agg, tinyalex.data.opening, tinyalex.reference
"""What none of them should have to import."""

# The parts of a run by their letters, and how many seconds to wait at most once one has begun.
PARTS = {"begin": 0.03, "train": 0.02, "save": 0.008, "epoch": 0.02, "draw": 0.3}
FLAGS = ["--arch", "mini", "-b", "8", "--epochs", "3", "-p", "1", "--backend", "reference"]
STEPS = 9  # of 3 epochs with 21 images
GO_BACK = 0.2  # how often a run that is to be killed is continued from its best checkpoint
MOVE = 0.3  # and how often in another folder
LEFT_BEHIND = 99  # the exit code of a child that would leave threads or processes


def child(argv: list[str], marks: int, draw: bool) -> NoReturn:
    """Runs a command in this process and ends it. marks: where the letters go.

    draw: whether pictures are drawn after each epoch, not only at the end.
    """
    inside: list[bytes] = []

    def marked(part: str, function: Any) -> Any:
        def call(*arguments: Any, **settings: Any) -> Any:
            inside.append(part[:1].encode())
            os.write(marks, inside[-1])
            result = function(*arguments, **settings)
            inside.pop()
            os.write(marks, inside[-1])  # back in what is around it
            return result

        return call

    for place, name, part in (
        (loop, "train_epoch", "train"),
        (loop, "finish_epoch", "epoch"),
        (recorder.Recorder, "draw", "draw"),
        (checkpoint, "save", "save"),
    ):
        setattr(place, name, marked(part, getattr(place, name)))
    recorder.SAVE_SECONDS = -1
    recorder.DRAW_SECONDS = -1 if draw else 60
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    inside.append(b"b")
    os.write(marks, b"b")
    code = main(argv)
    threads = [t.name for t in threading.enumerate() if not t.daemon]
    ours = [name for name in threads if not name.startswith("reference")]  # kept for the next step
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    os._exit(code if ours == ["MainThread"] and not children else LEFT_BEHIND)


class Harness:
    """Runs on one data set, one after another. expected: what each must come to."""

    def __init__(self, folder: Path, seed: int, numbers: list[int]) -> None:
        assert os.listdir("/proc/self/task") == [str(os.getpid())], "a fork would lose threads"
        self.data = pictures(folder / "pictures", train=7, val=2)
        self.folder, self.runs, self.random = folder, 0, random.Random(seed)
        self.numbers, self.landed, self.slowest = numbers, Counter[str](), 0.0
        self.went_back = self.moved = self.place = 0
        self.expected = self.end_run()

    @property
    def run(self) -> Path:
        """The folder of the run at hand."""
        return self.folder / f"{self.runs}-{self.place}"

    @property
    def latest(self) -> Path:
        """The checkpoint to go on from: the last, or the best where a kill came between them."""
        last, best = self.run / "last.npz", self.run / "best.npz"
        return best if best.exists() and not last.exists() else last

    def started(self, draw: bool, source: Path) -> tuple[int, int]:
        """Begins the run in a child, or continues it there from the checkpoint `source` if it is.

        Its process and the pipe with its letters.
        """
        argv = ["train", "--data", str(self.data), *FLAGS, "--output-dir", str(self.run)]
        if source.exists():
            argv = ["train", "--resume", str(source), "--output-dir", str(self.run)]
        letters, marks = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                child(argv, marks, draw)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        os.close(marks)
        return pid, letters

    def attempt(self, number: int, step: int) -> tuple[int, int]:
        """Begins or continues the run and sends it the signal.

        step: what was saved before. Returns the wait status, 0 if the signal came too late, and the
        step that the run was continued at or may have been.
        """
        # Pictures are drawn at the end alone, unless it is in drawing that the run is to be killed.
        kill = number == signal.SIGKILL
        part = self.random.choice([part for part in PARTS if kill or part != "draw"])
        times = self.random.randint(1, 4) if part in ("train", "save") else 1
        begin, best = self.latest, self.run / "best.npz"
        if kill and best.exists() and self.random.random() < GO_BACK:
            begin = best
            self.went_back += 1
        if begin == best:
            step = min(step, checkpoint.load(begin).progress.step)
        if kill and begin.exists() and self.random.random() < MOVE:
            self.place += 1
            self.moved += 1
        pid, source = self.started(part == "draw", begin)
        letters = ""
        while letters.count(part[0]) < times and (letter := os.read(source, 1).decode()):
            letters += letter
        time.sleep(self.random.uniform(0, PARTS[part]))
        os.set_blocking(source, False)
        with suppress(BlockingIOError):
            letters += os.read(source, 99).decode()
        sent = time.perf_counter()
        os.kill(pid, number)
        _, status = os.waitpid(pid, 0)
        os.close(source)
        if status != 0:
            self.landed[letters[-1]] += 1
            stopped = os.WIFEXITED(status) and os.WEXITSTATUS(status) == 128 + number
            if stopped:
                self.slowest = max(self.slowest, time.perf_counter() - sent)
            unheard = kill or letters[-1] == "b"  # nothing handles it then, and nothing is to save
            assert stopped or unheard, (letters, status)
        if begin.exists() and self.run != begin.parent:
            if not self.latest.exists():  # nothing was saved there yet: it is abandoned
                shutil.rmtree(self.run, ignore_errors=True)
                self.place -= 1
            elif self.latest.name == "best.npz":  # what came after it still lies where it was
                step = min(step, checkpoint.load(self.latest).progress.step)
        return status, step

    def check(self, status: int, step: int) -> int:
        """What must hold after each attempt. step: where it began at least; what is saved now."""
        last, steps, trained = self.latest, [], []
        if step or last.exists():
            now = checkpoint.load(last).progress.step
            assert now >= step, f"{last} went back from step {step} to {now}"
            step = now
        log = self.run / "metrics.jsonl"
        lines = log.read_text().splitlines(keepends=True) if log.exists() else []
        for line in lines:
            try:
                record = json.loads(line)
            except ValueError:
                assert line is lines[-1], f"{log}: {line!r} is not the last line"
                break
            steps.append(record["step"])
            trained += [record["step"]] if record["event"] == "step" else []
        assert steps == sorted(steps)
        assert trained[:step] == list(range(1, step + 1)), f"{log} has a gap before step {step}"
        if os.WIFEXITED(status):  # it has ended by itself
            assert step == max(steps, default=0), f"step {max(steps)} is lost, {step} saved"
        return step

    def outcome(self, folder: Path) -> list[Any]:
        """What a finished run comes to: its checkpoints and its log. It leaves no other files."""
        known = "best.npz config.toml curves.png filters.png last.npz metrics.jsonl predictions.png"
        assert sorted(path.name for path in folder.iterdir()) == known.split()
        log = records(folder)
        assert [r["step"] for r in log if r["event"] == "step"] == list(range(1, STEPS + 1))
        assert [r["epoch"] for r in log if r["event"] == "epoch"] == [1, 2, 3]
        return [saved(folder / "last.npz"), saved(folder / "best.npz"), log]

    def end_run(self) -> list[Any]:
        """Lets the run come to its end, if it has not; then the next one."""
        pid, source = self.started(False, self.latest)
        _, status = os.waitpid(pid, 0)
        os.close(source)
        assert status == 0, f"{self.run} ended with {os.waitstatus_to_exitcode(status)}"
        found = self.outcome(self.run)
        self.runs, self.place = self.runs + 1, 0
        return found

    def kill(self, count: int, seconds: float) -> dict[str, Any]:
        """So many signals, or as many as fit into so many seconds."""
        began, step = time.monotonic(), 0
        while self.landed.total() < count and time.monotonic() - began < seconds:
            status, step = self.attempt(self.random.choice(self.numbers), step)
            step = self.check(status, step)
            if step == STEPS:
                assert self.end_run() == self.expected, f"{self.folder} {self.runs - 1}: not equal"
                step = 0
        assert self.end_run() == self.expected, f"{self.folder} {self.runs - 1}: not equal"
        return {
            "signals": self.landed.total(),
            "runs": self.runs - 1,
            "went_back": self.went_back,
            "moved": self.moved,
            "landed": {part: self.landed[part[0]] for part in PARTS},
            "slowest": round(self.slowest, 2),
            "seconds": round(time.monotonic() - began, 1),
        }


if __name__ == "__main__":
    folder, count, seconds, seed, *names = sys.argv[1:]
    numbers = [signal.Signals[name].value for name in names]
    print(json.dumps(Harness(Path(folder), int(seed), numbers).kill(int(count), float(seconds))))
