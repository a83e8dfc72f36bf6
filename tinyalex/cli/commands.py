"""Work of each command with its flags. `do_` functions may return an exit code.

Each imports what it needs when it runs, so that --help answers at once.
"""

import argparse
import csv
import dataclasses
import io
import json
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from tinyalex.errors import DataError, UsageError, printable
from tinyalex.net.presets import ARCHITECTURES, check_towers, get_architecture
from tinyalex.runs.config import Config, from_file, from_mapping


def do_train(arguments: argparse.Namespace) -> None:
    from tinyalex.runs import checkpoint
    from tinyalex.training.loop import train
    from tinyalex.training.messages import conclusion
    from tinyalex.training.start import prepare

    config, resumed = Config(), None
    if arguments.resume:
        if "weights" in arguments:
            raise UsageError(
                "--resume goes on with a run's own weights; --weights starts a new run. Give one."
            )
        path, state = resumed = checkpoint.load_run(arguments.resume, resume=True)
        saved = {name: value for name, value in state.config.items() if name != "output_dir"}
        config = from_mapping(saved, config, str(path))
    if arguments.config:
        config = from_file(Path(arguments.config), config)
    flags = {f.name for f in dataclasses.fields(Config)} & vars(arguments).keys()
    config = from_mapping(
        {name: getattr(arguments, name) for name in flags}, config, "the command line"
    )
    config = dataclasses.replace(config, data=_absolute(config.data))
    if not arguments.quiet:
        train(prepare(config, resumed))
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        run = prepare(config, resumed)
        train(run)
    print("\n".join(map(printable, conclusion(run))))


def _absolute(data: str | None) -> str | None:
    """Absolute path of --data, so that the run can be used from any folder."""
    return None if data is None else os.path.abspath(data)


def do_eval(arguments: argparse.Namespace) -> None:
    from tinyalex.measure.evaluate import (
        FEW,
        evaluate,
        has_top5,
        interval,
        interval_in_words,
        measured_on,
    )
    from tinyalex.ranks.team import join
    from tinyalex.runs.weights import load_networks, open_data_of

    _check_csv(arguments.csv)
    checkpoints, networks = load_networks(arguments.runs, team=join())
    dataset = open_data_of(
        checkpoints, arguments.data, arguments.classes_at, arguments.numbers_from
    )
    split, which = measured_on(dataset)
    scores = evaluate(
        networks, split, arguments.batch_size, crops=arguments.crops, workers=arguments.workers
    )
    result = {
        "images": scores.images,
        "crops": arguments.crops,
        "networks": len(networks),
        "loss": scores.loss,
        "top1_error": scores.top1_error,
        "top1_interval": interval(scores.top1_error, scores.images),
        "top5_error": scores.top5_error,
        "top5_interval": interval(scores.top5_error, scores.images),
    }
    classes = [
        [title, int(images), int(right), round(right / images, 4) if images else None]
        for title, images, right in zip(dataset.titles, *scores.per_class[:2], strict=True)
    ]
    columns = ["class", "images", "right", "accuracy"]
    if arguments.per_class:
        result["classes"] = [dict(zip(columns, row, strict=True)) for row in classes]
    if arguments.csv and join().first:
        _write_csv(arguments.csv, [columns, *classes])
    if arguments.json:
        print(json.dumps(result))
        return
    views = "1 view" if arguments.crops == 1 else "10 views"
    print(f"{dataset.name}: {scores.images:,} {which} images, {views}, {len(networks)} network(s)")
    for note in dataset.notes:
        print(f"note: {note}")
    print(f"loss         {scores.loss:.4f}")
    errors = {"top-1": scores.top1_error}
    if has_top5(len(dataset.classes)):
        errors["top-5"] = scores.top5_error
    for top, error in errors.items():
        print(f"{top} error  {100 * error:.2f} %  ({interval_in_words(error, scores.images)})")
    if scores.images < FEW:
        print("note: of so few images the error is hardly known")
    for title, images, _, accuracy in classes if arguments.per_class else ():
        share = "-" if accuracy is None else f"{100 * accuracy:.2f}"
        print(f"{share:>6} % of {images:6,} right  {title}")


