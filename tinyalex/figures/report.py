"""The page of one run: what was trained, how well it does, where it is wrong, and how to use it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np

from tinyalex.data.dataset import Dataset, Split
from tinyalex.errors import printable
from tinyalex.figures import canvas, draw, markup, run_figures
from tinyalex.figures.canvas import RIGHT, WRONG
from tinyalex.figures.markup import picture, table, text
from tinyalex.figures.unit_figures import NAMED, worst
from tinyalex.measure import neighbors
from tinyalex.measure.evaluate import Answers, answers, confused, interval, measured_on
from tinyalex.measure.units import towers
from tinyalex.net.network import Network
from tinyalex.runs.checkpoint import Checkpoint
from tinyalex.runs.config import Config, from_mapping
from tinyalex.runs.folder import RunFolder
from tinyalex.system.arrays import Array

MISTAKES, PAIRS, EXTREMES = 12, 12, 10
BATCH = 128

STYLE = """
:root { --heat: #a9c9e6; --right: #1d6b48; --wrong: #9a4a00; --code: #f2f4f7; }
@media (prefers-color-scheme: dark) {
  :root { --heat: #2f6394; --right: #7fd0a8; --wrong: #f0aa5e; --code: #22272e; }
}
.lead { font-size: 1.15rem; }
.lead b { font-size: 2rem; }
.right { color: var(--right); }
.wrong { color: var(--wrong); }
img, .matrix td, .matrix th { min-width: 0; }
ul { display: grid; gap: 1rem .75rem; padding: 0; margin: 0 0 1.25rem; max-width: none;
  list-style: none; font-size: .85rem; line-height: 1.35; overflow-wrap: anywhere; hyphens: auto; }
ul img { image-rendering: pixelated; margin-bottom: .35rem; border-radius: 4px; }
.mistakes { grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); }
.near { grid-template-columns: 1.18fr repeat(6, minmax(0, 1fr)); font-size: .8rem; }
.near li:first-child { border-right: 2px solid var(--rule); padding-right: .75rem; }
.kernels { grid-template-columns: 1fr 1fr; max-width: 48rem; }
.kernels img { padding: .5rem; }
picture { display: block; }
picture img { border-radius: 6px; }
.matrix td, .matrix th { padding: .3rem .4rem; text-align: center; vertical-align: middle;
  border: 1px solid var(--rule); }
.matrix tbody th { text-align: right; max-width: 9rem; }
.matrix td { background: color-mix(in srgb, var(--heat) calc(var(--s) * 100%), transparent);
  print-color-adjust: exact; }
.matrix span { writing-mode: vertical-rl; transform: rotate(180deg); max-height: 9rem; }
pre { background: var(--code); padding: .75rem 1rem; border-radius: 6px; overflow-x: auto; }
@media (max-width: 40rem) {
  .near { grid-template-columns: 1.18fr repeat(3, minmax(0, 1fr)); }
  .near li:first-child { grid-row: span 2; }
  .mistakes { grid-template-columns: 1fr 1fr; }
  .matrix td, .matrix th { padding: .25rem .1rem; }
  tbody th, thead th, td { min-width: 0; }
  .near, .matrix, .table, pre { font-size: .75rem; }
}
@media print {
  p, li, pre, picture { break-inside: avoid; }
  section p, h3 { break-after: avoid; }
  pre { white-space: pre-wrap; }
}
"""


@dataclass(frozen=True)
class Trained:
    """A run's checkpoint, its network, and the images that it is judged on."""

    folder: RunFolder
    file: Path
    state: Checkpoint
    network: Network
    dataset: Dataset

    @property
    def config(self) -> Config:
        """Settings of the training."""
        return from_mapping(self.state.config, Config(), str(self.file))

    @property
    def images(self) -> int:
        """Number of images that `page` looks at."""
        count = len(measured_on(self.dataset)[0].labels)
        known = len(self.dataset.train.labels)
        near = min(count, neighbors.QUERIES) + min(known, neighbors.POINTS)
        return count + near * has_neighbors(self.dataset)


def has_neighbors(dataset: Dataset) -> bool:
    """True if nearest training images can be found."""
    return dataset.val is not None and len(dataset.train.labels) >= neighbors.NEAREST


def page(run: Trained, workers: int, after_batch: Callable[[int], object]) -> str:
    """The page as HTML. after_batch hears how many images were done, of `run.images` in all."""
    split, which = measured_on(run.dataset)
    found = answers(run.network, split, BATCH, workers, after_batch)
    counts = confused(split.labels, found.given, len(run.dataset.classes))
    title = f"{run.state.architecture} on {run.dataset.name}"
    sections = [
        ("What was trained", facts(run)),
        ("Curves", curves(run)),
        ("The worst mistakes", mistakes(run.dataset, split, found)),
        ("Classes", classes(counts, [*map(printable, run.dataset.titles)])),
        ("What it calls alike", alike(run, workers, after_batch)),
        ("First-layer filters", filters(run)),
        ("How to use it", use(run, split)),
    ]
    links = " · ".join(f'<a href="#{n.split()[-1]}">{n}</a>' for n, body in sections if body)
    bodies = (
        f'<section id="{name.split()[-1]}">\n<h2>{name}</h2>\n{body}\n</section>'
        for name, body in sections
        if body
    )
    return markup.document(
        title,
        f"<h1>{text(title)}</h1>\n{result(found, which, len(counts))}\n"
        f'<p class="fine">{text(draw.origin(run.folder, run.state.progress))}</p>\n'
        f'<nav aria-label="Contents"><p>{links}</p></nav>\n<main>\n{chr(10).join(bodies)}\n</main>',
        STYLE,
    )


def result(found: Answers, which: str, count: int) -> str:
    """The errors, with their intervals."""
    images = len(found.rank)
    errors = []
    for top in (1, 5) if count > 5 else (1,):
        error = float((found.rank >= top).mean())
        low, high = interval(error, images)
        errors.append(
            f"top-{top} error {100 * error:.2f} % "
            f"(95 % interval {100 * low:.2f} to {100 * high:.2f} %)"
        )
    of = f"all {images:,}" if which == "all" else f"{images:,} {which}"
    right = 100 * float((found.rank < 1).mean())
    return (
        f'<p class="lead"><b>{right:.2f} %</b> of {of} images right at first guess: '
        f"{', '.join(errors)}.</p>"
    )


def facts(run: Trained) -> str:
    """Network, images, recipe, time and machine of the training."""
    state, progress, config = run.state, run.state.progress, run.config
    parameters = sum(array.size for array in state.parameters.values())
    two = ", two towers" if towers(run.network) == 2 else ""
    val = 0 if run.dataset.val is None else len(run.dataset.val.labels)
    rows = [
        ("network", f"{state.architecture}: {parameters:,} parameters{two}"),
        (
            "images",
            f"{run.dataset.name}: {len(run.dataset.train.labels):,} for training, {val:,} for "
            f"validation, {len(run.dataset.classes):,} classes",
        ),
    ]
    if config.weights:
        rows.append(("began from", printable(config.weights)))
    if progress.step:
        falls = {
            "step": f", times {config.lr_gamma:g} every {config.lr_step_size} epochs",
            "plateau": f", times {config.lr_gamma:g} after {config.lr_patience} epochs no better",
        }
        best = ", the best so far" if run.file.name == "best.npz" else ""
        rows += [
            (
                "recipe",
                f"batches of {config.batch_size}, rate {config.lr:g}"
                f"{falls.get(str(config.lr_scheduler), '')}, momentum {config.momentum:g}, weight "
                f"decay {config.weight_decay:g}, {config.precision}, seed {config.seed}",
            ),
            ("epochs", f"{progress.epoch} of {config.epochs}, {progress.step:,} steps{best}"),
        ]
    if speeds := [r["images_per_second"] for r in progress.history if r.get("images_per_second")]:
        trained = sum(count for count, _ in state.data.get("train", {}).values())
        time = timedelta(seconds=round(sum(trained / speed for speed in speeds)))
        rows.append(("time", f"{time} of training, {speeds[-1]:,.0f} images/s"))
    if state.machine:
        machine = ", ".join(f"{part} {what}" for part, what in state.machine.items())
        rows.append(("computed with", machine))
    cells = "\n".join(
        f'<tr><th scope="row">{name}</th><td>{text(value)}</td></tr>' for name, value in rows
    )
    return f'<table>\n<tbody>\n{cells}\n</tbody>\n</table>'


def curves(run: Trained) -> str:
    """Loss and errors over the epochs, or nothing of imported weights."""
    if not run.folder.metrics.exists():
        return ""
    records, _, words = draw.curves_data(run.folder, run.state.validation_images)
    wide, narrow = (
        markup.data_uri(canvas.png(run_figures.curves(records, "", narrow=narrow)), "png")
        for narrow in (False, True)
    )
    return (
        f"<p>{text(words)}.</p>\n<picture>"
        f'<source media="(max-width: 40rem)" srcset="{narrow}">'
        f'<img alt="Loss and error over the epochs" src="{wide}"></picture>'
    )


def mistakes(dataset: Dataset, split: Split, found: Answers) -> str:
    """The wrong answers that the network was surest of."""
    wrong = np.flatnonzero(found.rank)
    worst_first = wrong[np.argsort(-found.probability[wrong], kind="stable")][:MISTAKES]
    if not len(worst_first):
        return "<p>It made none.</p>"
    items = []
    for i in worst_first:
        true, given = (dataset.titles[c] for c in (split.labels[i], found.given[i]))
        items.append(
            f"<li>{picture(split.read(int(i)), f'{true}, taken for {given}')}"
            f'<span class="wrong">{WRONG} {text(given)} {percent(found.probability[i])}</span>'
            f'<br><span class="right">{RIGHT} {text(true)} {percent(found.own[i])}</span>'
            f'<br><span class="fine">{text(Path(split.names[i]).name)}</span></li>'
        )
    return (
        f"<p>{len(wrong):,} of {len(found.rank):,} images got a wrong answer. Below each of those "
        f"that the network was surest of stands its answer ({WRONG}), and the true class "
        f"({RIGHT}).</p>\n{cards('mistakes', items)}"
    )


def percent(share: float) -> str:
    """A share that is not broken from its sign."""
    return f"{100 * share:.1f}&nbsp;%"


def cards(kind: str, items: Iterable[str]) -> str:
    """Pictures with a few words each."""
    return f'<ul class="{kind}">\n{chr(10).join(items)}\n</ul>'


def classes(counts: Array, titles: Sequence[str]) -> str:
    """Accuracy and confusion of all of a few classes, or of those at either end of many."""
    images, right = counts.sum(1), np.diag(counts)
    accuracy = right / np.maximum(images, 1)
    shown = np.argsort(accuracy, kind="stable")
    shown = shown[images[shown] > 0]

    def listed(which: Iterable[int]) -> str:
        rows = []
        for c in which:
            low, high = interval(1 - accuracy[c], int(images[c]))
            others = counts[c].copy()
            others[c] = 0
            taken = f"{titles[others.argmax()]} ({others.max():,})" if others.any() else ""
            rows.append(
                (
                    titles[c],
                    f"{images[c]:,}",
                    f"{100 * accuracy[c]:.1f}",
                    f"{100 * (1 - high):.1f} to {100 * (1 - low):.1f}",
                    taken,
                )
            )
        columns = ("class", "images", "right, %", "95 % interval", "most often taken for")
        return table(columns, rows, columns[-1:])

    if len(titles) <= NAMED:
        return f"{matrix(counts, titles)}\n<h3>Right at first guess</h3>\n{listed(shown)}"
    pairs = [
        (titles[true], titles[given], f"{counts[true, given]:,} of {images[true]:,}")
        for true, given in worst(counts, PAIRS)
    ]
    mixed = table(("class", "taken for", "images"), pairs, ("taken for",))
    return (
        f"<h3>Most often taken for another</h3>\n{mixed}\n"
        f"<h3>The classes with the most mistakes</h3>\n{listed(shown[:EXTREMES])}\n"
        f"<h3>The classes with the fewest</h3>\n{listed(shown[::-1][:EXTREMES])}"
    )


def matrix(counts: Array, titles: Sequence[str]) -> str:
    """The confusion matrix as a table, darker where more of a row is."""
    shares = np.sqrt(counts / np.maximum(counts.sum(1, keepdims=True), 1))
    head = "".join(f'<th scope="col"><span>{text(t)}</span></th>' for t in titles)
    rows = "\n".join(
        f'<tr><th scope="row">{text(title)}</th>'
        + "".join(
            f'<td style="--s: {s:.2f}">{n or ""}</td>' for n, s in zip(row, share, strict=True)
        )
        + "</tr>"
        for title, row, share in zip(titles, counts.tolist(), shares, strict=True)
    )
    return (
        "<p>Images by true class (rows) and predicted class (columns).</p>\n"
        '<div class="table" tabindex="0" role="region" aria-label="Confusion">\n'
        f'<table class="matrix">\n<thead>\n<tr><th scope="col">true \\ predicted</th>{head}</tr>\n'
        f"</thead>\n<tbody>\n{rows}\n</tbody>\n</table>\n</div>"
    )


def alike(run: Trained, workers: int, after_batch: Callable[[int], object]) -> str:
    """Validation images and the training images nearest to them."""
    if not has_neighbors(run.dataset):
        return ""
    near = neighbors.neighbors(run.network, run.dataset, workers, after_batch)
    rows = []
    for images, names in zip(*draw.neighbors_shown(near, run.dataset), strict=True):
        items = [f"<li>{picture(images[0], names[0])}<b>{text(names[0])}</b></li>"]
        for image, name in zip(images[1:], names[1:], strict=True):
            kind, mark = ("right", RIGHT) if name == names[0] else ("wrong", WRONG)
            items.append(
                f'<li>{picture(image, name)}<span class="{kind}">{mark} {text(name)}</span></li>'
            )
        rows.append(cards("near", items))
    return (
        "<p>A validation image, and the training images nearest to it in the last hidden layer. "
        f"{text(draw.likeness_in_words(near, run.dataset))}.</p>\n{chr(10).join(rows)}"
    )


def filters(run: Trained) -> str:
    """The kernels of each tower, beside what they were before training."""
    name, weight = draw.first_kernels(run.network)
    initial = draw.initial_kernels(run.state.network, run.config, run.state.progress)
    count = towers(run.network)
    items = []
    for tower, kernels in enumerate(np.split(weight, count)):
        label = draw.TOWERS[tower] if count == 2 else name
        items.append(f"<li>{sheet(kernels, label)}{label}</li>")
        if initial is not None:
            before = np.split(initial, count)[tower]
            items.append(f"<li>{sheet(before, f'{label}, initial')}the same before training</li>")
    kh, kw = weight.shape[1:3]
    moved = draw.moved_in_words(weight, initial)
    return (
        f"<p>{len(weight)} kernels of {kh} x {kw} x 3 in {name}, each scaled by its largest "
        f"weight; grey is zero. {moved}</p>\n"
        f"{cards('kernels', items)}"
    )


def sheet(kernels: Array, alt: str) -> str:
    """The kernels of a tower in one picture."""
    columns, zoom = 8 if len(kernels) > 12 else 6, max(1, 40 // kernels.shape[2])
    pixels = run_figures.kernel_sheet(kernels, columns, zoom)
    return picture(pixels, f"Kernels of {alt}", whole=True)


def use(run: Trained, split: Split) -> str:
    """Commands and a program that take up this run and, where there is one, a picture of it."""
    path = os.path.abspath(run.folder.path)
    places = (Path(run.config.data or "", name) for name in split.names[:1])
    shown = next((os.path.abspath(place) for place in places if place.is_file()), "picture.jpg")
    folder, image = shlex.quote(path), shlex.quote(shown)
    commands = f"""\
tinyalex predict {folder} {image}
tinyalex eval {folder} --crops 10
tinyalex train --data FOLDER --weights {folder}
tinyalex export {folder} -o network.onnx"""
    program = f"""\
import tinyalex

net = tinyalex.load({path!r})
print(net.classes)
for title, probability in net.predict({shown!r}, topk=3):
    print(f"{{100 * probability:6.2f}} %  {{title}}")"""
    return f"<h3>On the command line</h3>\n{code(commands)}\n<h3>From Python</h3>\n{code(program)}"


def code(lines: str) -> str:
    """Lines to copy."""
    return f'<pre tabindex="0"><code>{chr(10).join(map(text, lines.split(chr(10))))}</code></pre>'
