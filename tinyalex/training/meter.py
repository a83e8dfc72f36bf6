"""Loss, errors and speed of an epoch, as it goes on."""

import time
from typing import Any

import numpy.typing as npt

from tinyalex.data.batches import Batch
from tinyalex.measure.evaluate import rank_of_label
from tinyalex.net.step import Step
from tinyalex.runs.progress import Progress


class Meter:
    """Counter of an epoch's steps: adds them to a run's progress, and measures their speed."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.began, self.images, self.waited = time.monotonic(), 0, 0.0

    def add(self, step: Step, batch: Batch) -> None:
        """Count a training step."""
        progress, images = self.progress, len(batch.labels)
        rank: npt.NDArray[Any] = rank_of_label(step.logits, batch.labels)
        new = step.loss * images, float((rank >= 1).sum()), float((rank >= 5).sum()), float(images)
        progress.sums = [total + value for total, value in zip(progress.sums, new, strict=True)]
        progress.step += 1
        progress.batch += 1
        self.images += images
        self.waited += batch.waited

    def scores(self) -> dict[str, float]:
        """Mean training loss and errors of the epoch so far, from before a resumption too."""
        loss, wrong1, wrong5, images = self.progress.sums
        return {
            "loss": loss / images,
            "top1_error": wrong1 / images,
            "top5_error": wrong5 / images,
        }

    def speed(self) -> dict[str, float]:
        """Images a second and share of time spent waiting, since the epoch began or was resumed."""
        seconds = max(time.monotonic() - self.began, 1e-9)
        return {
            "images_per_second": round(self.images / seconds, 2),
            "data_wait": round(self.waited / seconds, 4),
        }
