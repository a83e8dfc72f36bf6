"""Request and answer of every experiment."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyalex.data import open_data
from tinyalex.data.batches import keep_in_memory
from tinyalex.data.dataset import Dataset, Part, Split
from tinyalex.figures import canvas
from tinyalex.measure.neighbors import sample
from tinyalex.ranks.team import join
from tinyalex.runs.config import Config
from tinyalex.system.files import write_whole, writing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# Images of a network that is trained quickly, and of its validation: 48,000 in the longest
# experiment, which two cores of 2025 train `mini` on in a minute; as many photos of 12 megapixels
# take one to decode.
QUICK_IMAGES, QUICK_VAL = 6000, 1000


@dataclass(frozen=True)
class Request:
    """One call of `tinyalex reproduce`. None means the experiment's own choice.

    folder: where runs and results are kept; what is finished there is not computed again.
    seeds: how often each network is trained. quick: a size that ends within minutes.
    run: a trained run to look at, for experiments that look at one. layer: of its network.
    """

    folder: Path
    data: str | None = None
    arch: str | None = None
    epochs: int | None = None
    seeds: int | None = None
    backend: str = "auto"
    workers: int = Config.workers
    quick: bool = False
    run: str | None = None
    layer: str | None = None
    say: Callable[[str], None] = print
    date: str = field(default_factory=lambda: date.today().isoformat())
    _opened: dict[tuple[int, int], Dataset] = field(default_factory=dict)

    @property
    def images(self) -> str:
        """The images in words."""
        name = Path(self.data).name if self.data else "the built-in images"
        return f"{name} (at most {QUICK_IMAGES:,} images)" if self.quick else name

    def dataset(self, size: int, seed: int = 0) -> Dataset:
        """The images to train on and those held out by `seed`, opened once; some, if quick."""
        key = size, seed
        if key not in self._opened:
            self._opened[key] = self.part(open_data(self.data, size, seed), size)
        return self._opened[key]

    def part(self, dataset: Dataset, size: int) -> Dataset:
        """All images, or if it is to be quick a sample of them, which is decoded once."""
        if not self.quick:
            return dataset

        def some(split: Split, limit: int) -> Split:
            return keep_in_memory(Part(split, sample(len(split.labels), limit)), size)

        val = None if dataset.val is None else some(dataset.val, QUICK_VAL)
        return replace(dataset, train=some(dataset.train, QUICK_IMAGES), val=val)


@dataclass(frozen=True)
class Answer:
    """Result of an experiment.

    conclusion: in a sentence or two, and whether it can be seen at this size at all. setting: data,
    network, epochs, seeds, date. columns, rows: the table. values: all numbers, for JSON.
    """

    figure: Figure
    conclusion: str
    setting: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """title: what is asked. paper: what the paper found, with its number and section.

    remark: what else one should know. run: takes the title for its figure.
    """

    name: str
    title: str
    paper: str
    run: Callable[[Request, str], Answer]
    remark: str = ""


def experiment(
    name: str, title: str, paper: str, remark: str = ""
) -> Callable[[Callable[[Request, str], Answer]], Experiment]:
    """Decorates the function that runs an experiment."""
    return lambda run: Experiment(name, title, paper, run, remark)


def write(experiment: Experiment, answer: Answer, request: Request, seconds: float) -> None:
    """figure.png, table.md and result.json in a folder of the experiment's name, by one rank."""
    if not join().first:
        return
    folder = request.folder / experiment.name
    result = {
        "name": experiment.name,
        "title": experiment.title,
        "paper": experiment.paper,
        "found": answer.conclusion,
        "setting": answer.setting,
        "remark": experiment.remark,
        "date": request.date,
        "seconds": round(seconds, 1),
        "columns": answer.columns,
        "rows": answer.rows,
        **answer.values,
    }
    write_text(folder / "table.md", markdown(experiment, answer))
    write_text(folder / "result.json", json.dumps(_finite(result), indent=1) + "\n")
    canvas.save(answer.figure, folder / "figure.png")


def write_text(path: Path, text: str) -> None:
    """A file of the results, whole, and its folder. Raises WriteError."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text.encode())


def _finite(value: Any) -> Any:
    """`value` with None for NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def markdown(experiment: Experiment, answer: Answer) -> str:
    """The answer as a table with what belongs to it."""
    lines = [
        f"## {experiment.title}",
        "",
        f"The paper: {experiment.paper}",
        "",
        f"Here: {answer.conclusion}",
        "",
        "| " + " | ".join(answer.columns) + " |",
        "|" + " --- |" * len(answer.columns),
        *("| " + " | ".join(row) + " |" for row in answer.rows),
        "",
        f"{answer.setting}.",
        *(["", experiment.remark] if experiment.remark else []),
    ]
    return "\n".join(lines) + "\n"


# Student's t: so many standard errors to each side hold 95 %, of 3, 4, ... numbers.
T95 = (4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)


@dataclass(frozen=True)
class Spread:
    """Fractions from several seeds."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values)

    @property
    def error(self) -> float:
        """Half the 95 % interval of the mean; infinite from one or two seeds, too few to tell."""
        n = len(self.values)
        if n < 3:
            return math.inf
        std = math.sqrt(sum((v - self.mean) ** 2 for v in self.values) / (n - 1))
        return T95[min(n, len(T95) + 2) - 3] * std / math.sqrt(n)

    def __sub__(self, other: Spread) -> Spread:
        """Pairwise: seed by seed both saw the same images in the same order."""
        return Spread(tuple(a - b for a, b in zip(self.values, other.values, strict=True)))

    def percent(self) -> str:
        """The mean in percent, and from where to where the values go."""
        low, high = 100 * min(self.values), 100 * max(self.values)
        return f"{100 * self.mean:.2f}" + (f" ({low:.2f} to {high:.2f})" if high > low else "")

    def points(self) -> str:
        """A difference in percentage points, with the 95 % interval of its mean."""
        interval = "" if math.isinf(self.error) else f" ± {100 * self.error:.2f}"
        return f"{100 * self.mean:+.2f}{interval}"


def spreads(records: Sequence[Mapping[str, Any]], *keys: str) -> dict[str, Spread]:
    """The spread of each of `keys` over the records of several seeds."""
    return {key: Spread(tuple(float(record[key]) for record in records)) for key in keys}
