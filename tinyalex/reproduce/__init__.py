"""`tinyalex reproduce`: what the paper showed, once more, at a size for a laptop or one GPU."""

import time
from dataclasses import replace
from typing import Any

from tinyalex.errors import TinyalexError, UsageError, nearest
from tinyalex.reproduce import initial, looking, race, sharing, views
from tinyalex.reproduce.ablations import ABLATIONS
from tinyalex.reproduce.experiment import Request, write
from tinyalex.reproduce.page import write_page
from tinyalex.system.signals import StoppedBySignal

LOOKING = (looking.maps, looking.filters, looking.predictions, looking.alike, views.views)
EXPERIMENTS = {
    e.name: e for e in (race.race, *ABLATIONS, initial.initial, sharing.sharing, *LOOKING)
}
# The experiments that take each flag: sharing trains nothing, and some look at a single network.
TRAIN = tuple(name for name in EXPERIMENTS if name != sharing.sharing.name)
TAKEN_BY = {
    "run": tuple(e.name for e in LOOKING),
    "layer": ("maps",),
    "epochs": TRAIN,
    "seeds": tuple(name for name in TRAIN if name not in ("maps", "predictions", "neighbors")),
}


def reproduce(name: str, request: Request) -> None:
    """Runs an experiment, or with `all` each of them, and writes what it comes to.

    Raises UsageError with the nearest name if there is none of that name.
    """
    if name == "all":
        reproduce_all(request)
        return
    if name not in EXPERIMENTS:
        known = (*EXPERIMENTS, "all")
        raise UsageError(
            f"There is no experiment {name!r}.{nearest(name, known)} Known: {', '.join(known)}."
        )
    for flag, names in TAKEN_BY.items():
        if getattr(request, flag) is not None and name not in names:
            raise UsageError(f"{name} takes no --{flag}. It is for {', '.join(names)}.")
    experiment = EXPERIMENTS[name]
    began = time.monotonic()
    request.say(f"{name}: {experiment.title}")
    answer = experiment.run(request, experiment.title)
    write(experiment, answer, request, time.monotonic() - began)
    request.say(f"The paper: {experiment.paper}")
    request.say(f"Here: {answer.conclusion}")
    request.say(f"{request.folder / name}: figure.png, table.md, result.json")


def reproduce_all(request: Request) -> None:
    """Every experiment, one after another, and a page of them.

    One that fails does not keep the others from running. Then TinyalexError is raised in the end,
    with the exit code of the first.
    """
    failed: dict[str, TinyalexError] = {}
    for name in EXPERIMENTS:
        try:
            none: dict[str, Any] = {flag: None for flag in TAKEN_BY if name not in TAKEN_BY[flag]}
            reproduce(name, replace(request, **none))
        except StoppedBySignal:
            raise
        except TinyalexError as error:
            failed[name] = error
            request.say(f"No result: {error}")
        request.say("")
    path = write_page(EXPERIMENTS.values(), failed, request)
    request.say(f"All on one page: {path}")
    if failed:
        first = next(iter(failed))
        summary = TinyalexError(
            f"{len(failed)} of {len(EXPERIMENTS)} experiments have no result: "
            f"{', '.join(failed)}. {first}: {failed[first]}"
        )
        summary.exit_code = failed[first].exit_code
        raise summary


def listing() -> str:
    """The names and titles of the experiments, one a line."""
    width = max(map(len, EXPERIMENTS)) + 2
    return "\n".join(f"  {e.name:<{width}}{e.title}" for e in EXPERIMENTS.values())