def do_predict(arguments: argparse.Namespace) -> int:
    from tinyalex.measure.features import Pictures
    from tinyalex.training.trained import load

    _check_csv(arguments.csv)
    _check_order(arguments)
    network = load(arguments.source)
    for note in network.notes:
        print(f"tinyalex: note: {printable(note)}", file=sys.stderr)
    failed, rows = 0, []
    pictures = Pictures(arguments.images, network.decoder)
    for index, name in enumerate(pictures.names):
        try:
            answers = network.predict(pictures.read(index), arguments.topk, arguments.crops)
        except DataError as error:  # the others may still be answered; the exit code tells
            print(f"tinyalex: {printable(str(error))}", file=sys.stderr)
            failed = error.exit_code
            continue
        rows.append([name, *(value for title, p in answers for value in (title, f"{p:.6f}"))])
        if arguments.json:
            named = [{"class": title, "probability": round(p, 6)} for title, p in answers]
            print(json.dumps({"image": name, "predictions": named}))
        else:
            print(printable(name))
            for title, probability in answers:
                print(f"  {100 * probability:6.2f} %  {title}")
    if arguments.csv:
        count = min(arguments.topk, len(network.classes))
        ranks = [f"{what}_{i}" for i in range(1, count + 1) for what in ("class", "probability")]
        _write_csv(arguments.csv, [["image", *ranks], *rows])
    return failed


def _check_order(arguments: argparse.Namespace) -> None:
    """Raise UsageError if a picture stands where the run does."""
    from tinyalex.data.decode import SUFFIXES

    if arguments.source.lower().endswith(SUFFIXES):
        raise UsageError(
            f"{arguments.source} is a picture, and the run comes first: "
            f"{arguments.parser.prog} RUN {arguments.source}"
        )


def _check_csv(path: str | None) -> None:
    """Raise UsageError for a table that is not named so: it may be a picture, and another flag."""
    if path and not path.lower().endswith(".csv"):
        raise UsageError(f"--csv writes a table, and {path} is not named so: give a name.csv.")


def _write_csv(path: str, rows: list[list[Any]]) -> None:
    """Write a table, whole. Raises WriteError."""
    from tinyalex.system.files import write_whole, writing

    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    with writing(Path(path), "--csv"):
        write_whole(Path(path), text.getvalue().encode(errors="surrogateescape"))


def do_features(arguments: argparse.Namespace) -> None:
    from tqdm import tqdm

    from tinyalex.data import open_data
    from tinyalex.data.dataset import Split
    from tinyalex.measure.features import All, Pictures, Request, extract
    from tinyalex.ranks.team import join
    from tinyalex.runs.weights import decoder_of, load_networks

    _check_order(arguments)
    if bool(arguments.images) == bool(arguments.data):
        raise UsageError("Give either pictures or --data.")
    (state,), (network,) = load_networks([arguments.source], team=join())
    decoder = decoder_of(state)
    split: Split = Pictures(arguments.images, decoder)
    classes: tuple[str, ...] = ()
    if arguments.data:
        dataset = open_data(
            arguments.data,
            decoder.size,
            0,
            hold_out=False,
            max_pixels=decoder.max_pixels,
            decoding=decoder.rule,
        )
        split, classes = All(dataset), dataset.classes
    layers = tuple(dict.fromkeys(arguments.layer.split(",")))
    request = Request(layers, arguments.pool, arguments.views, classes)
    with tqdm(total=len(split.labels), unit=" images", leave=False, disable=None) as bar:
        extract(
            network,
            split,
            request,
            Path(arguments.output),
            batch_size=arguments.batch_size,
            workers=arguments.workers,
            after_batch=bar.update,
        )
    print(f"{arguments.output}: {', '.join(layers)} of {len(split.labels):,} images")


