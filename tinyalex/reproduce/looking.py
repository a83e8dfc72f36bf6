"""Views of a trained network: its kernels, what excites its units, what it takes for what.

Each experiment looks at the run that is given with --run, or trains one for it: `mini`, and on the
built-in images for a few epochs only, unless other ones are asked for.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from tinyalex.data.batches import read_images
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
from tinyalex.net.presets import Architecture
from tinyalex.reproduce.experiment import Answer, Request, Spread, experiment
from tinyalex.reproduce.training import look

IMAGES = 2000  # from which the strongest responses are taken
UNITS, UNITS_OF_ONE = 4, 16  # of each layer, and of a layer that is looked at alone
CLEARLY = 5  # points by which the last convolution must differ from the first to be told apart


@experiment(
    "maps",
    "What does each depth answer to?",
    "draws the first layer's kernels only (Figure 3). In such a network the deeper layers "
    "answer to textures, then to parts, then to whole things (Zeiler and Fergus 2013, Figure "
    "2).",
    "A unit is excited where its response, before the activation function, is above 0. It is "
    "shown with at most one patch an image.",
)
def maps(request: Request, title: str) -> Answer:
    """The patches that excite a few units of each convolution most."""
    (network,), dataset, setting = look(request, check=lambda a, _: layers_asked(a, request.layer))
    architecture = network.architecture
    names = layers_asked(architecture, request.layer)
    split, which = measured_on(dataset)
    chosen = neighbors.sample(len(split.labels), IMAGES)
    labels = split.labels[chosen]
    strongest = responses(network, split, chosen, names, request.workers)
    purities = {name: purity(strongest[name], labels) for name in names}
    chance = purity_by_chance(labels)
    count = (UNITS if request.layer is None else UNITS_OF_ONE) // towers(network)
    blocks, rows, shown = [], [], {}
    for name, response in strongest.items():
        field = receptive_field(architecture.rows, name)
        shown[name] = most_excited(response, towers(network), count)
        strips = [
            [strip(unit, response, field, architecture.data, split, chosen) for unit in tower]
            for tower in shown[name]
        ]
        blocks.append(Block(name, field.size, strips))
        shares, pure = excited(response), purities[name]
        rows.append(
            (
                name,
                f"{field.size} x {field.size}",
                f"{len(shares)}",
                f"{np.count_nonzero(shares == 0)}",
                f"{100 * shares.mean():.1f}",
                "" if pure is None else f"{100 * pure:.1f}",
            )
        )
    setting = f"{setting}; {len(chosen):,} {which} images"
    return Answer(
        unit_figures.patches(blocks, title, setting),
        purity_in_words(purities, chance),
        setting,
        (
            "layer",
            "pixels that a unit sees",
            "units",
            "of them never excited",
            "images that excite a unit, %",
            f"of its {PATCHES} strongest images in one class, %",
        ),
        rows,
        {"purity": purities, "chance": chance, "units": shown},
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


def purity_in_words(purities: Mapping[str, float | None], chance: float) -> str:
    """True if units become more particular with depth."""
    known = [(name, 100 * value) for name, value in purities.items() if value is not None]
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


@experiment(
    "filters",
    "Do the two towers specialise?",
    "the kernels on one GPU are largely colour-agnostic and those on the other largely "
    "colour-specific, in every run (Figure 3 and section 6.1).",
    "Colour-specificity is the share of a kernel's energy (the sum of its squares) that the "
    "three channels do not have in common: 1 - 3 sum(m^2) / sum(w^2), where m is the mean over "
    "the channels. A grey kernel has 0, one that no grey image excites has 1, and random "
    "kernels have 2/3 on average.",
)
def filters(request: Request, title: str) -> Answer:
    """Figure 3, with a score for the colour in each tower's kernels."""
    networks, _, setting = look(request, request.seeds or 1)
    count = towers(networks[0])
    weights = [draw.first_kernels(network)[1] for network in networks]
    scores = [
        [Spread(tuple(map(float, tower))) for tower in np.split(colour_specificity(weight), count)]
        for weight in weights
    ]
    names = ["all kernels"] if count == 1 else ["tower a", "tower b"]
    rows = [
        (
            f"{run}",
            name,
            f"{spread.mean:.2f}",
            f"{sum(v > 0.5 for v in spread.values)} of {len(spread.values)}",
        )
        for run, spreads in enumerate(scores, 1)
        for name, spread in zip(names, spreads, strict=True)
    ]
    labels = [
        f"{name}: colour-specificity {mean} on average, above one half in {above} kernels"
        for _, name, mean, above in rows[:count]
    ]
    return Answer(
        run_figures.filters(weights[0], count, title, setting, labels),
        towers_in_words(scores),
        setting,
        ("run", "kernels of", "colour-specificity, mean", "above one half"),
        rows,
        {"colour_specificity": [[spread.values for spread in spreads] for spreads in scores]},
    )


