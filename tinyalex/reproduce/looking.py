"""What a trained network has learned: its kernels, what excites its units, what it takes for what.

Each experiment looks at the run that is given with --run, or trains one for it: `mini`, and on the
built-in images for a few epochs only, unless other ones are asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from tinyalex.data import open_data
from tinyalex.data.batches import read_images
from tinyalex.data.dataset import Dataset
from tinyalex.errors import UsageError, nearest
from tinyalex.figures import draw, run_figures, unit_figures
from tinyalex.figures.unit_figures import Block
from tinyalex.measure import neighbors
from tinyalex.measure.evaluate import measured_on, probabilities, rank_of_label
from tinyalex.measure.neighbors import LAYER, NEAREST, PIXELS
from tinyalex.measure.units import (
    PATCHES,
    colour_specificity,
    excited,
    most_excited,
    purity,
    purity_by_chance,
    receptive_field,
    responses,
    strip,
    towers,
)
from tinyalex.net.layers import Conv2d
from tinyalex.net.network import Network
from tinyalex.net.presets import Architecture, get_architecture
from tinyalex.reproduce.ablations import schedule
from tinyalex.reproduce.experiment import Answer, Experiment, Request, Spread
from tinyalex.reproduce.training import run_folder, setting, train
from tinyalex.runs.weights import load_networks, open_data_of

IMAGES = 2000  # from which the strongest responses are taken
UNITS, UNITS_OF_ONE = 4, 16  # of each layer, and of a layer that is looked at alone
CLEARLY = 5  # points by which the last convolution must differ from the first to be told apart


def look(
    request: Request,
    seeds: int = 1,
    check: Callable[[Architecture, Dataset], object] = lambda architecture, dataset: None,
) -> tuple[list[Network], Dataset, str]:
    """Trained networks to look at, the images, and the setting in words.

    Those of request.run, or `seeds` networks that are trained here for request.epochs: if it is
    None, for 4 on the built-in images and 20 on others, 2 if it is to be quick. The rate falls to a
    tenth after four fifths of them. check: hears what will be looked at before anything is trained,
    and may raise.
    """
    if request.run is not None:
        for name in ("arch", "epochs", "seeds"):
            if getattr(request, name) is not None:
                raise UsageError(
                    f"--run looks at a network that is trained already, and --{name} is for "
                    "training one. Give one of the two."
                )
        checkpoints, networks = load_networks([request.run], request.backend)
        dataset = open_data_of(checkpoints, request.data)
        check(networks[0].architecture, dataset)
    else:
        name = request.arch or "mini"
        epochs = request.epochs or (2 if request.quick else 20 if request.data else 4)
        architecture = get_architecture(name)
        dataset = open_data(request.data, architecture.data.image_size, seed=0)
        check(architecture, dataset)
        runs, settings = [], schedule(epochs)
        for seed in range(seeds):
            train(request, name, seed, epochs, **settings)
            # Not the best epoch, which was the best on the very images that will be looked at.
            runs.append(str(run_folder(request, name, seed, settings) / "last.npz"))
        checkpoints, networks = load_networks(runs, request.backend)
        for path, state in zip(runs, checkpoints, strict=True):
            if state.progress.epoch != epochs:
                raise UsageError(
                    f"{path} was trained for {state.progress.epoch} epochs, and one of {epochs} is "
                    "to be looked at. Choose another folder with --output-dir, or give --epochs "
                    f"{state.progress.epoch}."
                )
    state = checkpoints[0]
    asked = replace(request, data=request.data or state.config.get("data"))
    how = setting(asked, state.architecture, state.progress.epoch, len(networks))
    return networks, dataset, how


def maps(request: Request, title: str) -> Answer:
    """The patches that excite a few units of each convolution most."""
    (network,), dataset, how = look(request, check=lambda a, _: layers_asked(a, request.layer))
    architecture = network.architecture
    names = layers_asked(architecture, request.layer)
    split, which = measured_on(dataset)
    chosen = neighbors.sample(len(split.labels), IMAGES)
    labels = split.labels[chosen]
    found = responses(network, split, chosen, names, request.workers)
    count = (UNITS if request.layer is None else UNITS_OF_ONE) // towers(network)
    blocks, rows, shown = [], [], {}
    pure = {name: purity(found[name], labels) for name in names}
    for name in names:
        field = receptive_field(architecture.rows, name)
        shown[name] = most_excited(found[name], towers(network), count)
        strips = [
            [strip(unit, found[name], field, architecture.data, split, chosen) for unit in tower]
            for tower in shown[name]
        ]
        blocks.append(Block(name, field.size, strips))
        shares = excited(found[name])
        rows.append(
            (
                name,
                f"{field.size} x {field.size}",
                f"{len(shares)}",
                f"{np.count_nonzero(shares == 0)}",
                f"{100 * shares.mean():.1f}",
                "" if (share := pure[name]) is None else f"{100 * share:.1f}",
            )
        )
    chance = purity_by_chance(labels)
    how = f"{how}; {len(chosen):,} {which} images"
    return Answer(
        unit_figures.patches(blocks, title, how),
        purity_in_words(pure, chance),
        how,
        (
            "layer",
            "pixels that a unit sees",
            "units",
            "of them never excited",
            "images that excite a unit, %",
            f"of its {PATCHES} strongest images in one class, %",
        ),
        rows,
        {"purity": pure, "chance": chance, "units": shown},
    )


def layers_asked(architecture: Architecture, layer: str | None) -> list[str]:
    """The convolutions to look at: all, or the one asked for.

    Raises UsageError, with the nearest name, if it is none.
    """
    known = [row.name for row in architecture.rows if isinstance(row, Conv2d)]
    if layer is not None and layer not in known:
        raise UsageError(
            f"--layer {layer}: {architecture.name} has no such convolution."
            f"{nearest(layer, known)} Known: {', '.join(known)}."
        )
    return known if layer is None else [layer]


def purity_in_words(pure: Mapping[str, float | None], chance: float) -> str:
    """Whether units become more particular with depth."""
    known = [(name, 100 * value) for name, value in pure.items() if value is not None]
    if not known:
        return f"No unit is excited by {PATCHES} images."
    (first, low), (last, high) = known[0], known[-1]
    text = f"Of the {PATCHES} images that excite a unit most, {low:.0f} % are of one class"
    by_chance = f"by chance it would be {100 * chance:.0f} %"
    if len(known) == 1:
        return f"{text} in {first}; {by_chance}."
    more = (
        "deeper units answer to classes"
        if high > low + CLEARLY
        else "that deeper units answer to classes cannot be seen here"
    )
    return f"{text} in {first} and {high:.0f} % in {last}; {by_chance}: {more}."


def filters(request: Request, title: str) -> Answer:
    """Figure 3, with a score for the colour in each tower's kernels."""
    networks, _, how = look(request, request.seeds or 1)
    count = towers(networks[0])
    found = [
        [Spread(tuple(map(float, half))) for half in np.split(scores, count)]
        for scores in (colour_specificity(draw.first_kernels(n)[1]) for n in networks)
    ]
    names = [f"tower {'ab'[tower]}" for tower in range(count)] if count > 1 else ["all kernels"]
    rows = [
        (
            f"{run}",
            name,
            f"{spread.mean:.2f}",
            f"{sum(v > 0.5 for v in spread.values)} of {len(spread.values)}",
        )
        for run, halves in enumerate(found, 1)
        for name, spread in zip(names, halves, strict=True)
    ]
    labels = [
        f"{name}: colour-specificity {mean} on average, above one half in {above} kernels"
        for run, name, mean, above in rows
        if run == "1"
    ]
    weight = draw.first_kernels(networks[0])[1]
    return Answer(
        run_figures.filters(weight, count, title, how, labels),
        towers_in_words(found),
        how,
        ("run", "kernels of", "colour-specificity, mean", "above one half"),
        rows,
        {"colour_specificity": [[list(s.values) for s in halves] for halves in found]},
    )


