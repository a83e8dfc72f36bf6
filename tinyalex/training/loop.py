"""The training loop, from top to bottom."""

import math
from collections.abc import Callable
from contextlib import closing
from typing import Any

import numpy as np
from tqdm import tqdm

from tinyalex.data.batches import epoch_order
from tinyalex.errors import DataError, DeviceMemoryError, DivergedError, printable
from tinyalex.judge.compare import audit
from tinyalex.measure.evaluate import evaluate
from tinyalex.net.draws import training_draws
from tinyalex.net.network import first_not_finite
from tinyalex.net.schedule import coloured, factors
from tinyalex.net.shapes import parameters
from tinyalex.net.step import train_step
from tinyalex.ranks.team import FailedElsewhere
from tinyalex.system.arrays import Array
from tinyalex.system.signals import Stop
from tinyalex.training import messages
from tinyalex.training.meter import Meter
from tinyalex.training.recorder import Recorder
from tinyalex.training.start import Run, progress_bar


def train(
    run: Run,
    say: Callable[[str], None] = tqdm.write,
    after_epoch: Callable[[dict[str, Any]], bool] = lambda record: False,
) -> None:
    """Train to the last epoch or step.

    Save before stopping on a signal, bad data, full memory or an output that takes no more; any
    other failure loses at most `recorder.SAVE_SECONDS` of work. say: prints a line. after_epoch:
    hears the record of each finished epoch, and ends the run by answering True.
    """
    with closing(run.folder), Stop() as stop, np.errstate(all="ignore"):  # of a NaN the loss tells
        recorder = Recorder(run, stop, say)
        try:
            for line in messages.introduction(run):
                say(printable(line))
            while not run.finished:
                meter = train_epoch(run, recorder)
                if run.progress.batch == run.epoch_batches:
                    record = finish_epoch(run, recorder, meter)
                    if after_epoch(record):
                        break
        except (DataError, DeviceMemoryError, FailedElsewhere, MemoryError, OSError) as error:
            heard = isinstance(error, FailedElsewhere)  # before anything was updated here
            if run.parameters_here and (heard or not run.sgd.updating):
                recorder.save()
            if isinstance(error, BrokenPipeError | FailedElsewhere):  # the reader has had enough
                raise
            raise messages.ended_early(error, run) from None
        recorder.save()
        recorder.draw()
        run.team.agree(0)  # all go on when the first has written
        for line in messages.conclusion(run):
            say(printable(line))


def train_epoch(run: Run, recorder: Recorder) -> Meter:
    """Train on what is left of the current epoch, or until --max-steps is reached."""
    progress, config, recipe = run.progress, run.config, run.recipe
    seed, epoch, count = config.seed, progress.epoch, len(run.images.labels)
    architecture, colour = run.architecture, run.colour
    rates, noise = factors(recipe, epoch, parameters(architecture.rows)), coloured(recipe, epoch)
    order, meter = epoch_order(seed, epoch, count), Meter(progress)
    with progress_bar(f"epoch {epoch + 1}", count, int(progress.sums[3])) as bar:
        for batch in run.batches(order):
            images, labels, number = batch.images, batch.labels, progress.batch
            sent = run.ops.upload(images) if images.dtype == np.uint8 else images
            draws = training_draws(architecture, len(labels), colour, seed, epoch, number, noise)
            lr, _ = run.learning_rate()
            if config.check_every and progress.step % config.check_every == 0:
                audit(run.sgd, images, labels, draws, lr, config.precision, recorder.say_step)

            step = train_step(run.sgd, sent, labels, draws, lr, rates)
            if not math.isfinite(step.loss):
                where = f"at step {progress.step + 1} (epoch {epoch + 1}, batch {number + 1})"
                tensor = first_not_finite(run.network, images, draws)
                raise recorder.diverged(f"{where} {tensor}")

            meter.add(step, batch)  # now progress.step and progress.batch are one further
            recorder.step(step.loss, images, lr, meter)
            bar.set_postfix(loss=f"{step.loss:.3f}", lr=f"{lr:g}", refresh=False)
            bar.update(len(labels))
            recorder.between_steps()
            if run.out_of_steps:
                break
    return meter


def finish_epoch(run: Run, recorder: Recorder, meter: Meter) -> dict[str, Any]:
    """Validate, record and save the epoch, and return its record."""
    (lr, _), speed = run.learning_rate(), meter.speed()
    step, epoch = run.progress.step, run.progress.epoch + 1
    record = {"step": step, "epoch": epoch, **meter.scores()}
    record |= {**validate(run, recorder), "lr": lr, **speed}
    recorder.epoch(record)  # now progress is at the beginning of the next one
    return record


def validate(run: Run, recorder: Recorder) -> dict[str, float]:
    """Loss and errors on the validation images, as the log has them; nothing without images."""
    if run.val is None:
        return {}
    with progress_bar("validation", len(run.val.labels)) as bar:

        def advance(labels: Array, _: Array) -> None:
            bar.update(len(labels))
            recorder.between_steps()

        size, workers = run.recipe.batch_size, run.config.workers
        try:
            scores = evaluate([run.network], run.val, size, workers=workers, after_batch=advance)
        except DivergedError:
            what = f"after step {run.progress.step} the answer to a validation image"
            raise recorder.diverged(what) from None
    return {
        "val_loss": scores.loss,
        "val_top1_error": scores.top1_error,
        "val_top5_error": scores.top5_error,
        "val_answers": int(np.count_nonzero(scores.per_class[2])),
    }