def towers_in_words(scores: Sequence[Sequence[Spread]]) -> str:
    """Say whether, in each run, one tower is more colour-specific than the other, beyond chance."""
    if len(scores[0]) == 1:
        mean = sum(spread.mean for (spread,) in scores) / len(scores)
        return (
            "The network has no towers that could differ. The colour-specificity of its kernels "
            f"is {mean:.2f} on average, and that of random kernels .67."
        )
    texts = []
    for run, (a, b) in enumerate(scores, 1):
        apart = abs(a.mean - b.mean)
        error = math.hypot(a.error, b.error)  # of the difference, half the 95 % interval
        means = f"means {a.mean:.2f} and {b.mean:.2f}, difference {apart:.2f} ± {error:.2f}"
        text = (
            f"tower {'b' if b.mean > a.mean else 'a'} is more colour-specific, beyond chance"
            if apart > error
            else "the towers do not specialise so that it could be told from chance"
        )
        texts.append(f"in run {run} {text} ({means})" if len(scores) > 1 else f"{text} ({means})")
    text = "; ".join(texts)
    return f"{text[0].upper()}{text[1:]}."


@experiment(
    "predictions",
    "What does the network see?",
    "most of the five likeliest labels are reasonable, even of things off the centre (Figure "
    "4, left, and section 6.1).",
)
def predictions(request: Request, title: str) -> Answer:
    """Figure 4, left: eight images and the five most probable classes of each."""
    (network,), dataset, setting = look(request)
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
    first, five = int(np.count_nonzero(rank < 1)), int(np.count_nonzero(rank < 5))
    setting = f"{setting}; {which} images"
    return Answer(
        run_figures.predictions(images, probs, labels, dataset.titles, title, setting),
        f"Of these {len(chosen)} images, {first} are right at first guess, and {five} have their "
        "class among the five most probable.",
        setting,
        ("image", "class", "the most probable classes"),
        rows,
        {"right_at_first_guess": first, "right_within_five": five},
    )


@experiment(
    "neighbors",
    "Which images does the network call alike?",
    "images near in the last hidden layer, by Euclidean distance, show the same kind of thing, "
    "and are mostly not near in pixels (Figure 4, right, and section 6.1).",
)
def alike(request: Request, title: str) -> Answer:
    """Figure 4, right: the nearest training images, and how many of them are of the same class."""
    (network,), dataset, setting = look(request, check=lambda _, dataset: neighbors.check(dataset))
    near = neighbors.neighbors(network, dataset, request.workers)
    rows, values = [], {}
    for space in (LAYER, PIXELS):
        same = near.same_class(dataset, space)
        shares = same.mean(1)  # of each query: its neighbours are not independent of each other
        error = 1.96 * float(shares.std()) / math.sqrt(len(shares))
        values[space] = {"share": float(shares.mean()), "error": error}
        first = f"{100 * same[:, 0].mean():.1f}"
        rows.append((space, f"{100 * shares.mean():.1f} ± {100 * error:.1f}", first))
    chance = near.chance(dataset)
    rows.append(("chance", f"{100 * chance:.1f}", f"{100 * chance:.1f}"))
    (_, layer, _), (_, pixels, _), _ = rows
    setting += f"; {len(near.queries):,} validation, {len(near.points):,} training images"
    return Answer(
        draw.neighbors_figure(near, dataset, title, setting),
        f"Of the {NEAREST} training images nearest in the {LAYER}, {layer} % are of the same "
        f"class; of the nearest in pixels {pixels} %; by chance {100 * chance:.1f} % would be.",
        setting,
        ("nearest by", f"same class, of {NEAREST}, %", "same class, of the nearest, %"),
        rows,
        {"same_class": values, "chance": chance},
    )