def towers_in_words(found: Sequence[Sequence[Spread]]) -> str:
    """Of each run's towers: is one more colour-specific than the other, beyond chance?"""
    if len(found[0]) == 1:
        mean = sum(spread.mean for (spread,) in found) / len(found)
        return (
            "The network has no towers that could differ. The colour-specificity of its kernels "
            f"is {mean:.2f} on average, and that of random kernels .67."
        )
    texts = []
    for run, (a, b) in enumerate(found, 1):
        apart = abs(a.mean - b.mean)
        error = math.hypot(a.error, b.error)  # of the difference, half the 95 % interval
        means = f"means {a.mean:.2f} and {b.mean:.2f}, difference {apart:.2f} ± {error:.2f}"
        more = "b" if b.mean > a.mean else "a"
        text = (
            f"tower {more} is more colour-specific, beyond chance"
            if apart > error
            else "the towers do not specialise so that it could be told from chance"
        )
        texts.append(f"in run {run} {text} ({means})" if len(found) > 1 else f"{text} ({means})")
    text = "; ".join(texts)
    return f"{text[0].upper()}{text[1:]}."


def predictions(request: Request, title: str) -> Answer:
    """Figure 4, left: eight images and the five most probable classes of each."""
    (network,), dataset, how = look(request)
    split, which = measured_on(dataset)
    chosen = draw.examples(dataset)
    images, labels = read_images(split, chosen, request.workers), split.labels[chosen]
    probs = probabilities([network], images)
    rank = rank_of_label(probs, labels)
    rows = []
    for index, label, p in zip(chosen, labels, probs, strict=True):
        best = np.argsort(-p, kind="stable")[:5]
        answers = ", ".join(f"{dataset.titles[c]} {100 * p[c]:.1f} %" for c in best)
        rows.append((split.names[index], dataset.titles[label], answers))
    first, five = np.count_nonzero(rank < 1), np.count_nonzero(rank < 5)
    how = f"{how}; {which} images"
    return Answer(
        run_figures.predictions(images, probs, labels, dataset.titles, title, how),
        f"Of these {len(chosen)} images, {first} are right at first guess, and {five} have their "
        "class among the five most probable.",
        how,
        ("image", "class", "the most probable classes"),
        rows,
        {"right_at_first_guess": int(first), "right_within_five": int(five)},
    )