def do_import(arguments: argparse.Namespace) -> None:
    from tinyalex import convert
    from tinyalex.reports.summary import summary

    state, notes = convert.read(arguments.files, arguments.arch, arguments.mean, arguments.classes)
    convert.save_run(state, arguments.output_dir)
    count = summary(state.network)["parameters"]
    print(f"{state.architecture}: {count:,} parameters, {len(state.classes)} classes")
    for note in notes:
        print(f"note: {note}")
    print(f"Next: tinyalex eval {arguments.output_dir} --data DATA")


def do_export(arguments: argparse.Namespace) -> None:
    from tinyalex import convert
    from tinyalex.runs.checkpoint import load_run

    _, state = load_run(arguments.source)
    for note in convert.write(state, Path(arguments.output)):
        print(note)
    print(arguments.output)


def do_summary(arguments: argparse.Namespace) -> None:
    from tinyalex.reports.summary import summary, table

    if arguments.compare or arguments.namesakes:
        from tinyalex.reports import differences
        from tinyalex.reports.namesakes import namesakes
        from tinyalex.system.backends import get_backend

        found = namesakes() if arguments.namesakes else differences.compared(get_backend("auto"))
        print(json.dumps(found) if arguments.json else differences.table(found))
        return
    architecture = get_architecture(arguments.arch)
    print(json.dumps(summary(architecture)) if arguments.json else table(architecture))


def do_gradcheck(arguments: argparse.Namespace) -> int:
    from tinyalex.judge.gradcheck import gradcheck
    from tinyalex.system.backends import get_backend

    results = gradcheck(get_architecture(arguments.arch), get_backend("reference"), arguments.seed)
    for result in results:
        print(
            f"{result.layer:<8} {result.kind:<22} {result.tensor:<8} {result.error:9.1e}  "
            f"{'ok' if result.ok else 'WRONG'}"
        )
    wrong = sum(not result.ok for result in results)
    print(f"{len(results)} gradients checked, {wrong} wrong")
    return 1 if wrong else 0


def do_compare(arguments: argparse.Namespace) -> None:
    from tinyalex.judge.compare import TOLERANCES, compare
    from tinyalex.system.backends import get_backend

    gpus, architecture = Config(gpus=arguments.gpus).devices, get_architecture(arguments.arch)
    check_towers(architecture, gpus)
    if arguments.trace and len(gpus) < 2:
        raise UsageError("--trace shows what two GPUs exchange: give --gpus 0,1, or 0,0 for one.")

    def trace(tensor: str, size: int, source: int, target: int) -> None:
        print(f"        tower {'ab'[source]} to {'ab'[target]}: {size:,} bytes, {tensor}")

    traced = {"trace": trace} if arguments.trace else {}
    ops = get_backend(arguments.backend, gpus, arguments.precision, **traced)
    print(
        f"{architecture.name}, {arguments.batch_size} images a step: the {ops.name} backend beside "
        f"the reference, {arguments.precision}, within {TOLERANCES[arguments.precision]:g}"
    )
    compare(
        architecture,
        ops,
        steps=arguments.steps,
        batch_size=arguments.batch_size,
        precision=arguments.precision,
        seed=arguments.seed,
        say=print,
    )
    print("No tensor differs by more than its tolerance.")


def do_show(arguments: argparse.Namespace) -> None:
    from tinyalex.figures import canvas, draw, run_figures
    from tinyalex.runs import checkpoint
    from tinyalex.runs.folder import RunFolder
    from tinyalex.runs.weights import load_networks, open_data_of

    if arguments.data and arguments.what in ("curves", "filters"):
        raise UsageError(
            f"--data has no effect on show {arguments.what}, which looks at no images."
        )
    folder = RunFolder(checkpoint.find(arguments.source).parent)
    path = folder.path / f"{arguments.what}.png"
    if arguments.output:
        path = Path(arguments.output)
        _check_replaceable(path, ".png")
    if arguments.what == "curves":
        if folder.metrics.exists() and (damage := folder.damage()):
            print(f"tinyalex: {printable(damage)}", file=sys.stderr)
        images = checkpoint.load_run(arguments.source)[1].validation_images
        figure = run_figures.curves(*draw.curves(folder, images))
    else:
        (state,), (network,) = load_networks([arguments.source])
        made = draw.origin(folder, state.progress)
        if arguments.what == "filters":
            config = from_mapping(state.config, Config(), "the checkpoint")
            figure = draw.filters(
                network, made, draw.initial_kernels(state.network, config, state.progress)
            )
        else:
            dataset = open_data_of([state], arguments.data)
            figure = getattr(draw, arguments.what)(network, dataset, arguments.workers, made)
    canvas.save(figure, path)
    print(printable(str(path)))


