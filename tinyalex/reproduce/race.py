"""Figure 1: how many epochs ReLU and tanh take to the same training error."""

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial
from statistics import mean

from tinyalex.errors import DivergedError
from tinyalex.net.presets import get_architecture
from tinyalex.reproduce import figures
from tinyalex.reproduce.experiment import Answer, Request, experiment
from tinyalex.reproduce.training import Record, counted, setting_in_words, train

TARGET = 0.25  # training error, as in the figure
UNITS = {"ReLU": "plain", "tanh": "plain+tanh"}
RATES = (0.3, 1.0, 3.0)  # times the network's own, tried with each unit and,
HIGHER = (10.0, 30.0, 100.0)  # while the highest is the best so far, these
SEARCH_EPOCHS = 2  # after which those with the lowest training error go on:
FINALISTS = 2  # the best start is often at a rate that is too high to go far


@experiment(
    "relu-vs-tanh",
    "How much sooner does ReLU learn than tanh?",
    "a four-layer network reaches 25 % training error on CIFAR-10 six times sooner (Figure 1).",
)
def race(request: Request, title: str) -> Answer:
    """Search each unit's rate, then run both to the target."""
    name = request.arch or ("mini" if request.quick else "cifar-19pct")
    recipe = get_architecture(name).recipe
    longest = request.epochs or (3 if request.quick else 60)
    start, finalists = (1, 1) if request.quick else (SEARCH_EPOCHS, FINALISTS)
    seeds = range(request.seeds or 1)

    def run(unit: str, seed: int, rate: float, epochs: int) -> list[Record]:
        return train(
            request,
            f"{name}+{UNITS[unit]}",
            seed,
            epochs,
            enough=lambda record: record["top1_error"] <= TARGET,
            lr=rate,
            lr_scheduler="constant",
        )

    def error(unit: str, rate: float) -> float:
        return float(run(unit, 0, rate, start)[-1]["top1_error"])

    best = {}
    for unit in UNITS:
        errors = search(partial(error, unit), recipe.lr, request.quick)
        going = [rate for rate in errors if errors[rate] < math.inf]
        tried = ", ".join(f"{rate:g}" for rate in sorted(errors))
        if not going:
            raise DivergedError(f"{name} with {unit} diverges at each of the rates {tried}.")
        best[unit] = final(partial(run, unit, 0), going[:finalists], longest)
        request.say(f"{unit}: best rate {best[unit]:g} of {tried}")

    def history(unit: str, seed: int) -> list[Record]:
        try:
            return run(unit, seed, best[unit], longest)
        except DivergedError:
            return []  # the rate was found with another seed

    histories = {unit: [history(unit, seed) for seed in seeds] for unit in UNITS}
    epochs = {u: [reached(TARGET, h) for h in runs] for u, runs in histories.items()}
    rows = []
    for unit, runs in histories.items():
        for seed, records, when in zip(seeds, runs, epochs[unit], strict=True):
            there = "not reached" if math.isnan(when) else f"{when:.1f}"
            end = "diverged"
            if records:
                end = f"{100 * records[-1]['top1_error']:.1f} % after {records[-1]['epoch']}"
            rows.append((unit, f"{best[unit]:g}", str(seed), there, end))
    setting = setting_in_words(request, name, longest, len(seeds))
    return Answer(
        figures.race(histories, TARGET, title, setting),
        in_words(epochs["ReLU"], epochs["tanh"], longest),
        setting,
        ("unit", "rate", "seed", "epochs to 25 % training error", "training error at the end"),
        rows,
        {
            "rates": best,
            "epochs_to_target": epochs,
            "ratio": mean(epochs["tanh"]) / mean(epochs["ReLU"]),
            "target": TARGET,
        },
    )


def reached(target: float, history: Sequence[Record]) -> float:
    """The number of epochs, straight lines between them, after which the error was `target`.

    An epoch's error is the mean over its steps. NaN if it never was.
    """
    points = [(0.0, 1.0), *((r["epoch"], r["top1_error"]) for r in history)]
    for (before, high), (after, low) in itertools.pairwise(points):
        if low <= target:
            return float(before + (high - target) / (high - low) * (after - before))
    return math.nan


def search(error: Callable[[float], float], own: float, quick: bool) -> dict[float, float]:
    """The errors of the rates that were tried, the lowest first.

    error: of a rate; DivergedError counts as infinite. own: the network's rate.
    """
    errors: dict[float, float] = {}
    for factor in RATES[1:] if quick else (*RATES, *HIGHER):
        if factor in HIGHER and min(errors, key=errors.__getitem__) < max(errors):
            break
        rate = float(f"{own * factor:.3g}")
        try:
            errors[rate] = error(rate)
        except DivergedError:
            errors[rate] = math.inf
    return dict(sorted(errors.items(), key=lambda item: item[1]))


def final(
    run: Callable[[float, int], Sequence[Record]], rates: Sequence[float], longest: int
) -> float:
    """The rate that reaches the target in the fewest epochs, or else comes nearest to it.

    run: the history of a rate after so many epochs, or fewer if it has reached the target. The
    lowest rate is first, and the others run no longer than the best so far has needed. Raises
    DivergedError if none gets through.
    """
    results: dict[float, tuple[float, float]] = {}  # epochs to the target, error in the end
    for rate in sorted(rates):
        try:
            history = run(rate, longest)
        except DivergedError:
            results[rate] = math.inf, math.inf
            continue
        epochs = reached(TARGET, history)
        if not math.isnan(epochs):
            longest = math.ceil(epochs)
        results[rate] = math.inf if math.isnan(epochs) else epochs, history[-1]["top1_error"]
    best = min(results, key=results.__getitem__)
    if math.isinf(results[best][1]):
        raise DivergedError(
            f"Training diverges at the rates {', '.join(f'{rate:g}' for rate in results)}, "
            "though it began well. Try another network with --arch, or fewer --epochs."
        )
    return best


def in_words(relu: Sequence[float], tanh: Sequence[float], longest: int) -> str:
    """Say how much sooner ReLU is there, if both are. NaN: that seed did not reach the target."""
    there = [sum(not math.isnan(epochs) for epochs in unit) for unit in (relu, tanh)]
    begin = f"ReLU reaches 25 % training error after {mean(relu):.1f} epochs"
    if there == [len(relu), len(tanh)]:
        ratio = mean(tanh) / mean(relu)
        return f"{begin} and tanh after {mean(tanh):.1f}: {ratio:.1f} times as many."
    if there == [len(relu), 0]:
        least = longest / mean(relu)
        return f"{begin}; tanh has not in {longest}, more than {least:.1f} times as many."
    return (
        f"{longest} epochs are too few: 25 % training error is reached by {there[0]} of "
        f"{counted(len(relu), 'run')} with ReLU and {there[1]} with tanh."
    )
