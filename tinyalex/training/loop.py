"""The training loop, from top to bottom."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tinyalex.backend import Backend, get_backend
from tinyalex.data import open_data
from tinyalex.data.batches import (
    MEAN_IMAGES,
    Batch,
    batches,
    epoch_order,
    keep_in_memory,
    mean_and_colour,
)
from tinyalex.data.fingerprint import contents, differences
from tinyalex.errors import (
    CheckpointError,
    DataError,
    DeviceMemoryError,
    DivergedError,
    TinyalexError,
    UsageError,
)
from tinyalex.figures import draw
from tinyalex.judge.compare import Comparison, refuse
from tinyalex.measure.evaluate import evaluate, rank_of_label
from tinyalex.net.draws import Draws, initial_parameters, training_draws
from tinyalex.net.network import Network, first_not_finite
from tinyalex.net.optimizer import SGD
from tinyalex.net.presets import check_towers
from tinyalex.net.schedule import coloured, factors, learning_rate
from tinyalex.runs import checkpoint as checkpoints
from tinyalex.runs.checkpoint import Checkpoint
from tinyalex.runs.config import Config, differing, from_mapping
from tinyalex.runs.folder import RunFolder
from tinyalex.runs.progress import Progress, watched
from tinyalex.runs.weights import find_weights, fine_tuned
from tinyalex.system.signals import Stop, StoppedBySignal
from tinyalex.training.messages import (
    conclusion,
    finished_epoch,
    introduction,
    nothing_left,
    what_fits,
)
from tinyalex.training.standstill import Standstill

SAVE_SECONDS = 600  # a crash loses at most so much work
SIGNAL_IMAGES = 16  # on which it is measured what of an image arrives, if the loss does not fall
CHECKED_IMAGES = 2  # of a batch, when the backend is held against the reference
DRAW_SECONDS = 60  # between one drawing of the pictures and the next


Weights = tuple[dict[str, Any], dict[str, Any]]
"""Parameters and their velocities, by name."""


class Trainer:
    """One training run.

    config: what is asked. resumed: the checkpoint to go on from, and its file. say: prints a line.
    after_epoch: hears the record of each finished epoch, and ends the run by answering True.
    Raises UsageError, DataError, CheckpointError or WriteError before anything is trained.
    """

    def __init__(
        self,
        config: Config,
        resumed: tuple[Path, Checkpoint] | None = None,
        say: Callable[[str], None] = tqdm.write,
        after_epoch: Callable[[dict[str, Any]], bool] = lambda record: False,
    ) -> None:
        self.after_epoch = after_epoch
        source = None
        if config.weights and resumed is None:
            source = find_weights(config.weights)
            config = replace(config, arch=config.arch or source[1].architecture)
        self.config, self.recipe, self.say = config.resolved(), config.recipe, say
        settings = self.config.toml()  # refuses a path that is no text, before any work
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
        self.contents = contents(self.dataset)
        size = self.architecture.data.image_size
        self.images = keep_in_memory(self.dataset.train, size)
        self.val = None if self.dataset.val is None else keep_in_memory(self.dataset.val, size)
        count = len(self.images.labels)
        if self.recipe.batch_size > count:
            raise UsageError(
                f"--batch-size {self.recipe.batch_size} is larger than the data: "
                f"{self.dataset.name} has {count} training images. Give -b {count} or less."
            )
        self.epoch_batches = -(-count // self.recipe.batch_size)

        parameters, velocities = (
            self.go_on(*resumed, settings) if resumed else self.begin(source, settings)
        )
        checkpoints.sweep(self.folder.path)
        self.network = Network(self.architecture, self.ops, parameters, self.mean)
        self.optimizer = SGD(self.network, self.recipe, velocities)
        self.standstill = Standstill(self.network, self.progress)
        self.saved = self.drawn = time.monotonic()
        if resumed:
            self.settle(resumed[0])

    def begin(self, source: tuple[Path, Checkpoint] | None, settings: str) -> Weights:
        """A new run in a new folder, from the weights of `source` or from drawn ones."""
        weights = initial_parameters(self.architecture, self.config.seed)
        if source:
            weights = fine_tuned(source, self.architecture, self.dataset.classes, weights)
        self.folder = RunFolder.create(self.config.output_dir, self.architecture.name, settings)
        self.progress = Progress()
        if source:  # the weights know images without this mean
            self.mean, self.colour = source[1].mean, source[1].colour
        else:
            self.mean, self.colour = self.statistics(min(len(self.images.labels), MEAN_IMAGES))
        return weights, {name: np.zeros_like(value) for name, value in weights.items()}

    def go_on(self, path: Path, state: Checkpoint, settings: str) -> Weights:
        """The run that was saved as `state` in the file `path`, in its folder or a new one."""
        checkpoints.check_fits(state, path, self.architecture.name, self.dataset.classes)
        self.check_resumed(path, state)
        self.folder = RunFolder.resume(path.parent, self.config.output_dir, settings)
        if note := checkpoints.computed_elsewhere(state):
            self.say(f"note: {note}")
        self.progress, self.mean, self.colour = state.progress, state.mean, state.colour
        return state.parameters, state.velocities

    def run(self) -> None:
        """Trains to the last epoch or step.

        What is reached is saved if a signal, bad data or a GPU's full memory ends it early; what
        else ends it costs what was trained since the last save, SAVE_SECONDS at most.
        """
        with closing(self.folder), Stop() as self.stop:
            for text in introduction(self.architecture, self.dataset, self.ops.name):
                self.say(text)
            if self.ops.name == "reference" and (
                self.config.gpus != Config.gpus or self.config.precision != Config.precision
            ):
                self.say("note: --gpus and --precision say nothing to the reference backend")
            if self.finished:
                self.say(nothing_left(self.progress, self.config, self.folder.path))
            else:
                at = f" from step {self.progress.step}" if self.progress.step else ""
                self.say(f"training{at} to epoch {self.recipe.epochs} in {self.folder.path}")
            with np.errstate(all="ignore"):  # self.diverged tells more
                try:
                    while not self.finished:
                        self.train_epoch()
                        if self.progress.batch == self.epoch_batches and self.finish_epoch():
                            break
                except DataError as error:
                    self.save()
                    raise DataError(f"{error} {self.how_to_continue()}") from None
                except DeviceMemoryError as error:
                    self.save()
                    remedy = what_fits(error, self.architecture, len(self.config.devices))
                    raise TinyalexError(f"{error} {remedy} {self.how_to_continue()}") from None
                self.save()
            self.draw()
            all_steps = self.recipe.epochs * self.epoch_batches
            for text in conclusion(self.progress, self.folder.path, all_steps):
                self.say(text)

    def check_resumed(self, path: Path, state: Checkpoint) -> None:
        """Raises DataError, UsageError or CheckpointError if the run of `state` cannot go on.

        Says which settings are others than before.
        """
        if changes := differences(state.data, self.contents):
            raise DataError(
                f"{self.dataset.name} is not the data that {path} was trained on: "
                f"{'; '.join(changes)}. Resume with the --data, --seed and images of before, or "
                f"begin a new run from its weights: --weights {path}."
            )
        before = asdict(from_mapping(state.config, Config(), str(path)).resolved())
        now, done = asdict(self.config), state.progress.batch
        changed = [name for name in differing(before, now) if name != "output_dir"]
        if "weights" in changed:
            raise UsageError(
                f"--resume goes on with the weights in {path}, and weights = {now['weights']!r} "
                "starts a new run. Give one."
            )
        for name in {"batch_size", "seed"}.intersection(changed if done else ()):
            flag = "--" + name.replace("_", "-")
            raise UsageError(
                f"{path} was saved inside epoch {state.progress.epoch + 1}, after {done} batches, "
                f"and with {flag} {now[name]} the others would hold images seen already. Finish "
                f"the epoch with {flag} {before[name]}, then change it."
            )
        if done > self.epoch_batches:
            raise CheckpointError(
                f"{path} tells of {done} batches done of an epoch that has {self.epoch_batches}. "
                "Use another checkpoint of the run: last.npz or best.npz."
            )
        if changed:
            words = (f"{name.replace('_', '-')} {before[name]} -> {now[name]}" for name in changed)
            self.say(f"changed: {', '.join(words)}")

    def settle(self, path: Path) -> None:
        """Makes the folder hold the run as it was in `path`, and all of it if it was elsewhere.

        Of the two, last.npz goes back first: a log that is too long will be cut, but what is
        missing from one that is too short would not be trained again.
        """
        if path.resolve() != (self.folder.path / "last.npz").resolve():
            self.save()
        self.folder.forget(self.progress.step, self.progress.epoch)
        before, here = path.with_name("best.npz"), self.folder.path / "best.npz"
        if before.resolve() == here.resolve():
            return
        try:
            best = checkpoints.load(before) if before.exists() else None
        except CheckpointError as error:
            self.say(f"note: {error}")
            return
        if best and best.progress.best == self.progress.best:
            checkpoints.save(best, here)

    def statistics(self, count: int) -> tuple[Any, Any]:
        """The mean image and the colour directions, taken from `count` training images."""
        size, config = self.architecture.data.image_size, self.config
        with self.bar("mean image", count, 0) as bar:
            return mean_and_colour(
                self.images, size, seed=config.seed, workers=config.workers, progress=bar.update
            )

    def train_epoch(self) -> None:
        """What is left of the current epoch."""
        network, ops, progress = self.network, self.ops, self.progress
        seed, epoch, lr = self.config.seed, progress.epoch, self.learning_rate()
        own_factors = factors(self.recipe, epoch, network.parameters)
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
                    self.architecture,
                    len(batch.labels),
                    self.colour,
                    seed,
                    epoch,
                    progress.batch,
                    coloured(self.recipe, epoch),
                )
                every = self.config.check_every
                if every and progress.step % every == 0:
                    self.check(batch, draws, lr)
                logits, tape = network.forward(batch.images, draws)
                loss, cache = ops.softmax_cross_entropy(logits, ops.asarray(batch.labels, "head"))
                value = float(ops.to_numpy(loss))  # waits for the backend
                if not math.isfinite(value):
                    where = f"(epoch {epoch + 1}, batch {progress.batch + 1})"
                    tensor = first_not_finite(network, batch.images, draws)
                    raise self.diverged(f"at step {progress.step + 1} {where} {tensor}")
                gradients = network.backward(ops.softmax_cross_entropy_backward(cache), tape)
                self.optimizer.step(gradients, lr, own_factors)
                del tape, cache, gradients  # their memory serves the next step

                self.count(batch, value, ops.to_numpy(logits), lr)
                self.note(self.standstill.after_step(value, batch.images[:SIGNAL_IMAGES]))
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

    def note(self, text: str) -> None:
        """Says something that belongs into the log, too; nothing if there is nothing to say."""
        if text:
            step, epoch = self.progress.step, self.progress.epoch
            self.folder.record("note", {"step": step, "epoch": epoch, "text": text})
            self.say(text)

    def speed(self) -> dict[str, float]:
        """Since the epoch began or was resumed: images a second, share of time spent waiting."""
        seconds = max(time.monotonic() - self.began, 1e-9)
        return {
            "images_per_second": round(self.trained / seconds, 2),
            "data_wait": round(self.waited / seconds, 4),
        }

    def finish_epoch(self) -> bool:
        """Validates, records the epoch, and saves. Whether the run is to end here."""
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

                try:
                    scores = evaluate(
                        [self.network],
                        self.val,
                        self.recipe.batch_size,
                        workers=self.config.workers,
                        after_batch=after_batch,
                    )
                except DivergedError:
                    what = f"after step {progress.step} the answer to a validation image"
                    raise self.diverged(what) from None
            record |= {
                "val_loss": scores.loss,
                "val_top1_error": scores.top1_error,
                "val_top5_error": scores.top5_error,
            }
        record |= {"lr": lr, **speed}
        self.folder.record("epoch", record)
        self.say(finished_epoch(record))

        progress.history.append(record)
        progress.epoch, progress.batch, progress.sums = progress.epoch + 1, 0, [0.0] * 4
        _, reason = learning_rate(self.recipe, self.errors)
        if reason:
            self.note(f"learning rate {lr:g} -> {self.learning_rate():g}: {reason}")
        if progress.best is record:
            self.save("best.npz")
        self.save()
        if time.monotonic() - self.drawn > DRAW_SECONDS:
            self.draw()
        return self.after_epoch(record)

    @property
    def errors(self) -> list[float]:
        """The watched error after each finished epoch."""
        return [watched(record) for record in self.progress.history]

    def learning_rate(self) -> float:
        """The rate of the current epoch."""
        return learning_rate(self.recipe, self.errors)[0]

    @property
    def finished(self) -> bool:
        """Whether the last epoch is done, or --max-steps reached."""
        return self.progress.epoch >= self.recipe.epochs or self.out_of_steps

    @property
    def out_of_steps(self) -> bool:
        """Whether --max-steps is reached."""
        return self.config.max_steps is not None and self.progress.step >= self.config.max_steps

    def look_up(self) -> None:
        """Between two steps: saves now and then, and stops if a signal asked for it."""
        if self.stop.number is not None:
            self.save()
            raise StoppedBySignal(f"Stopped. {self.how_to_continue()}", self.stop.number)
        if time.monotonic() - self.saved > SAVE_SECONDS:
            self.save()

    def how_to_continue(self) -> str:
        """For the message of a run that ends early."""
        return (
            f"All is saved up to step {self.progress.step}; continue with: "
            f"tinyalex train --resume {self.folder.path}"
        )

    def save(self, name: str = "last.npz") -> None:
        """Writes a checkpoint, unless a parameter is no longer finite."""
        to_numpy = self.ops.to_numpy
        parameters = {name: to_numpy(a) for name, a in self.network.parameters.items()}
        for parameter, value in parameters.items():
            if not np.isfinite(value).all():
                raise self.diverged(f"after step {self.progress.step} the parameter {parameter}")
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
            machine=checkpoints.machine(),
            data=self.contents,
        )
        checkpoints.save(state, self.folder.path / name)
        self.saved = time.monotonic()

    def diverged(self, what: str) -> DivergedError:
        """The error for a loss or parameter that is not finite; the log gets a note of it."""
        progress, text = self.progress, f"{what} is not finite"
        self.folder.record("note", {"step": progress.step, "epoch": progress.epoch, "text": text})
        last, best = (self.folder.path / name for name in ("last.npz", "best.npz"))
        remedy = f"Continue from {last}" if last.exists() else "Start again"
        older = f" If it diverges at once, continue from {best}." if best.exists() else ""
        return DivergedError(
            f"Training diverged: {text} (learning rate {self.learning_rate():g}). "
            f"{remedy} with a lower --lr.{older}"
        )

    def draw(self) -> None:
        """The pictures of the run."""
        draw.draw_all(self.folder, self.network, self.dataset)
        self.drawn = time.monotonic()

    def bar(self, what: str, images: int, done: int) -> tqdm[Any]:
        """A progress bar on a terminal, nothing elsewhere."""
        return tqdm(
            desc=what, total=images, initial=done, unit=" images", leave=False, disable=None
        )
