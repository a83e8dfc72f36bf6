"""What every experiment is asked, and what it answers with."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyalex.errors import WriteError
from tinyalex.figures import canvas
from tinyalex.system.files import remedy, write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
    quick: bool = False
    run: str | None = None
    layer: str | None = None
    say: Callable[[str], None] = print
    date: str = field(default_factory=lambda: date.today().isoformat())


@dataclass(frozen=True)
class Answer:
    """What an experiment found.

    found: in a sentence or two, and whether it can be seen at this size at all. columns, rows: the
    table. setting: data, network, epochs, seeds, date. values: all numbers, for JSON.
    """

    figure: Figure
    found: str
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


def write(experiment: Experiment, answer: Answer, request: Request, seconds: float) -> None:
    """figure.png, table.md and result.json in a folder of the experiment's name."""
    folder = request.folder / experiment.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "table.md", markdown(experiment, answer).encode())
        found = {
            "name": experiment.name,
            "title": experiment.title,
            "paper": experiment.paper,
            "found": answer.found,
            "setting": answer.setting,
            "remark": experiment.remark,
            "date": request.date,
            "seconds": round(seconds, 1),
            "columns": list(answer.columns),
            "rows": [list(row) for row in answer.rows],
            **answer.values,
        }
        write_whole(folder / "result.json", (json.dumps(_finite(found), indent=1) + "\n").encode())
    except OSError as error:
        raise WriteError(
            f"Cannot write the results to {folder}: {error.strerror}. {remedy(error)} Or "
            "choose another folder with --output-dir."
        ) from None
    canvas.save(answer.figure, folder / "figure.png")


def _finite(value: Any) -> Any:
    """The same with None for NaN and infinity, which JSON does not have."""
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
        f"Here: {answer.found}",
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

    def percent(self) -> str:
        """The mean in percent, and from where to where the values go."""
        low, high = 100 * min(self.values), 100 * max(self.values)
        return f"{100 * self.mean:.2f}" + (f" ({low:.2f} to {high:.2f})" if high > low else "")

    def points(self) -> str:
        """A difference in percentage points, with the 95 % interval of its mean."""
        interval = "" if math.isinf(self.error) else f" ± {100 * self.error:.2f}"
        return f"{100 * self.mean:+.2f}{interval}"


def difference(a: Spread, b: Spread) -> Spread:
    """a minus b, pairwise: seed by seed both saw the same images in the same order."""
    return Spread(tuple(x - y for x, y in zip(a.values, b.values, strict=True)))
