"""The runs that experiments compare or look at: trained once, kept, resumed after an interrupt."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tinyalex.data.dataset import Dataset
from tinyalex.errors import UsageError
from tinyalex.net.network import Network
from tinyalex.net.presets import Architecture, get_architecture
from tinyalex.ranks.team import join
from tinyalex.reproduce.experiment import Request
from tinyalex.runs import checkpoint
from tinyalex.runs.config import Config, differing, from_mapping
from tinyalex.runs.weights import load_networks, open_data_of
from tinyalex.system.signals import StoppedBySignal
from tinyalex.training import loop
from tinyalex.training.start import prepare

Record = dict[str, Any]
LOG = 10**9  # steps between log lines: an experiment tells of epochs

# What may differ when a run is gone on with: how long, and by whom it is computed.
COMPUTED = ("backend", "gpus", "precision", "pieces", "parallel", "workers")
FREE = ("epochs", "print_freq", "output_dir", *COMPUTED)


def train(
    request: Request,
    arch: str,
    seed: int,
    epochs: int,
    *,
    enough: Callable[[Record], bool] = lambda record: False,
    **settings: Any,
) -> list[Record]:
    """The records of a run's epochs, one each, trained now unless they are there already.

    enough: hears each epoch's record and may end the run. settings: of `Config`, beside the usual.
    Raises UsageError if the folder has a run of the same name with other settings.
    """
    folder, architecture = run_folder(request, arch, seed, settings), get_architecture(arch)
    # Falls are where the preset has them, so that a shorter run is the beginning of a longer one.
    falls = {"lr_step_size": architecture.recipe.lr_step_size}
    config = Config(
        data=request.data,
        arch=arch,
        seed=seed,
        epochs=epochs,
        backend=request.backend,
        workers=request.workers,
        output_dir=str(folder),
        **{"print_freq": LOG, **falls, **settings},
    ).resolved(architecture)
    resumed = None
    last, best = folder / "last.npz", folder / "best.npz"
    if last.exists() or best.exists():
        path = last if last.exists() else best  # killed between its first best and its first last
        state = checkpoint.load(path)
        check_same(config, state.config, folder)
        history = state.progress.history[:epochs]
        if path == last and (len(history) == epochs or any(map(enough, history))):
            return history
        resumed = path, state

    def after_epoch(record: Record) -> bool:
        text = f"  {arch}, seed {seed}, epoch {record['epoch']} of {epochs}: training error "
        text += f"{100 * record['top1_error']:.2f} %"
        if "val_top1_error" in record:
            text += f", validation error {100 * record['val_top1_error']:.2f} %"
        request.say(text)
        return enough(record)

    try:
        dataset = request.dataset(config.architecture.data.image_size, seed)
        run = prepare(config, resumed, say=lambda line: None, dataset=dataset)
        loop.train(run, lambda line: None, after_epoch)
    except StoppedBySignal as stopped:
        message = "Stopped. The same command goes on from here."
        raise StoppedBySignal(message, stopped.exit_code - 128) from None
    return run.progress.history


def step_schedule(epochs: int) -> dict[str, Any]:
    """The rate falls to a tenth after four fifths of the epochs."""
    return {"lr_scheduler": "step", "lr_step_size": max(1, epochs * 4 // 5)}


def run_folder(request: Request, arch: str, seed: int, settings: Mapping[str, Any]) -> Path:
    """Folder of a run: its name tells what it is, its rate and when that falls, if given.

    So the runs of experiments that train equally are shared, and no others are in their way.
    """
    data = Path(request.data).stem if request.data else "shapes"
    rate = f"-lr{settings['lr']:g}" if "lr" in settings else ""
    fall = f"-step{settings['lr_step_size']}" if "lr_step_size" in settings else ""
    quick = "-quick" if request.quick else ""
    return request.folder / "runs" / f"{data}{quick}-{arch}{rate}{fall}-seed{seed}"


def check_same(config: Config, saved: Record, folder: Path) -> None:
    """Raise UsageError if a finished or interrupted run was another than is asked for."""
    then = from_mapping(saved, Config(), str(folder))
    before = asdict(then.resolved(config.architecture))  # fills what is new since
    now = asdict(config)
    for name in differing(before, now):
        if name not in FREE:
            raise UsageError(
                f"{folder} was trained with {name} {before[name]}, and now {now[name]} is asked "
                "for. Choose another folder with --output-dir, or remove that one."
            )


def look(
    request: Request,
    seeds: int = 1,
    check: Callable[[Architecture, Dataset], object] = lambda architecture, dataset: None,
) -> tuple[list[Network], Dataset, str]:
    """Trained networks to look at, the images, and the setting in words.

    Networks of request.run, or `seeds` of them trained here for request.epochs: if it is None, for
    4 on the built-in images and 20 on others, 2 if it is to be quick. check: hears what will be
    looked at before anything is trained, and may raise.
    """
    if request.run is not None:
        for name in ("arch", "epochs", "seeds"):
            if getattr(request, name) is not None:
                raise UsageError(
                    f"--run looks at a network that is trained already, and --{name} is for "
                    "training one. Give one of the two."
                )
        checkpoints, networks = load_networks([request.run], request.backend, join())
        architecture = networks[0].architecture
        size = architecture.data.image_size
        dataset = request.part(open_data_of(checkpoints, request.data), size)
        check(architecture, dataset)
    else:
        name = request.arch or "mini"
        epochs = request.epochs or (2 if request.quick else 20 if request.data else 4)
        architecture = get_architecture(name)
        dataset = request.dataset(architecture.data.image_size)
        check(architecture, dataset)
        runs, settings = [], step_schedule(epochs)
        for seed in range(seeds):
            train(request, name, seed, epochs, **settings)
            # Not the best epoch, which was the best on the very images that will be looked at.
            runs.append(str(run_folder(request, name, seed, settings) / "last.npz"))
        checkpoints, networks = load_networks(runs, request.backend, join())
        for path, state in zip(runs, checkpoints, strict=True):
            if state.progress.epoch != epochs:
                raise UsageError(
                    f"{path} was trained for {state.progress.epoch} epochs, and one of {epochs} is "
                    "to be looked at. Choose another folder with --output-dir, or give --epochs "
                    f"{state.progress.epoch}."
                )
    state = checkpoints[0]
    source = replace(request, data=request.data or state.config.get("data"))
    setting = setting_in_words(source, state.architecture, state.progress.epoch, len(networks))
    return networks, dataset, setting


def setting_in_words(request: Request, arch: str, epochs: int, seeds: int) -> str:
    """Describe what the numbers were measured with."""
    length = f"{counted(epochs, 'epoch')}, {counted(seeds, 'seed')}"
    return f"{arch} on {request.images}, {length}, {request.date}"


def counted(number: int, what: str) -> str:
    """1 seed, 3 seeds."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
