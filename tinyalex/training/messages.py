"""Sentences that a run prints for its user."""

from typing import Any

from tinyalex.errors import (
    NO_MEMORY,
    DataError,
    DeviceMemoryError,
    DivergedError,
    TinyalexError,
    WriteError,
)
from tinyalex.measure.evaluate import FEW, has_top5, interval, interval_in_words
from tinyalex.net.presets import Architecture
from tinyalex.net.shapes import layers
from tinyalex.reports.summary import gpu_bytes
from tinyalex.runs.config import Config
from tinyalex.runs.sharing import description
from tinyalex.training.start import Run


def introduction(run: Run) -> list[str]:
    """Lines before training: network, backend, data, and from which step to which epoch."""
    architecture, dataset, config = run.architecture, run.dataset, run.config
    cost = layers(architecture.rows)
    val = "no" if dataset.val is None else f"{len(dataset.val.labels):,}"
    lines = [
        f"{architecture.name}: {sum(c.parameters for c in cost):,} parameters, "
        f"{sum(c.macs for c in cost):,} multiply-adds an image, {run.ops.name} backend",
        f"{dataset.name}: {len(dataset.train.labels):,} training and {val} validation images, "
        f"{len(dataset.classes)} classes",
        *description(run.ops, architecture, run.config),
        *(f"note: {note}" for note in dataset.notes),
    ]
    if run.ops.name == "reference" and (config.gpus, config.precision) != (
        Config.gpus,
        Config.precision,
    ):
        lines.append("note: --gpus and --precision have no effect on the reference backend")
    if run.finished:
        return [*lines, nothing_left(run)]
    at = f" from step {run.progress.step}" if run.progress.step else ""
    return [*lines, f"training{at} to epoch {run.recipe.epochs} in {run.folder.path}"]


def step(record: dict[str, Any], run: Run) -> str:
    """A logged step in one line."""
    return (
        f"epoch {run.progress.epoch + 1} step {run.progress.batch}/{run.epoch_batches}  "
        f"loss {record['loss']:.4f}  lr {record['lr']:g}  "
        f"{record['images_per_second']:.0f} images/s  "
        f"waiting for data {100 * record['data_wait']:.0f} %"
    )


def finished_epoch(record: dict[str, Any], run: Run) -> str:
    """An epoch in one line."""
    top5 = has_top5(len(run.dataset.classes))
    text = (
        f"epoch {record['epoch']:3d}  loss {record['loss']:.4f}  "
        f"top-1 error {100 * record['top1_error']:5.2f} %"
    )
    if run.val is not None:
        low, high = interval(record["val_top1_error"], len(run.val.labels))
        text += (
            f"  |  validation loss {record['val_loss']:.4f}  "
            f"top-1 error {100 * record['val_top1_error']:5.2f} % "
            f"({100 * low:.2f} to {100 * high:.2f})"
        )
        text += f"  top-5 error {100 * record['val_top5_error']:5.2f} %" if top5 else ""
    return f"{text}  |  {record['images_per_second']:.0f} images/s"


def nothing_left(run: Run) -> str:
    """Line for a resumed run that has nothing to train, with the reason."""
    progress = run.progress
    if progress.epoch >= run.recipe.epochs:
        reached, flag = f"epoch {progress.epoch}", f"--epochs {run.recipe.epochs}"
    elif run.stopped_early:
        reached = f"epoch {progress.epoch}, with no better error for as long"
        flag = f"--early-stopping {run.config.early_stopping}"
    else:
        reached, flag = f"step {progress.step}", f"--max-steps {run.config.max_steps}"
    return (
        f"nothing is left to train in {run.folder.path}: it is at {reached}, and {flag} is asked "
        "for. A larger number trains on."
    )


def conclusion(run: Run) -> list[str]:
    """Lines after training: the best error, where the files are, and what to try next."""
    progress, folder, steps = run.progress, run.folder.path, run.recipe.epochs * run.epoch_batches
    best = progress.best
    if best is None:
        reached = "No epoch has ended, so nothing was validated."
    elif run.val is not None:
        error, images = best["val_top1_error"], len(run.val.labels)
        reached = (
            f"Best: {100 - 100 * error:.2f} % of the validation images right at first guess (top-1 "
            f"error {100 * error:.2f} %, {interval_in_words(error, images)}), after epoch "
            f"{best['epoch']}."
        )
    else:
        reached = (
            f"Training top-1 error {100 * best['top1_error']:.2f} % after epoch {best['epoch']}; "
            "there are no validation images."
        )
    few = run.val is not None and len(run.val.labels) < FEW
    lines = [
        reached,
        *(["note: of so few validation images the error is hardly known"] if few else []),
        f"Weights, log and pictures: {folder} (all on one page: tinyalex report {folder})",
    ]
    if run.stopped_early and progress.epoch < run.recipe.epochs:
        patience = run.config.early_stopping
        lines.insert(0, f"Stopped early: {patience} epochs without a better error.")
    if run.out_of_steps and progress.step < steps:
        lines.insert(0, f"Stopped at step {progress.step} of {steps}.")
        lines.append(f"Next: tinyalex train --resume {folder} --max-steps {steps}")
    if best:
        lines.append(f"Next: tinyalex eval {folder} --crops 10")
    return lines


def how_to_continue(run: Run) -> str:
    """Step up to which an interrupted run is saved, and the command that goes on with it."""
    return (
        f"All is saved up to step {run.progress.step}; continue with: "
        f"tinyalex train --resume {run.folder.path}"
    )


def ended_early(
    error: DataError | DeviceMemoryError | MemoryError | OSError, run: Run
) -> TinyalexError:
    """The error of a run that was ended from outside, and is saved unless an update was cut.

    Nor where other ranks have a share of the parameters.
    """
    further = how_to_continue(run)
    if run.sgd.updating or not run.parameters_here:
        further = f"What was saved before in {run.folder.path} is untouched."
    if isinstance(error, DataError):
        return DataError(f"{error} {further}")
    if isinstance(error, OSError):
        return WriteError(f"Cannot write the output: {error.strerror}. {further}")
    if isinstance(error, MemoryError):
        return TinyalexError(f"{NO_MEMORY} {further}")
    remedy = what_fits(error, run.architecture, len(run.config.devices))
    return TinyalexError(f"{error} {remedy} {further}")


def diverged(what: str, run: Run) -> DivergedError:
    """The error for a loss or parameter that is not finite."""
    last, best = (run.folder.path / name for name in ("last.npz", "best.npz"))
    remedy = f"Continue from {last}" if last.exists() else "Start again"
    older = f" If it diverges at once, continue from {best}." if best.exists() else ""
    return DivergedError(
        f"Training diverged: {what} is not finite (learning rate {run.learning_rate()[0]:g}). "
        f"{remedy} with a lower --lr.{older}"
    )


def what_fits(error: DeviceMemoryError, architecture: Architecture, gpus: int) -> str:
    """The batch that a GPU's memory holds, where the one asked for did not fit."""
    whole, image = (size // gpus for size in gpu_bytes(architecture))
    batch = (error.within_reach - whole) // image
    if batch < 1:
        return f"{architecture.name} needs {whole + image:,} bytes for a single image."
    return f"A batch of about {batch} images would fit: --batch-size {batch}."