def alike(request: Request, title: str) -> Answer:
    """Figure 4, right: the nearest training images, and how many of them are of the same class."""
    (network,), dataset, how = look(request, check=lambda _, dataset: neighbors.check(dataset))
    found = neighbors.neighbors(network, dataset, request.workers)
    rows, values = [], {}
    for space in (LAYER, PIXELS):
        same = found.same_class(dataset, space)
        shares = same.mean(1)  # of each query: its neighbours are not independent of each other
        error = 1.96 * float(shares.std()) / math.sqrt(len(shares))
        values[space] = {"share": float(shares.mean()), "error": error}
        first = f"{100 * same[:, 0].mean():.1f}"
        rows.append((space, f"{100 * shares.mean():.1f} ± {100 * error:.1f}", first))
    chance = found.chance(dataset)
    rows.append(("chance", f"{100 * chance:.1f}", f"{100 * chance:.1f}"))
    (_, layer, _), (_, pixels, _), _ = rows
    how = f"{how}; {len(found.queries):,} validation, {len(found.points):,} training images"
    return Answer(
        draw.neighbors_figure(found, dataset, title, how),
        f"Of the {NEAREST} training images nearest in the {LAYER}, {layer} % are of the same "
        f"class; of the nearest in pixels {pixels} %; by chance {100 * chance:.1f} % would be.",
        how,
        ("nearest by", f"same class, of {NEAREST}, %", "same class, of the nearest, %"),
        rows,
        {"same_class": values, "chance": chance},
    )


LOOKING = (
    Experiment(
        "maps",
        "What does each depth answer to?",
        "draws the first layer's kernels only (Figure 3). In such a network the deeper layers "
        "answer to textures, then to parts, then to whole things (Zeiler and Fergus 2013, Figure "
        "2).",
        maps,
        "A unit is excited where its response, before the activation function, is above 0. It is "
        "shown with at most one patch an image.",
    ),
    Experiment(
        "filters",
        "Do the two towers specialise?",
        "the kernels on one GPU are largely colour-agnostic and those on the other largely "
        "colour-specific, in every run (Figure 3 and section 6.1).",
        filters,
        "Colour-specificity is the share of a kernel's energy (the sum of its squares) that the "
        "three channels do not have in common: 1 - 3 sum(m^2) / sum(w^2), where m is the mean over "
        "the channels. A grey kernel has 0, one that no grey image excites has 1, and random "
        "kernels have 2/3 on average.",
    ),
    Experiment(
        "predictions",
        "What does the network see?",
        "most of the five likeliest labels are reasonable, even of things off the centre (Figure "
        "4, left, and section 6.1).",
        predictions,
    ),
    Experiment(
        "neighbors",
        "Which images does the network call alike?",
        "images near in the last hidden layer, by Euclidean distance, show the same kind of thing, "
        "and are mostly not near in pixels (Figure 4, right, and section 6.1).",
        alike,
    ),
)
