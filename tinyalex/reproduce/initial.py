"""The paper's initial values against those of its code: what of an image arrives, and the loss."""

import math
from collections.abc import Mapping
from typing import Any

from tinyalex.errors import UsageError
from tinyalex.measure.image_signal import Signal, as_dict, initial_signal
from tinyalex.net.presets import get_architecture
from tinyalex.reproduce import figures
from tinyalex.reproduce.experiment import Answer, Request, Spread, experiment, spreads
from tinyalex.reproduce.training import Record, counted, run_folder, setting_in_words, train
from tinyalex.runs import checkpoint
from tinyalex.runs.folder import RunFolder
from tinyalex.system.backends import get_backend
from tinyalex.training.standstill import Standstill

REAL = "alexnet"  # its signal is measured beside that of the trained network: it takes seconds
CHANGE = "+paper-init"

Signals = Mapping[str, Mapping[str, Signal]]


@experiment(
    "init",
    "Does the network learn from the paper's initial weights?",
    "it does not ask; it has standard deviation .01 in all layers (section 5), where its code has "
    ".03 on conv3 to conv5 (layers-145.cfg:135-218).",
    "The signal is that of seed 0 on 32 built-in images. With biases of 1 and so small weights, "
    "what is the same for every image outweighs what is not; in mini, whose layers have fewer "
    "inputs, more so. Caffe's authors met it too, \"initialization to 1 resulted in flat training "
    'loss" (BVLC/caffe, pull request 327), and took biases of .1.',
)
def initial(request: Request, title: str) -> Answer:
    """Measures the signal at the start, then trains with and without the paper's initial values.

    Both at the network's own rate, which stays the same. Raises UsageError for a network that
    starts from the paper's values by itself.
    """
    name = request.arch or "mini"
    networks = (name, name + CHANGE)
    as_it_is, changed = map(get_architecture, networks)
    if as_it_is.rows == changed.rows:
        raise UsageError(
            f"{name} has the paper's initial values already. Compare {REAL} with them, --arch "
            f"{REAL}, or another network."
        )
    epochs = request.epochs or (1 if request.quick else 4)
    seeds = range(request.seeds or (1 if request.quick else 3))
    settings: dict[str, Any] = {
        "lr": as_it_is.recipe.lr,
        "lr_scheduler": "constant",
        "print_freq": 1,  # for the figure
    }

    ops = get_backend(request.backend)
    signals = {}
    for network in dict.fromkeys((*networks, REAL, REAL + CHANGE)):
        request.say(f"  {network}: how much of an image arrives at each layer")
        signals[network] = initial_signal(get_architecture(network), ops)
    histories = {n: [train(request, n, s, epochs, **settings) for s in seeds] for n in networks}
    folders = {n: [run_folder(request, n, s, settings) for s in seeds] for n in networks}
    chance = math.log(len(checkpoint.load(folders[name][0] / "last.npz").classes))

    ends = {n: spreads([h[-1] for h in histories[n]], "loss", "top1_error") for n in networks}
    losses = {n: [steps(RunFolder(folder), epochs) for folder in folders[n]] for n in networks}
    setting = setting_in_words(request, name, epochs, len(seeds))
    setting = f"{setting}, rate {settings['lr']:g}"
    return Answer(
        figures.initial(signals, losses, chance, title, setting),
        in_words(signals, {n: end["loss"].mean for n, end in ends.items()}, chance, epochs),
        setting,
        ("std over images (its share)", *signals),
        table(signals, ends),
        {
            "signal": {network: as_dict(signal) for network, signal in signals.items()},
            "ln_classes": chance,
            "ends": {n: {key: s.values for key, s in end.items()} for n, end in ends.items()},
        },
    )


def steps(folder: RunFolder, epochs: int) -> list[Record]:
    """The records of a run's steps up to an epoch; of its epochs, if no steps were recorded."""
    records = [r for r in folder.records() if r["epoch"] <= epochs]
    return [r for r in records if r["event"] == "step"] or [
        r for r in records if r["event"] == "epoch"
    ]


def table(signals: Signals, ends: Mapping[str, Mapping[str, Spread]]) -> list[tuple[str, ...]]:
    """A row for each layer and one for each thing that training came to, a column a network."""
    rows = []
    for layer in dict.fromkeys(layer for signal in signals.values() for layer in signal):
        cells = (
            f"{signal[layer].std:.2g} ({percent(signal[layer])})" if layer in signal else ""
            for signal in signals.values()
        )
        rows.append((layer, *cells))
    loss = (f"{ends[n]['loss'].mean:.4f}" if n in ends else "" for n in signals)
    error = (ends[n]["top1_error"].percent() if n in ends else "" for n in signals)
    return [*rows, ("loss in the last epoch", *loss), ("training error, %", *error)]


def percent(signal: Signal) -> str:
    """The share of what tells images apart."""
    return f"{100 * signal.share:.2g} %" if signal.share < 0.995 else "100 %"


def in_words(signals: Signals, losses: Mapping[str, float], chance: float, epochs: int) -> str:
    """Say what arrives at the last layer, and whether the loss has left ln(classes)."""
    own, changed = (list(signals[network].values())[-1] for network in (REAL, REAL + CHANGE))
    text = (
        f"Before training, the logits of {REAL} at its real size vary by {own.std:.2g} over the "
        f"images, {percent(own)} of their size; with the paper's initial values by "
        f"{changed.std:.2g}, {percent(changed)}: {own.std / changed.std:.0f} times less."
    )
    ends = []
    for network, loss in losses.items():
        stands = abs(loss - chance) <= Standstill.NEAR * chance
        still = f" and stands at ln(classes) = {chance:.3f}, one answer to all images"
        ends.append(f"{network} has a loss of {loss:.3f}{still if stands else ''}")
    return f"{text} After {counted(epochs, 'epoch')} {'; '.join(ends)}."
