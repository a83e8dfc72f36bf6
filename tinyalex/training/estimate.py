"""Estimate of the time that a run will take, from its first steps."""

import math
import os
import time

import numpy as np
import numpy.typing as npt

from tinyalex.data.batches import Kept
from tinyalex.net.draws import centre_draws, initial_parameters, training_draws
from tinyalex.net.network import Network
from tinyalex.net.presets import Architecture, get_architecture
from tinyalex.net.shapes import layers
from tinyalex.net.step import loss_and_gradients
from tinyalex.training.start import Run

STEPS, WARM = 20, 2  # the first are not measured, because they start threads and take memory
SAVED = 2**28  # bytes of a checkpoint that are saved in a second
LONG = 3600  # seconds after which a smaller network is named:
SMALL = "mini"


class Estimate:
    """Stopwatch of a run's steps, and of what comes between one epoch and the next."""

    def __init__(self, run: Run) -> None:
        self.run, self.last = run, time.monotonic()
        self.steps, self.images, self.seconds, self.decoding = 0, 0, 0.0, 0.0
        self.ends: list[float] = []

    def after_step(self, images: npt.NDArray[np.uint8]) -> str:
        """Text for the user after the step number STEPS since the run began or was resumed."""
        now, self.steps = time.monotonic(), self.steps + 1
        if self.steps <= WARM:
            self.decoding = sum(kept.decoding for kept in self._kept)
        else:
            self.images, self.seconds = self.images + len(images), self.seconds + now - self.last
        text = self._text(images) if self.steps == STEPS else ""
        self.last = time.monotonic()
        return text

    def after_epoch(self) -> None:
        """Count what came since the last step: validation, saving, pictures."""
        self.ends.append(time.monotonic() - self.last)
        self.last = time.monotonic()

    @property
    def _kept(self) -> list[Kept]:
        return [s for s in (self.run.images, self.run.val) if isinstance(s, Kept)]

    def _text(self, images: npt.NDArray[np.uint8]) -> str:
        run, count, size = self.run, len(self.run.images.labels), self.run.recipe.batch_size
        left = (run.recipe.epochs - run.progress.epoch) * count
        left -= min(run.progress.batch * size, count)
        if run.config.max_steps is not None:
            left = min(left, (run.config.max_steps - run.progress.step) * size)
        # Decoding, once an image, goes on beside the steps and makes them slower.
        cores = min(os.cpu_count() or 1, max(1, run.config.workers))
        known = sum(len(kept.labels) - kept.unknown for kept in self._kept)
        decoded = sum(kept.decoding for kept in self._kept)
        to_decode = sum(kept.unknown for kept in self._kept) * decoded / max(known, 1) / cores
        step = max(self.seconds - (decoded - self.decoding) / cores, 1e-9) / self.images
        ends = math.ceil(left / count) * self._end(images)
        seconds, to_decode = run.team.agree(left * step + ends, to_decode)
        text = f"about {duration(seconds + to_decode)} to go"
        if run.config.early_stopping:
            text += ", or less"
        small = get_architecture(SMALL).with_classes(len(run.dataset.classes))
        macs, macs_small = (sum(c.macs for c in layers(a.rows)) for a in (run.architecture, small))
        alike = run.ops.name == "reference" and run.team.size == 1 and not run.network.frozen
        if seconds > LONG and alike and macs > 2 * macs_small:
            ratio = _seconds_an_image(run, small, images) / step
            text += f"; with --arch {SMALL} about {duration(seconds * ratio + to_decode)}"
            text += ", by the time of one of its steps"
        return text

    def _end(self, images: npt.NDArray[np.uint8]) -> float:
        """Seconds that the end of an epoch takes."""
        if self.ends:
            return sum(self.ends) / len(self.ends)
        network, val, data = self.run.network, self.run.val, self.run.architecture.data
        parameters = sum(layer.parameters for layer in layers(self.run.architecture.rows))
        saving = 4 * 4 * parameters / SAVED
        if val is None:
            return saving
        began = time.monotonic()
        network.ops.to_numpy(network.logits(images, centre_draws(data, len(images))))
        return saving + (time.monotonic() - began) * len(val.labels) / len(images)


def _seconds_an_image(run: Run, small: Architecture, images: npt.NDArray[np.uint8]) -> float:
    """Seconds that a step of another network takes an image, tried with corners of these."""
    size = small.data.image_size
    network = Network(
        small, run.ops, initial_parameters(small, 0), np.zeros((size, size, 3), np.float32)
    )
    draws = training_draws(small, len(images), run.colour, 0, 0, 0)
    labels = np.zeros(len(images), np.int32)
    for _ in range(2):  # the first takes memory
        began = time.monotonic()
        loss_and_gradients(network, images[:, :size, :size], labels, draws)
    return (time.monotonic() - began) / len(images)


def duration(seconds: float) -> str:
    """'40 seconds', '5 minutes', '3 hours', '12 days'."""
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return (
                f"{seconds / size:.2g} {unit}"
                if seconds < 100 * size
                else f"{seconds / size:,.0f} {unit}"
            )
    return f"{seconds:.0f} seconds"