def _check_replaceable(path: Path, suffix: str) -> None:
    """Raise UsageError unless a file may be written there: over nothing but another of ours."""
    from tinyalex.figures.canvas import is_ours

    if path.suffix.lower() != suffix:
        raise UsageError(f"{path} would be no {suffix} file by its name: give a name{suffix}.")
    if path.exists() and not is_ours(path):
        raise UsageError(
            f"{path} is in the way: it is nothing that tinyalex drew. Give another --output."
        )


def do_report(arguments: argparse.Namespace) -> None:
    from tqdm import tqdm

    from tinyalex.figures.report import Trained, page
    from tinyalex.runs import checkpoint
    from tinyalex.runs.folder import RunFolder
    from tinyalex.runs.weights import load_networks, open_data_of
    from tinyalex.system.files import write_whole, writing

    file = checkpoint.find(arguments.source)
    path = Path(arguments.output or file.parent / "report.html")
    _check_replaceable(path, ".html")
    (state,), (network,) = load_networks([arguments.source])
    dataset = open_data_of([state], arguments.data)
    run = Trained(RunFolder(file.parent), file, state, network, dataset)
    with tqdm(total=run.images, unit=" images", leave=False, disable=None) as bar:
        text = page(run, arguments.workers, bar.update)
    with writing(path, "--output"):
        write_whole(path, text.encode())
    print(printable(str(path)))


def do_reproduce(arguments: argparse.Namespace) -> None:
    from tinyalex.reproduce import reproduce
    from tinyalex.reproduce.experiment import Request

    asked = ("arch", "epochs", "seeds", "backend", "quick", "layer", "workers")
    values = {name: getattr(arguments, name) for name in asked}
    folder, data = Path(arguments.output_dir), _absolute(arguments.data)
    request = Request(folder=folder, data=data, run=arguments.source, **values)
    reproduce(arguments.name, request)


def do_bench(arguments: argparse.Namespace) -> None:
    from tinyalex.bench.bench import bench, table

    asked = arguments.batch_size, arguments.rounds, arguments.against, arguments.ranks
    result = bench(arguments.arch, *asked)
    print(json.dumps(result) if arguments.json else table(result))


def do_data_pack(arguments: argparse.Namespace) -> None:
    from tinyalex.data.packing.pack import pack

    packed = pack(
        Path(arguments.source),
        Path(arguments.output),
        arguments.size,
        workers=arguments.workers,
        max_pixels=arguments.max_pixels,
        on_bad_image=arguments.on_bad_image,
        classes_at=arguments.classes_at,
    )
    if packed:
        fitting = [n for n, a in ARCHITECTURES.items() if a.data.image_size <= arguments.size]
        network = f" --arch {fitting[0]}" if fitting and "alexnet" not in fitting else ""
        print(f"Next: tinyalex train --data {printable(arguments.output)}{network}")


def do_data_check(arguments: argparse.Namespace) -> int:
    from tinyalex.data.checking.check import check

    against = Path(arguments.against) if arguments.against else None
    report = check(
        Path(arguments.source),
        against=against,
        workers=arguments.workers,
        max_pixels=arguments.max_pixels,
        classes_at=arguments.classes_at,
    )
    if arguments.json:
        print(json.dumps(dataclasses.asdict(report) | {"usable": report.usable}))
    else:
        print("\n".join(map(printable, report.lines())))
    return 0 if report.usable else DataError.exit_code


def do_doctor(arguments: argparse.Namespace) -> int:
    from tinyalex.system.doctor import report

    text, sound = report()
    print(text)
    return 0 if sound else 1
