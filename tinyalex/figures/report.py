"""The page of one run: what was trained, how well it does, where it is wrong, and how to use it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
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
from tinyalex.measure.evaluate import (
    Scores,
    evaluate,
    has_top5,
    interval,
    interval_in_words,
    measured_on,
)
from tinyalex.measure.neighbors import NEAREST, POINTS, QUERIES, neighbors
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
ul img { margin-bottom: .35rem; border-radius: 4px; }
img[src^="data:image/png"] { image-rendering: pixelated; }
picture img[src] { border-radius: 6px; image-rendering: auto; }
.mistakes { grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); }
.near { grid-template-columns: 1.18fr repeat(6, minmax(0, 1fr)); font-size: .8rem; }
.near li:first-child { border-right: 2px solid var(--rule); padding-right: .75rem; }
.kernels { grid-template-columns: 1fr 1fr; max-width: 48rem; }
.kernels img { padding: .5rem; }
picture { display: block; }
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
    """A checkpoint, of which folder and file, its network, and the images it is judged on."""

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
    def has_neighbors(self) -> bool:
        """True if nearest training images can be found."""
        return self.dataset.val is not None and len(self.dataset.train.labels) >= NEAREST

    @property
    def images(self) -> int:
        """Number of images that `page` looks at."""
        count, known = len(measured_on(self.dataset)[0].labels), len(self.dataset.train.labels)
        return count + self.has_neighbors * (min(count, QUERIES) + min(known, POINTS))


def page(run: Trained, workers: int, after_batch: Callable[[int], object]) -> str:
    """The page as HTML. after_batch hears how many images were done, of `run.images` in all."""
    split, which = measured_on(run.dataset)
    parts = []

    def keep(labels: Array, probs: Array) -> None:
        parts.append((probs.argmax(1), probs.max(1), probs[np.arange(len(labels)), labels]))
        after_batch(len(labels))

    scores = evaluate([run.network], split, BATCH, workers=workers, after_batch=keep)
    given, surest, own = map(np.concatenate, zip(*parts, strict=True))
    title = f"{run.state.architecture} on {run.dataset.name}"
    sections = {
        "What was trained": facts(run),
        "Curves": curves(run),
        "The worst mistakes": mistakes(run.dataset, split, given, surest, own),
        "Classes": classes(split.labels, given, [*map(printable, run.dataset.titles)]),
        "What it calls alike": alike(run, workers, after_batch) if run.has_neighbors else "",
        "First-layer filters": filters(run),
        "How to use it": use(run, split),
    }
    links, bodies = [], []
    for name, body in sections.items():
        if body:
            id = name.split()[-1]
            links.append(f'<a href="#{id}">{name}</a>')
            bodies.append(f'<section id="{id}">\n<h2>{name}</h2>\n{body}\n</section>')
    top = (
        f"<h1>{text(title)}</h1>\n{result(scores, which, len(run.dataset.classes))}\n"
        f'<p class="fine">{text(draw.origin(run.folder, run.state.progress))}</p>\n'
        f'<nav aria-label="Contents"><p>{" · ".join(links)}</p></nav>'
    )
    return markup.document(title, "\n".join(("<main>", top, *bodies, "</main>")), STYLE)


def result(scores: Scores, which: str, count: int) -> str:
    """The errors, with their intervals. count: of classes."""
    errors = {"top-1": scores.top1_error} | (
        {"top-5": scores.top5_error} if has_top5(count) else {}
    )
    listed = ", ".join(
        f"{top} error {100 * error:.2f} % ({interval_in_words(error, scores.images)})"
        for top, error in errors.items()
    )
    of = f"all {scores.images:,}" if which == "all" else f"{scores.images:,} {which}"
    return (
        f'<p class="lead"><b>{100 - 100 * scores.top1_error:.2f} %</b> of {of} images right at '
        f"first guess: {listed}.</p>"
    )


def facts(run: Trained) -> str:
    """Network, images, recipe, time and machine of the training."""
    state, progress, config, dataset = run.state, run.state.progress, run.config, run.dataset
    parameters = sum(array.size for array in state.parameters.values())
    two = ", two towers" if towers(run.network) == 2 else ""
    val = 0 if dataset.val is None else len(dataset.val.labels)
    rows = {
        "network": f"{state.architecture}: {parameters:,} parameters{two}",
        "images": f"{dataset.name}: {len(dataset.train.labels):,} for training, {val:,} for "
        f"validation, {len(dataset.classes):,} classes",
        "began from": config.weights or "",
    }
    if progress.step:
        rows["recipe"] = (
            f"batches of {config.batch_size}, rate {config.lr:g} ({config.lr_scheduler}), momentum "
            f"{config.momentum:g}, weight decay {config.weight_decay:g}, seed {config.seed}"
        )
        best = ", the best so far" if run.file.name == "best.npz" else ""
        rows["epochs"] = f"{progress.epoch} of {config.epochs}, {progress.step:,} steps{best}"
    speeds = [r["images_per_second"] for r in progress.history if r.get("images_per_second")]
    if speeds and state.data:
        trained = sum(count for count, _ in state.data["train"].values())
        time = timedelta(seconds=round(sum(trained / speed for speed in speeds)))
        rows["time"] = f"{time} of training, {speeds[-1]:,.0f} images/s"
    rows["computed with"] = ", ".join(f"{part} {what}" for part, what in state.machine.items())
    cells = (
        f'<tr><th scope="row">{name}</th><td>{text(value)}</td></tr>'
        for name, value in rows.items()
        if value
    )
    return f"<table>\n<tbody>\n{chr(10).join(cells)}\n</tbody>\n</table>"


def curves(run: Trained) -> str:
    """Loss and errors over the epochs, or nothing of weights without a log."""
    if not (run.folder.path / "config.toml").exists() or not run.folder.records():
        return ""
    records, _, words = draw.curves(run.folder, run.state.validation_images)
    wide, narrow = (
        markup.data_uri(canvas.png(run_figures.curves(records, "", narrow=narrow)), "png")
        for narrow in (False, True)
    )
    return (
        f'<p>{text(words)}.</p>\n<picture><source media="(max-width: 40rem)" srcset="{narrow}">'
        f'<img alt="Loss and error over the epochs" src="{wide}"></picture>'
    )


def mistakes(dataset: Dataset, split: Split, given: Array, surest: Array, own: Array) -> str:
    """The wrong answers that the network was surest of.

    given, surest, own: of each image the answer, its probability, and that of the true class.
    """
    wrong, items = np.flatnonzero(given != split.labels), []
    for i in wrong[np.argsort(-surest[wrong], kind="stable")][:MISTAKES]:
        true, answer = (dataset.titles[c] for c in (split.labels[i], given[i]))
        items.append(
            f"<li>{picture(split.read(int(i)), f'{true}, taken for {answer}')}"
            f"{marked(False, answer, surest[i])}<br>{marked(True, true, own[i])}"
            f'<br><span class="fine">{text(Path(split.names[i]).name)}</span></li>'
        )
    if not items:
        return "<p>There is none.</p>"
    return (
        f"<p>{len(wrong):,} of {len(given):,} images got a wrong answer. Below each of those "
        f"that the network was surest of stands its answer ({WRONG}), and the true class "
        f"({RIGHT}).</p>\n{cards('mistakes', items)}"
    )


def marked(right: bool, title: str, probability: float | None = None) -> str:
    """The name of a class, right or wrong, and its probability."""
    kind, mark = ("right", RIGHT) if right else ("wrong", WRONG)
    percent = "" if probability is None else f" {100 * probability:.1f}&nbsp;%"
    return f'<span class="{kind}">{mark} {text(title)}{percent}</span>'


def cards(kind: str, items: Sequence[str]) -> str:
    """Pictures with a few words each."""
    return f'<ul class="{kind}">\n{chr(10).join(items)}\n</ul>'


def classes(labels: Array, given: Array, titles: Sequence[str]) -> str:
    """Accuracy and confusion of all of a few classes, or of those at either end of many."""
    counts = np.zeros((len(titles), len(titles)), np.int64)
    np.add.at(counts, (labels, given), 1)
    images, right = counts.sum(1), np.diag(counts)
    order = np.argsort(right / np.maximum(images, 1), kind="stable")
    order = order[images[order] > 0]

    def listed(which: Array) -> str:
        rows = []
        for c in which.tolist():
            low, high = interval(right[c] / images[c], int(images[c]))
            others = np.where(np.arange(len(titles)) == c, 0, counts[c]).tolist()
            taken = f"{titles[others.index(max(others))]} ({max(others):,})" if any(others) else ""
            share = f"{100 * right[c] / images[c]:.1f}"
            between = f"{100 * low:.1f} to {100 * high:.1f}"
            rows.append((titles[c], f"{images[c]:,}", share, between, taken))
        columns = ("class", "images", "right, %", "95 % interval", "most often taken for")
        return table(columns, rows, columns[-1:])

    if len(titles) <= NAMED:
        return f"{matrix(counts, titles)}\n<h3>Right at first guess</h3>\n{listed(order)}"
    pairs = [
        (titles[true], titles[answer], f"{counts[true, answer]:,} of {images[true]:,}")
        for true, answer in worst(counts, PAIRS)
    ]
    return (
        "<h3>Most often taken for another</h3>\n"
        f"{table(('class', 'taken for', 'images'), pairs, ('taken for',))}\n"
        f"<h3>The classes with the most mistakes</h3>\n{listed(order[:EXTREMES])}\n"
        f"<h3>The classes with the fewest</h3>\n{listed(order[::-1][:EXTREMES])}"
    )


def matrix(counts: Array, titles: Sequence[str]) -> str:
    """The confusion matrix as a table, darker where more of a row is."""
    shares = np.sqrt(counts / np.maximum(counts.sum(1, keepdims=True), 1))
    head = "".join(f'<th scope="col"><span>{text(title)}</span></th>' for title in titles)
    rows = []
    for title, row, share in zip(titles, counts, shares, strict=True):
        cells = zip(row, share, strict=True)
        filled = "".join(f'<td style="--s: {s:.2f}">{n or ""}</td>' for n, s in cells)
        rows.append(f'<tr><th scope="row">{text(title)}</th>{filled}</tr>')
    return (
        "<p>Images by true class (rows) and predicted class (columns).</p>\n"
        '<div class="table" tabindex="0" role="group" aria-label="Confusion">\n'
        f'<table class="matrix">\n<thead>\n<tr><th scope="col">true \\ predicted</th>{head}</tr>\n'
        f"</thead>\n<tbody>\n{chr(10).join(rows)}\n</tbody>\n</table>\n</div>"
    )


def alike(run: Trained, workers: int, after_batch: Callable[[int], object]) -> str:
    """Validation images and the training images nearest to them."""
    near = neighbors(run.network, run.dataset, workers, after_batch)
    rows = []
    for images, (own, *names) in zip(*draw.neighbors_shown(near, run.dataset), strict=True):
        labels = (f"<b>{text(own)}</b>", *(marked(name == own, name) for name in names))
        items = [
            f"<li>{picture(image, f'Image of {name}')}{label}</li>"
            for image, name, label in zip(images, (own, *names), labels, strict=True)
        ]
        rows.append(cards("near", items))
    return (
        "<p>A validation image, and the training images nearest to it in the last hidden layer. "
        f"{text(draw.likeness_in_words(near, run.dataset))}.</p>\n{chr(10).join(rows)}"
    )


def filters(run: Trained) -> str:
    """The kernels of each tower, beside what they were before training."""
    name, weight = draw.first_kernels(run.network)
    initial = draw.initial_kernels(run.state.network, run.config, run.state.progress)
    labels = draw.TOWERS if towers(run.network) == 2 else (name,)
    drawn = {"": weight} if initial is None else {"": weight, ", before training": initial}
    columns, zoom = 8 if len(weight) > 24 else 6, max(1, 40 // weight.shape[2])
    items = []
    for tower, label in enumerate(labels):
        for when, kernels in drawn.items():
            sheet = run_figures.kernel_sheet(np.split(kernels, len(labels))[tower], columns, zoom)
            words = f"{label}{when}"
            items.append(f"<li>{picture(sheet, f'Kernels of {words}', whole=True)}{words}</li>")
    return (
        f"<p>{len(weight)} kernels of {name}, each scaled by its largest weight; grey is zero. "
        f"{draw.moved_in_words(weight, initial)}</p>\n{cards('kernels', items)}"
    )


def use(run: Trained, split: Split) -> str:
    """Commands and a program that take up this run and, where there is one, a picture of it."""
    folder, place = os.path.abspath(run.folder.path), Path(run.config.data or "", split.names[0])
    image = os.path.abspath(place) if place.is_file() else "picture.jpg"
    run_word, image_word = shlex.quote(folder), shlex.quote(image)
    lines = f"""\
tinyalex predict {run_word} {image_word}
tinyalex eval {run_word} --crops 10
tinyalex train --data FOLDER --weights {run_word}
tinyalex export {run_word} -o network.onnx

import tinyalex

net = tinyalex.load({folder!r})
print(net.classes)
for title, probability in net.predict({image!r}, topk=3):
    print(f"{{100 * probability:6.2f}} %  {{title}}")"""
    commands, program = "\n".join(map(text, lines.split("\n"))).split("\n\n", 1)
    return (
        f'<h3>On the command line</h3>\n<pre tabindex="0"><code>{commands}</code></pre>\n'
        f'<h3>From Python</h3>\n<pre tabindex="0"><code>{program}</code></pre>'
    )
