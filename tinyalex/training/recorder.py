"""Log, checkpoints and pictures that a run leaves while it is trained; and how it is stopped."""

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyalex.errors import DivergedError
from tinyalex.figures import draw
from tinyalex.runs import checkpoint
from tinyalex.runs.sharing import whole
from tinyalex.system.signals import Stop, StoppedBySignal
from tinyalex.training import messages
from tinyalex.training.estimate import Estimate
from tinyalex.training.meter import Meter
from tinyalex.training.standstill import Standstill
from tinyalex.training.start import Run

SAVE_SECONDS = 600  # a crash loses at most so much work
DRAW_SECONDS = 60  # between one drawing of the pictures and the next
SIGNAL_IMAGES = 16  # on which it is measured what of an image arrives, if the loss does not fall


class Recorder:
    """Writer of a run's folder while it is trained. say: prints a line."""

    def __init__(self, run: Run, stop: Stop, say: Callable[[str], None]) -> None:
        self.run, self.stop, self.say = run, stop, say
        self.standstill = Standstill(run.network, run.progress, run.recipe, run.images.labels)
        self.estimate = Estimate(run)
        self.saved = self.drawn = time.monotonic()

    def step(self, loss: float, images: npt.NDArray[np.uint8], lr: float, meter: Meter) -> None:
        """Log a step, every print_freq; say if the loss stands, and once how long it will take."""
        run, progress = self.run, self.run.progress
        if progress.step % run.config.print_freq == 0:
            epoch = progress.epoch + progress.batch / run.epoch_batches
            record = {"step": progress.step, "epoch": epoch, "loss": loss, "lr": lr}
            record |= meter.speed()
            run.folder.record("step", record)
            if not sys.stderr.isatty():
                self.say(messages.step(record, run))
        first_piece = images[: len(images) // (run.config.pieces or 1)]  # the first rank has it
        if text := self.standstill.after_step(loss, first_piece[:SIGNAL_IMAGES]):
            self.note(text)
        if text := self.estimate.after_step(images):
            self.say(text)  # not of the log: no two runs have it alike

    def epoch(self, record: dict[str, Any]) -> None:
        """Log a finished epoch, and save; draw now and then."""
        run, progress = self.run, self.run.progress
        run.folder.record("epoch", record)
        self.say(messages.finished_epoch(record, run))
        progress.finish_epoch(record)
        lr, reason = run.learning_rate()
        if reason and progress.epoch < run.recipe.epochs:
            self.note(f"learning rate {record['lr']:g} -> {lr:g}: {reason}")
        if text := self.standstill.after_epoch():
            self.note(text)
        if progress.best is record:
            self.save("best.npz")
        self.save()
        (due,) = run.team.agree(time.monotonic() - self.drawn > DRAW_SECONDS)
        if due:
            self.draw()
        self.estimate.after_epoch()

    def say_step(self, text: str) -> None:
        """Say something about the coming step."""
        self.say(f"step {self.run.progress.step}  {text}")

    def note(self, text: str) -> None:
        """Say something that belongs into the log, too."""
        self._note(text)
        self.say(text)

    def _note(self, text: str) -> None:
        step, epoch = self.run.progress.step, self.run.progress.epoch
        self.run.folder.record("note", {"step": step, "epoch": epoch, "text": text})

    def between_steps(self) -> None:
        """Save now and then, and stop if a signal asked for it."""
        due = time.monotonic() - self.saved > SAVE_SECONDS
        number, due_anywhere = self.run.team.agree(self.stop.number or 0, due)
        if number:
            self.save()
            raise StoppedBySignal(f"Stopped. {messages.how_to_continue(self.run)}", int(number))
        if due_anywhere:
            self.save()

    def save(self, name: str = "last.npz") -> None:
        """Write a checkpoint, unless a parameter is no longer finite."""
        state = self.run.state()
        for parameter, value in state.parameters.items():
            if not np.isfinite(value).all():
                raise self.diverged(f"after step {state.progress.step} the parameter {parameter}")
        if self.run.team.first:
            checkpoint.save(state, self.run.folder.path / name)
        self.saved = time.monotonic()

    def draw(self) -> None:
        """Draw the pictures of the run."""
        run, network = self.run, whole(self.run.network)
        if run.team.first:
            draw.draw_all(run.folder, network, run.dataset, run.config, run.progress)
        self.drawn = time.monotonic()

    def diverged(self, what: str) -> DivergedError:
        """The error for a loss or parameter that is not finite; the log gets a note of it."""
        self._note(f"{what} is not finite")
        return messages.diverged(what, self.run)
