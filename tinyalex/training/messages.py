"""What a run tells its user, in sentences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tinyalex.data.dataset import Dataset
from tinyalex.errors import DeviceMemoryError
from tinyalex.net.presets import Architecture
from tinyalex.net.shapes import layers
from tinyalex.reports.summary import gpu_bytes
from tinyalex.runs.config import Config
from tinyalex.runs.progress import Progress


def introduction(architecture: Architecture, dataset: Dataset, backend: str) -> list[str]:
    """What is about to be trained, on what, by whom."""
    cost = layers(architecture.rows)
    val = "no" if dataset.val is None else f"{len(dataset.val.labels):,}"
    return [
        f"{architecture.name}: {sum(c.parameters for c in cost):,} parameters, "
        f"{sum(c.macs for c in cost):,} multiply-adds an image, {backend} backend",
        f"{dataset.name}: {len(dataset.train.labels):,} training and {val} validation images, "
        f"{len(dataset.classes)} classes",
        *(f"note: {note}" for note in dataset.notes),
    ]


def finished_epoch(record: dict[str, Any]) -> str:
    """An epoch in one line."""
    text = (
        f"epoch {record['epoch']:3d}  loss {record['loss']:.4f}  "
        f"top-1 error {100 * record['top1_error']:5.2f} %"
    )
    if "val_loss" in record:
        text += (
            f"  |  validation loss {record['val_loss']:.4f}  "
            f"top-1 error {100 * record['val_top1_error']:5.2f} %  "
            f"top-5 error {100 * record['val_top5_error']:5.2f} %"
        )
    return f"{text}  |  {record['images_per_second']:.0f} images/s"


def nothing_left(progress: Progress, config: Config, folder: Path) -> str:
    """Why a run that is resumed has nothing to train."""
    if progress.epoch >= config.recipe.epochs:
        reached, flag = f"epoch {progress.epoch}", f"--epochs {config.recipe.epochs}"
    else:
        reached, flag = f"step {progress.step}", f"--max-steps {config.max_steps}"
    return (
        f"nothing is left to train in {folder}: it is at {reached}, and {flag} is asked for. "
        "A larger number trains on."
    )


def conclusion(progress: Progress, folder: Path, steps: int) -> list[str]:
    """What was reached, where it is, and what to try next. steps: those of all epochs."""
    best = progress.best
    if best is None:
        reached = "No epoch has ended, so nothing was validated."
    elif "val_top1_error" in best:
        error = 100 * best["val_top1_error"]
        reached = (
            f"Best: {100 - error:.2f} % of the validation images right at first guess "
            f"(top-1 error {error:.2f} %), after epoch {best['epoch']}."
        )
    else:
        reached = (
            f"Training top-1 error {100 * best['top1_error']:.2f} % after epoch {best['epoch']}; "
            "there are no validation images."
        )
    lines = [
        reached,
        f"Weights, log and pictures: {folder} (look at curves.png and predictions.png)",
    ]
    if progress.batch:  # only --max-steps ends a run inside an epoch, and is saved with it
        lines.insert(0, f"Stopped at step {progress.step} of {steps}.")
        lines.append(f"Next: tinyalex train --resume {folder} --max-steps {steps}")
    if best:
        lines.append(f"Next: tinyalex eval {folder} --crops 10")
    return lines


def what_fits(error: DeviceMemoryError, architecture: Architecture, gpus: int) -> str:
    """The batch that a GPU's memory holds, where the one asked for did not fit."""
    whole, image = (size // gpus for size in gpu_bytes(architecture))
    batch = (error.within_reach - whole) // image
    if batch < 1:
        return f"{architecture.name} needs {whole + image:,} bytes for a single image."
    return f"A batch of about {batch} images would fit: --batch-size {batch}."
