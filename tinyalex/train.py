"""The training loop, from top to bottom."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tinyalex import checkpoint as checkpoints
from tinyalex import pictures
from tinyalex.architectures import check_towers
from tinyalex.backend import Backend, get_backend
from tinyalex.checkpoint import Checkpoint, Progress, watched
from tinyalex.compare import Comparison, refuse
from tinyalex.config import Config
from tinyalex.data import open_data
from tinyalex.data.batches import (
    MEAN_IMAGES,
    Batch,
    batches,
    epoch_order,
    keep_in_memory,
    mean_and_colour,
)
from tinyalex.draws import Draws, initial_parameters, training_draws
from tinyalex.errors import (
    DataError,
    DeviceMemoryError,
    DivergedError,
    TinyalexError,
    UsageError,
)
from tinyalex.evaluate import evaluate, rank_of_label
from tinyalex.network import Network, first_not_finite
from tinyalex.optimizer import SGD
from tinyalex.run import RunFolder, Stop, StoppedBySignal
from tinyalex.schedule import learning_rate
from tinyalex.shapes import layers
from tinyalex.summary import gpu_bytes

SAVE_SECONDS = 600  # a crash loses at most so much work
CHECKED_IMAGES = 2  # of a batch, when the backend is held against the reference
DRAW_SECONDS = 60  # between one drawing of the pictures and the next


class Trainer:
    """One training run.

    config: what is asked. resumed: the checkpoint to go on from, and its file. say: prints a line.
    Raises UsageError, DataError, CheckpointError or WriteError before anything is computed.
    """

    def __init__(
        self,
        config: Config,
        resumed: tuple[Path, Checkpoint] | None = None,
        say: Callable[[str], None] = tqdm.write,
    ) -> None:
        self.config, self.recipe, self.say = config.resolved(), config.recipe, say
        if config.backend != "reference":
            check_towers(config.architecture, config.devices)
        self.ops = get_backend(config.backend, config.devices, config.precision)
        self.dataset = open_data(
            config.data,
            config.architecture.data.image_size,
            config.seed,
            max_pixels=config.max_pixels,
            on_bad_image=config.on_bad_image,
        )
        self.architecture = config.architecture.with_classes(len(self.dataset.classes))
        size = self.architecture.data.image_size
        self.images = keep_in_memory(self.dataset.train, size)
        self.val = None if self.dataset.val is None else keep_in_memory(self.dataset.val, size)
        count = len(self.images.labels)
        if self.recipe.batch_size > count:
            raise UsageError(
                f"--batch-size {self.recipe.batch_size} is larger than the data: "
                f"{self.dataset.name} has {count} training images."
            )
        self.epoch_batches = -(-count // self.recipe.batch_size)

        if resumed is None:
            self.folder = RunFolder.create(config.output_dir, self.architecture.name)
            self.progress = Progress()
            with self.bar("mean image", min(count, MEAN_IMAGES), 0) as bar:
                self.mean, self.colour = mean_and_colour(
                    self.images, size, seed=config.seed, workers=config.workers, progress=bar.update
                )
            parameters = initial_parameters(self.architecture, config.seed)
            velocities = {name: np.zeros_like(value) for name, value in parameters.items()}
        else:
            path, state = resumed
            checkpoints.check_fits(state, path, self.architecture.name, self.dataset.classes)
            self.folder = RunFolder(Path(config.output_dir or path.parent))
            self.folder.rewind(state.progress.step)
            self.progress, self.mean, self.colour = state.progress, state.mean, state.colour
            parameters, velocities = state.parameters, state.velocities
        self.folder.write("config.toml", self.config.toml())
        self.network = Network(self.architecture, self.ops, parameters, self.mean)
        self.optimizer = SGD(self.network, self.recipe, velocities)
        self.saved = self.drawn = time.monotonic()

    def run(self) -> None:
        """Trains to the last epoch or step; what is reached is saved whatever ends it early."""
        self.introduce()
        with Stop() as self.stop, np.errstate(all="ignore"):  # self.diverged tells more
            try:
                while self.progress.epoch < self.recipe.epochs and not self.out_of_steps:
                    self.train_epoch()
                    if self.progress.batch == self.epoch_batches:
                        self.finish_epoch()
            except DataError as error:
                self.save()
                raise DataError(f"{error} {self.how_to_continue()}") from None
            except DeviceMemoryError as error:
                self.save()
                words = f"{error} {self.what_fits(error)} {self.how_to_continue()}"
                raise TinyalexError(words) from None
            self.save()
        self.draw()
        self.conclude()

    def train_epoch(self) -> None:
        """What is left of the current epoch."""
        network, ops, progress = self.network, self.ops, self.progress
        seed, epoch, lr = self.config.seed, progress.epoch, self.learning_rate()
        order = epoch_order(seed, epoch, len(self.images.labels))
        self.began, self.trained, self.waited = time.monotonic(), 0, 0.0
        with self.bar(f"epoch {epoch + 1}", len(order), int(progress.sums[3])) as bar:
            for batch in batches(
                self.images,
                order,
                self.recipe.batch_size,
                start=progress.batch,
                workers=self.config.workers,
            ):
                draws = training_draws(
                    self.architecture, len(batch.labels), self.colour, seed, epoch, progress.batch
                )
                every = self.config.check_every
                if every and progress.step % every == 0:
                    self.check(batch, draws, lr)
                logits, tape = network.forward(batch.images, draws)
                loss, cache = ops.softmax_cross_entropy(logits, ops.asarray(batch.labels, "head"))
                value = float(ops.to_numpy(loss))  # waits for the backend
                if not math.isfinite(value):
                    raise self.diverged(first_not_finite(network, batch.images, draws))
                gradients = network.backward(ops.softmax_cross_entropy_backward(cache), tape)
                self.optimizer.step(gradients, lr)

                self.count(batch, value, ops.to_numpy(logits), lr)
                bar.set_postfix(loss=f"{value:.3f}", lr=f"{lr:g}", refresh=False)
                bar.update(len(batch.labels))
                self.look_up()
                if self.out_of_steps:
                    break

    def check(self, batch: Batch, draws: Draws, lr: float) -> None:
        """Holds the backend against the reference, here and now, on a few images of the batch."""

        def copy(ops: Backend) -> SGD:
            w, v = self.network.parameters, self.optimizer.velocities
            w, v = ({name: self.ops.to_numpy(a) for name, a in x.items()} for x in (w, v))
            return SGD(Network(self.architecture, ops, w, self.mean), self.recipe, v)

        few = slice(CHECKED_IMAGES)
        comparison = Comparison(
            copy(get_backend("reference")), copy(self.ops), self.config.precision
        )
        found = list(comparison.step(batch.images[few], batch.labels[few], draws.of(few), lr))
        farthest = max(found, key=lambda difference: difference.of_tolerance)
        self.say(f"step {self.progress.step}  farthest from the reference: {farthest}")
        refuse(next((difference for difference in found if not difference.ok), farthest))

    def count(self, batch: Batch, loss: float, logits: Any, lr: float) -> None:
        """Adds a step to the progress, and every print_freq steps to the log."""
        progress, images = self.progress, len(batch.labels)
        rank = rank_of_label(logits, batch.labels)
        this = [loss * images, float((rank >= 1).sum()), float((rank >= 5).sum()), float(images)]
        progress.sums = [total + new for total, new in zip(progress.sums, this, strict=True)]
        progress.step += 1
        progress.batch += 1
        self.trained += images
        self.waited += batch.waited
        if progress.step % self.config.print_freq == 0:
            record = {
                "step": progress.step,
                "epoch": progress.epoch + progress.batch / self.epoch_batches,
                "loss": loss,
                "lr": lr,
                **self.speed(),
            }
            self.folder.record("step", record)
            if not sys.stderr.isatty():
                self.say(
                    f"epoch {progress.epoch + 1} step {progress.batch}/{self.epoch_batches}  "
                    f"loss {loss:.4f}  lr {lr:g}  {record['images_per_second']:.0f} images/s  "
                    f"waiting for data {100 * record['data_wait']:.0f} %"
                )

    def speed(self) -> dict[str, float]:
        """Since the epoch began or was resumed: images a second, share of time spent waiting."""
        seconds = max(time.monotonic() - self.began, 1e-9)
        return {
            "images_per_second": round(self.trained / seconds, 2),
            "data_wait": round(self.waited / seconds, 4),
        }

    def finish_epoch(self) -> None:
        """Validates, records the epoch, and saves."""
        progress, lr, speed = self.progress, self.learning_rate(), self.speed()
        loss, wrong1, wrong5, images = progress.sums
        record = {
            "step": progress.step,
            "epoch": progress.epoch + 1,
            "loss": loss / images,
            "top1_error": wrong1 / images,
            "top5_error": wrong5 / images,
        }
        if self.val is not None:
            with self.bar("validation", len(self.val.labels), 0) as bar:

                def after_batch(images: int) -> None:
                    bar.update(images)
                    self.look_up()

                scores = evaluate(
                    [self.network],
                    self.val,
                    self.recipe.batch_size,
                    workers=self.config.workers,
                    after_batch=after_batch,
                )
            record |= {
                "val_loss": scores.loss,
                "val_top1_error": scores.top1_error,
                "val_top5_error": scores.top5_error,
            }
        record |= {"lr": lr, **speed}
        self.folder.record("epoch", record)
        self.say(line(record))

        progress.history.append(record)
        progress.epoch, progress.batch, progress.sums = progress.epoch + 1, 0, [0.0] * 4
        _, reason = learning_rate(self.recipe, self.errors)
        if reason:
            text = f"learning rate {lr:g} -> {self.learning_rate():g}: {reason}"
            self.folder.record(
                "note", {"step": progress.step, "epoch": progress.epoch, "text": text}
            )
            self.say(text)
        if progress.best is record:
            self.save("best.npz")
        self.save()
        if time.monotonic() - self.drawn > DRAW_SECONDS:
            self.draw()

    @property
    def errors(self) -> list[float]:
        """The watched error after each finished epoch."""
        return [watched(record) for record in self.progress.history]

    def learning_rate(self) -> float:
        """The rate of the current epoch."""
        return learning_rate(self.recipe, self.errors)[0]

    @property
    def out_of_steps(self) -> bool:
        """Whether --max-steps is reached."""
        return self.config.max_steps is not None and self.progress.step >= self.config.max_steps

    def look_up(self) -> None:
        """Between two steps: saves now and then, and stops if a signal asked for it."""
        if self.stop.number is not None:
            self.save()
            self.draw()
            raise StoppedBySignal(f"Stopped. {self.how_to_continue()}", self.stop.number)
        if time.monotonic() - self.saved > SAVE_SECONDS:
            self.save()

    def how_to_continue(self) -> str:
        """For the message of a run that ends early."""
        return (
            f"All is saved up to step {self.progress.step}; continue with: "
            f"tinyalex train --resume {self.folder.path}"
        )

    def what_fits(self, error: DeviceMemoryError) -> str:
        """For the message of a run that needs more memory than a GPU has."""
        whole, image = (size // len(self.config.devices) for size in gpu_bytes(self.architecture))
        batch = (error.within_reach - whole) // image
        if batch < 1:
            return f"{self.architecture.name} needs {whole + image:,} bytes for a single image."
        return f"A batch of about {batch} images would fit: --batch-size {batch}."

    def save(self, name: str = "last.npz") -> None:
        """Writes a checkpoint, unless a parameter is no longer finite."""
        to_numpy = self.ops.to_numpy
        parameters = {name: to_numpy(a) for name, a in self.network.parameters.items()}
        for parameter, value in parameters.items():
            if not np.isfinite(value).all():
                raise self.diverged(f"the parameter {parameter}")
        state = Checkpoint(
            architecture=self.architecture.name,
            classes=self.dataset.classes,
            titles=self.dataset.titles,
            config=asdict(self.config),
            progress=self.progress,
            parameters=parameters,
            velocities={name: to_numpy(a) for name, a in self.optimizer.velocities.items()},
            mean=self.mean,
            colour=self.colour,
        )
        checkpoints.save(state, self.folder.path / name)
        self.saved = time.monotonic()

    def diverged(self, where: str) -> DivergedError:
        """The error for a loss or parameter that is not finite; the log gets a note of it."""
        progress = self.progress
        text = f"at step {progress.step + 1} {where} is not finite"
        self.folder.record("note", {"step": progress.step, "epoch": progress.epoch, "text": text})
        last = self.folder.path / "last.npz"
        remedy = f"Continue from {last} with" if last.exists() else "Start again with"
        return DivergedError(
            f"Training diverged: {text} (learning rate {self.learning_rate():g}). "
            f"{remedy} a lower --lr."
        )

    def draw(self) -> None:
        """The pictures of the run."""
        pictures.draw_all(self.folder, self.network, self.dataset)
        self.drawn = time.monotonic()

    def bar(self, what: str, images: int, done: int) -> tqdm[Any]:
        """A progress bar on a terminal, nothing elsewhere."""
        return tqdm(
            desc=what, total=images, initial=done, unit=" images", leave=False, disable=None
        )

    def introduce(self) -> None:
        """What is about to be trained, on what, where."""
        cost = layers(self.architecture.rows)
        val = "no" if self.val is None else f"{len(self.val.labels):,}"
        self.say(
            f"{self.architecture.name}: {sum(c.parameters for c in cost):,} parameters, "
            f"{sum(c.macs for c in cost):,} multiply-adds an image, {self.ops.name} backend"
        )
        self.say(
            f"{self.dataset.name}: {len(self.images.labels):,} training and {val} validation "
            f"images, {len(self.dataset.classes)} classes"
        )
        for note in self.dataset.notes:
            self.say(f"note: {note}")
        at = f" from step {self.progress.step}" if self.progress.step else ""
        self.say(f"training{at} to epoch {self.recipe.epochs} in {self.folder.path}")

    def conclude(self) -> None:
        """What was reached, where it is, and what to try next."""
        path, best = self.folder.path, self.progress.best
        if best is None:
            self.say(f"Stopped at step {self.progress.step}, before the end of the first epoch.")
        elif "val_top1_error" in best:
            self.say(
                f"Best: {100 - 100 * best['val_top1_error']:.2f} % of the validation images right "
                f"at first guess (top-1 error "
                f"{100 * best['val_top1_error']:.2f} %), after epoch {best['epoch']}."
            )
        else:
            self.say(
                f"Training top-1 error {100 * best['top1_error']:.2f} % after epoch "
                f"{best['epoch']}; there are no validation images."
            )
        self.say(f"Weights, log and pictures: {path} (look at curves.png and predictions.png)")
        following = f"eval {path} --crops 10" if best else f"train --resume {path}"
        self.say(f"Next: tinyalex {following}")


def line(record: dict[str, Any]) -> str:
    """A finished epoch in one line."""
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
