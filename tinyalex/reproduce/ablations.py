"""Worth of each part: the network with it beside the network without, over several seeds."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tinyalex.net.layers import Conv2d
from tinyalex.net.presets import Architecture, get_architecture
from tinyalex.reproduce import figures
from tinyalex.reproduce.experiment import Answer, Experiment, Request, Spread, spreads
from tinyalex.reproduce.training import counted, setting_in_words, step_schedule, train

# Labels to changes. The first is what the others are held against.
Variants = Mapping[str, str]


@dataclass(frozen=True)
class Ablation:
    """variants: of an architecture. arch, epochs: unless --quick takes `mini` and 2 epochs."""

    variants: Callable[[Architecture], Variants]
    arch: str = "mini"
    epochs: int = 20

    def __call__(self, request: Request, title: str) -> Answer:
        arch = request.arch or ("mini" if request.quick else self.arch)
        epochs = request.epochs or (2 if request.quick else self.epochs)
        seeds = range(request.seeds or (1 if request.quick else 3))
        base = get_architecture(arch)
        names = {
            label: "+".join(filter(None, (arch, change)))
            for label, change in self.variants(base).items()
        }
        for name in names.values():
            get_architecture(name)  # before hours of work: raises UsageError
        request.dataset(base.data.image_size).require_val()
        errors = {}
        for label, name in names.items():
            last = [train(request, name, s, epochs, **step_schedule(epochs))[-1] for s in seeds]
            errors[label] = spreads(last, "top1_error", "val_top1_error", "val_top5_error")
        return answer(title, errors, setting_in_words(request, arch, epochs, len(seeds)))


def answer(title: str, errors: Mapping[str, Mapping[str, Spread]], setting: str) -> Answer:
    """The table, its figure and what it says of the first variant beside the others."""
    validation = {label: spread["val_top1_error"] for label, spread in errors.items()}
    first, *others = errors
    beside = {label: validation[label] - validation[first] for label in others}
    rows = [
        (
            label,
            spread["top1_error"].percent(),
            spread["val_top1_error"].percent(),
            spread["val_top5_error"].percent(),
            (spread["val_top1_error"] - spread["top1_error"]).points(),
            beside[label].points() if label in beside else "",
        )
        for label, spread in errors.items()
    ]
    columns = (
        "network",
        "training error, %",
        "validation error, %",
        "top-5 error, %",
        "validation minus training",
        "beside the first",
    )
    values = {
        label: {key: s.values for key, s in spread.items()} for label, spread in errors.items()
    }
    return Answer(
        figures.dots(validation, title, setting),
        "; ".join(f"{label}: {in_words(than)}" for label, than in beside.items()) + ".",
        setting,
        columns,
        rows,
        {"errors": values},
    )


def in_words(than: Spread) -> str:
    """A difference in the error, and whether it stands out of the spread over seeds."""
    points = 100 * than.mean
    text = f"{points:+.2f} points of error"
    if abs(than.mean) > than.error:
        return f"{text}, which is beyond chance (95 % interval ± {100 * than.error:.2f})"
    if math.isinf(than.error):
        seeds = counted(len(than.values), "seed")
        return f"{text}, from {seeds}: too few to tell how much of it is chance"
    return f"{text}, not to be told from chance at this size (± {100 * than.error:.2f})"


def middle(architecture: Architecture) -> Variants:
    """Leave out each convolution between the first and the last, in turn."""
    _, *convs, _ = (row.name for row in architecture.rows if isinstance(row, Conv2d))
    return {architecture.name: "", **{f"without {c}": f"without-{c}" for c in convs}}


def against(change: str, label: str) -> Callable[[Architecture], Variants]:
    """The network as it is, and with one change."""
    return lambda architecture: {architecture.name: "", label: change}


def colour(architecture: Architecture) -> Variants:
    """Compare colour noise with none."""
    if architecture.data.colour:
        return {"colour noise": "", "no colour noise": "no-colour"}
    return {"colour noise": "colour", "no colour noise": ""}


def towers(architecture: Architecture) -> Variants:
    """Two towers, one of half the kernels, and all connected."""
    return {"two towers": "", "one tower of half the kernels": "half", "no towers": "ungrouped"}


ABLATIONS = (
    Experiment(
        "lrn",
        "Does response normalisation lower the error?",
        "13 % without, 11 % with it, on CIFAR-10; on ImageNet 1.4 points top-1 and 1.2 top-5 "
        "(section 3.3).",
        Ablation(against("no-lrn", "no normalisation"), epochs=30),
        "mini normalises across channels, by the paper's formula, as cuda-convnet's net of 11 % "
        "does; cifar-18pct does it within each map. The original notes agree: run 148, without "
        "it, has 42.03 % top-1 where run 145 has 40.67. But in run 167 the normalisation of the "
        "second layer went and nothing was lost (40.49). ReLU has no ceiling, and with rates and "
        "initial weights found by hand, damping the strongest answers kept training in bounds. "
        "Batch normalisation does that better, and VGG found no gain in deeper networks, so it is "
        "gone.",
    ),
    Experiment(
        "overlap",
        "Does it help if pools overlap?",
        "windows of 3 with stride 2 have .4 points less top-1 and .3 less top-5 error than windows "
        "of 2 with stride 2 (section 3.4).",
        Ablation(against("pool-2", "pools of 2, apart"), arch="cifar-18pct", epochs=30),
        "The maps have equal sizes in alexnet and in the CIFAR nets; in mini those of the windows "
        "of 2 are larger: 14, 7 and 3 pixels instead of 13, 6 and 2.",
    ),
    Experiment(
        "dropout",
        "What does dropout do?",
        "without it the network overfits substantially; with it twice as many steps are needed "
        "(section 4.2).",
        Ablation(against("no-dropout", "no dropout")),
    ),
    Experiment(
        "augmentation",
        "What do random crops and flips do?",
        "without them the network overfits substantially (section 4.1).",
        Ablation(against("no-augmentation", "centre crops only")),
    ),
    Experiment(
        "colour",
        "What does colour noise do?",
        "it lowers the top-1 error by over 1 point (section 4.1).",
        Ablation(colour),
    ),
    Experiment(
        "depth",
        "Can a convolution be left out?",
        "leaving out any of the middle layers costs about 2 points top-1 (section 7).",
        Ablation(middle),
    ),
    Experiment(
        "towers",
        "What do the two towers bring?",
        "two towers on two GPUs have 1.7 points less top-1 and 1.2 less top-5 error than one tower "
        "of half the kernels on one GPU (section 3.2).",
        Ablation(towers),
    ),
)
