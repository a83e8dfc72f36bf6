"""One view against ten, one network against several averaged."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from tinyalex.data import open_data
from tinyalex.data.dataset import Dataset
from tinyalex.errors import DataError
from tinyalex.measure.evaluate import Scores, evaluate, interval
from tinyalex.net.presets import Architecture
from tinyalex.reproduce import figures
from tinyalex.reproduce.experiment import Answer, Request, experiment
from tinyalex.reproduce.training import look

BATCH = 128


@experiment(
    "views",
    "What do ten views and several networks bring?",
    "ten views instead of one: 39.0 to 37.5 % top-1 and 18.3 to 17.0 % top-5 error on ILSVRC-2010 "
    "(section 6, footnote); five networks instead of one, over ten views: 40.7 to 38.1 % and 18.2 "
    "to 16.4 % on the validation images of ILSVRC-2012 (Table 2).",
    "An error of one network is the mean over the networks, measured one by one. Intervals are for "
    "the chance in which images are measured; all rows are measured on the same ones, so that a "
    "difference can be real though intervals overlap.",
)
def views(request: Request, title: str) -> Answer:
    """Top-1 and top-5 error of each network by itself and of all averaged, over 1 and 10 views."""
    seeds = request.seeds or (2 if request.quick else 3)
    several = request.run is None and seeds > 1

    def check(architecture: Architecture, dataset: Dataset) -> None:
        size = architecture.data.image_size
        dataset.require_val()
        if several and open_data(request.data, size, seed=0, hold_out=False).val is None:
            raise DataError(
                f"{dataset.name} has no folder of validation images. Each seed holds out other "
                "images, and of those that all networks could be measured on together, some have "
                "been trained on. Give --data with such a folder, or --seeds 1."
            )

    networks, dataset, setting = look(request, seeds, check)
    split = dataset.require_val()
    groups = {"one network": [[network] for network in networks]}
    if len(networks) > 1:
        groups[f"{len(networks)} networks averaged"] = [networks]
    scores = {}
    for name, group in groups.items():
        for crops, seen in ((1, "1 view"), (10, "10 views")):
            request.say(f"  {name}, {seen}")
            scores[f"{name}, {seen}"] = mean(
                [evaluate(n, split, BATCH, crops=crops, workers=request.workers) for n in group]
            )
    images = len(split.labels)
    errors = {
        label: [(error, *interval(error, images)) for error in (s.top1_error, s.top5_error)]
        for label, s in scores.items()
    }
    rows = []
    for label, both in errors.items():
        row = [label]
        for error, low, high in both:
            row += [f"{100 * error:.2f}", f"{100 * low:.2f} to {100 * high:.2f}"]
        rows.append(row)
    setting = f"{setting}; {images:,} validation images"
    names = ("Top-1 error, percent", "Top-5 error, percent")
    return Answer(
        figures.intervals(errors, names, title, setting),
        in_words(scores, images),
        setting,
        ("", "top-1 error, %", "95 % interval", "top-5 error, %", "95 % interval"),
        rows,
        {"scores": {label: _numbers(s) for label, s in scores.items()}},
    )


def _numbers(scores: Scores) -> dict[str, float]:
    """Scores as JSON has them."""
    return {name: value for name, value in asdict(scores).items() if name != "per_class"}


def mean(scores: Sequence[Scores]) -> Scores:
    """Mean over networks measured one by one on the same images."""
    count = len(scores)
    return Scores(
        scores[0].images,
        sum(s.loss for s in scores) / count,
        sum(s.top1_error for s in scores) / count,
        sum(s.top5_error for s in scores) / count,
    )


def in_words(scores: Mapping[str, Scores], images: int) -> str:
    """Say what the views bring, and what the networks bring on top of them."""
    labels = list(scores)
    texts = []
    for text, before, after in (
        ("Ten views instead of one take the top-1 error", 0, 1),
        (f"{labels[-1].split(',')[0]} take it", 1, 3),
    ):
        if after < len(labels):
            a, b = (scores[labels[i]].top1_error for i in (before, after))
            (a_low, a_high), (b_low, b_high) = interval(a, images), interval(b, images)
            overlap = "overlap" if a_low <= b_high and b_low <= a_high else "do not overlap"
            texts.append(
                f"{text} from {100 * a:.2f} to {100 * b:.2f} % (the 95 % intervals {overlap})"
            )
    return "; ".join(texts) + "."
