"""Start of a run, new or resumed: flags, data set and checkpoint are checked before it writes.

Pictures are decoded after that. A bad one leaves a folder that can be used again.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tinyalex.backend import Backend
from tinyalex.data import open_data
from tinyalex.data.batches import (
    KEEP_BYTES,
    MEAN_IMAGES,
    Batch,
    InMemory,
    batches,
    keep_in_memory,
    mean_and_colour,
)
from tinyalex.data.dataset import Dataset, Indices, Split
from tinyalex.data.fingerprint import contents, differences
from tinyalex.errors import CheckpointError, DataError, UsageError, printable
from tinyalex.net.draws import initial_parameters
from tinyalex.net.network import Network, frozen_rows, outputs
from tinyalex.net.optimizer import SGD
from tinyalex.net.presets import Architecture, Recipe, check_towers
from tinyalex.net.schedule import learning_rate
from tinyalex.net.shapes import layers
from tinyalex.ranks.team import Team, join
from tinyalex.runs import checkpoint as checkpoints
from tinyalex.runs.checkpoint import Checkpoint
from tinyalex.runs.config import Config, differing, from_mapping
from tinyalex.runs.folder import ReadFolder, RunFolder
from tinyalex.runs.progress import Progress, watched
from tinyalex.runs.sharing import backend, shared_out
from tinyalex.runs.weights import fine_tuned
from tinyalex.system.backends import get_backend

STEPS, LEAST_BATCH = 24, 8  # of an epoch, and images of a step, where the data are few


@dataclass(frozen=True)
class Run:
    """Everything that a training run works with; `progress` and `sgd` move, the rest stays.

    config: all settings filled in. team: the ranks that train it. architecture: with the data's
    number of classes. images, val: the splits of `dataset`, kept in memory where they fit.
    contents: their fingerprint.
    """

    config: Config
    team: Team
    architecture: Architecture
    dataset: Dataset
    images: Split
    val: Split | None
    contents: dict[str, Any]
    folder: RunFolder
    progress: Progress
    sgd: SGD
    mean: Any
    colour: Any

    @property
    def network(self) -> Network:
        """The network that is trained."""
        return self.sgd.network

    @property
    def ops(self) -> Backend:
        """The backend that it runs on."""
        return self.network.ops

    @property
    def parameters_here(self) -> bool:
        """True if this rank has all parameters, so that it can save alone."""
        return self.team.size == 1 or self.config.parallel == "data"

    @cached_property
    def recipe(self) -> Recipe:
        """The settings that make up a recipe."""
        return self.config.recipe

    @property
    def epoch_batches(self) -> int:
        """Batches of an epoch."""
        return -(-len(self.images.labels) // self.recipe.batch_size)

    def batches(self, order: Indices) -> Iterator[Batch]:
        """Rest of an epoch that visits the images in `order`; of a rank its own part."""
        return batches(
            self.images,
            order,
            self.recipe.batch_size,
            start=self.progress.batch,
            workers=self.config.workers,
            empty=self.ops.host_empty,
            own=self.network.own,
        )

    def learning_rate(self) -> tuple[float, str]:
        """Rate of the next step of the current epoch, or its last, and why it fell, if it did."""
        errors = [watched(record) for record in self.progress.history]
        batch = min(self.progress.batch, self.epoch_batches - 1)
        return learning_rate(self.recipe, errors, batch / self.epoch_batches)

    @property
    def out_of_steps(self) -> bool:
        """True if --max-steps is reached."""
        return self.config.max_steps is not None and self.progress.step >= self.config.max_steps

    @property
    def stopped_early(self) -> bool:
        """True if the last --early-stopping epochs were no better than one before."""
        history, patience = self.progress.history, self.config.early_stopping
        best = self.progress.best
        return bool(patience and best and best["epoch"] + patience <= len(history))

    @property
    def finished(self) -> bool:
        """True if the last epoch is done, or --max-steps or --early-stopping reached."""
        done = self.progress.epoch >= self.recipe.epochs
        return done or self.out_of_steps or (self.progress.batch == 0 and self.stopped_early)

    def state(self) -> Checkpoint:
        """The run as it is now, on the host."""
        to_numpy = self.ops.to_numpy
        return Checkpoint(
            network=self.architecture,
            classes=self.dataset.classes,
            titles=self.dataset.titles,
            config=asdict(self.config),
            progress=self.progress,
            parameters={name: to_numpy(a) for name, a in self.network.parameters.items()},
            velocities={name: to_numpy(a) for name, a in self.sgd.velocities.items()},
            mean=self.mean,
            colour=self.colour,
            machine=checkpoints.machine(),
            data=self.contents,
        )


def prepare(
    config: Config,
    resumed: tuple[Path, Checkpoint] | None = None,
    architecture: Architecture | None = None,
    say: Callable[[str], None] = tqdm.write,
    dataset: Dataset | None = None,
) -> Run:
    """A run ready to be trained, in its folder, which stays locked until `folder.close()`.

    config: what is asked. resumed: the checkpoint to go on from, and its file. architecture: a
    network of one's own; by default that of `resumed` or config.weights, or the preset config.arch.
    dataset: images of config.data that are opened already.
    Raises UsageError, DataError, CheckpointError or WriteError before anything is trained.
    """
    source = checkpoints.load_run(config.weights) if config.weights and not resumed else None
    before = resumed or source
    if not architecture and before and config.arch in (None, before[1].architecture):
        architecture = before[1].network
    architecture = architecture or config.architecture
    architecture.check()
    team = join()
    asked, config = config, config.resolved(architecture)
    config.toml()  # refuses a path that is no text, before any work
    if config.freeze and not before:
        raise UsageError(
            "--freeze keeps weights as they are: say with --weights of which trained run."
        )
    frozen_rows(architecture, config.freeze)  # refuses a layer that is not there
    if config.backend != "reference":
        check_towers(architecture, config.devices)
    size = architecture.data.image_size
    dataset = dataset or open_data(
        config.data,
        size,
        config.seed,
        max_pixels=config.max_pixels,
        on_bad_image=config.on_bad_image,
        classes_at=config.classes_at,
        decoding=config.decoding,
    )
    fingerprint, count = contents(dataset), len(dataset.train.labels)
    if changes := differences(team.tell(fingerprint), fingerprint):
        raise DataError(
            f"{dataset.name} is not the data that the first rank has: {'; '.join(changes)}. Give "
            "all hosts the same --data."
        )
    config, notes = fitting(config, asked, architecture, len(dataset.classes), count)
    if config.recipe.batch_size > count:
        raise UsageError(
            f"--batch-size {config.recipe.batch_size} is larger than the data: {dataset.name} has "
            f"{count} training images. Give -b {count} or less."
        )
    architecture = architecture.with_classes(len(dataset.classes))
    config = shared_out(config, architecture, team)
    settings = config.toml()
    each = max(config.devices) - min(config.devices) + 1  # so that no two ranks share a GPU
    gpus = tuple(number + team.local * each for number in config.devices)
    ops = backend(get_backend(config.backend, gpus, config.precision), team, config)
    images = keep_in_memory(dataset.train, size)
    for note in notes:
        say(f"note: {note}")

    if resumed:
        path, state = resumed
        checkpoints.check_fits(state, path, architecture, dataset.classes)
        changed = check_resumed(config, path, state, dataset, fingerprint)
        damage = RunFolder(path.parent).damage()
        folder = one_writes(
            team, lambda: RunFolder.resume(path.parent, config.output_dir, settings)
        )
        if changed:
            say(f"changed: {printable(changed)}")
        for note in filter(None, (damage, checkpoints.computed_elsewhere(state))):
            say(f"note: {note}")
        weights, velocities = state.parameters, state.velocities
        progress, mean, colour = state.progress, state.mean, state.colour
    else:
        weights = initial_parameters(architecture, config.seed)
        if source:
            weights = fine_tuned(source, architecture, dataset.classes, weights)
        folder = one_writes(
            team, lambda: RunFolder.create(config.output_dir, architecture.name, settings)
        )
        velocities = {name: np.zeros_like(value) for name, value in weights.items()}
        progress = Progress()
        if source:  # the weights know images without this mean
            mean, colour = source[1].mean, source[1].colour
        else:
            mean, colour = team.tell(team.first and statistics(images, size, config))
    network = Network(architecture, ops, weights, mean, config.freeze)
    val = None if dataset.val is None else keep_in_memory(dataset.val, size)
    if network.frozen and not config.check_every:
        batch, workers = config.recipe.batch_size, config.workers
        val = val and with_features(network, val, batch, workers)
        if not architecture.data.varies:
            images = with_features(network, images, batch, workers)
    run = Run(
        config=config,
        team=team,
        architecture=architecture,
        dataset=dataset,
        images=images,
        val=val,
        contents=fingerprint,
        folder=folder,
        progress=progress,
        sgd=SGD(network, config.recipe, velocities),
        mean=mean,
        colour=colour,
    )
    if resumed:
        moved, now = state.config.get("data") != config.data, run.state()
        if team.first:
            folder.restore(path, now, moved, say)
    return run


def fitting(
    config: Config, asked: Config, architecture: Architecture, classes: int, images: int
) -> tuple[Config, list[str]]:
    """Settings that fit few images and few classes, where others were not asked for; and why."""
    changes, notes = dict[str, Any](), list[str]()
    batch, rate = max(min(LEAST_BATCH, images), images // STEPS), architecture.rate(classes)
    if asked.batch_size is None and batch < config.recipe.batch_size:
        changes["batch_size"] = batch
        notes.append(f"{batch} images a step, as there are {images}. -b takes another number.")
    if asked.lr is None and rate < config.recipe.lr:
        changes["lr"] = rate
        notes.append(
            f"learning rate {rate:g}, as {config.lr:g} would overshoot with {classes} classes. "
            "--lr takes another."
        )
    steps = images // changes.get("batch_size", config.recipe.batch_size)
    if asked.weights and steps < STEPS and not (asked.lr_scheduler or asked.lr_step_size):
        changes["lr_scheduler"] = "cosine"
        notes.append(
            f"the learning rate follows a cosine: an epoch has {steps} steps, and after a sudden "
            "fall trained weights run on for some ten. --lr-scheduler takes another."
        )
    return replace(config, **changes), notes


def with_features(network: Network, split: Split, batch_size: int, workers: int) -> Split:
    """`split` with the outputs of the frozen rows in place of its images, if memory has room."""
    last, count = layers(network.architecture.rows)[network.frozen - 1], len(split.labels)
    if not count or 4 * count * math.prod(last.output) > KEEP_BYTES:
        return split
    parts = []
    with progress_bar("features", count) as bar:
        read = batches(split, np.arange(count), batch_size, workers=workers, own=network.own)
        for batch in read:
            parts += [y for _, y in outputs(network, batch.images, [last.row.name])]
            bar.update(len(batch.labels))
    return InMemory(split.labels, split.names, np.concatenate(parts))


def one_writes(team: Team, make: Callable[[], RunFolder]) -> RunFolder:
    """The folder that the first rank makes; the others have one that writes nothing."""
    team.agree(0)  # if another has failed before this, the first hears of it, and makes none
    folder = make() if team.first else None
    path = team.tell(folder and folder.path)
    return folder or ReadFolder(path)


def statistics(images: Split, size: int, config: Config) -> tuple[Any, Any]:
    """The mean image and the colour directions, from at most MEAN_IMAGES training images."""
    count = min(len(images.labels), MEAN_IMAGES)
    with progress_bar("mean image", count) as bar:
        return mean_and_colour(
            images, size, seed=config.seed, workers=config.workers, progress=bar.update
        )


def check_resumed(
    config: Config, path: Path, state: Checkpoint, dataset: Dataset, fingerprint: dict[str, Any]
) -> str:
    """List, in words, the settings that are others than when the run was saved.

    Raises DataError, UsageError or CheckpointError if it cannot go on with `config` on `dataset`.
    """
    if changes := differences(state.data, fingerprint):
        raise DataError(
            f"{dataset.name} is not the data that {path} was trained on: {'; '.join(changes)}. "
            "Resume with the --data, --seed and images of before, or begin a new run from its "
            f"weights: --weights {path}."
        )
    before = asdict(from_mapping(state.config, Config(), str(path)).resolved(state.network))
    now, done = asdict(config), state.progress.batch
    changed = [setting for setting in differing(before, now) if setting != "output_dir"]
    if "weights" in changed:
        raise UsageError(
            f"--resume goes on with the weights in {path}, and weights = {now['weights']!r} "
            "starts a new run. Give one."
        )
    for setting in {"batch_size", "seed"}.intersection(changed if done else ()):
        flag = "--" + setting.replace("_", "-")
        raise UsageError(
            f"{path} was saved inside epoch {state.progress.epoch + 1}, after {done} batches, "
            f"and with {flag} {now[setting]} the others would hold images seen already. Finish "
            f"the epoch with {flag} {before[setting]}, then change it."
        )
    epoch_batches = -(-len(dataset.train.labels) // config.recipe.batch_size)
    if done > epoch_batches:
        raise CheckpointError(
            f"{path} tells of {done} batches done of an epoch that has {epoch_batches}. "
            "Use another checkpoint of the run: last.npz or best.npz."
        )
    return ", ".join(f"{s.replace('_', '-')} {before[s]} -> {now[s]}" for s in changed)


def progress_bar(what: str, images: int, done: int = 0) -> "tqdm[Any]":
    """A progress bar on a terminal, nothing elsewhere."""
    return tqdm(desc=what, total=images, initial=done, unit=" images", leave=False, disable=None)
