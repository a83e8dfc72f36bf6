"""The `tinyalex` command: flags to calls, errors to one paragraph and an exit code.

Each command imports what it needs when it runs, so that --help answers at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from tinyalex import __version__
from tinyalex.architectures import ARCHITECTURES, get_architecture
from tinyalex.config import Config, from_file, from_mapping
from tinyalex.errors import DataError, TinyalexError, UsageError, nearest

RUN = "folder of a run, or an .npz file in it"


class Parser(argparse.ArgumentParser):
    """argparse, with the nearest known flag or command in its error."""

    def error(self, message: str) -> NoReturn:
        hint = ""
        if message.startswith("unrecognized arguments: "):
            hint = nearest(message.split()[2], self._option_string_actions)
        if "invalid choice: '" in message:
            wrong, known = message.split("invalid choice: '")[1].split("' (choose from ")
            hint = nearest(wrong, [name.strip("' )") for name in known.split(", ")])
        raise UsageError(f"{message}.{hint} See {self.prog} --help.")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit code (DESIGN: 0 ok, 1 to 6, 130, 143)."""
    try:
        arguments, unknown = parser().parse_known_args(argv)
        if unknown:
            arguments.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
        code = arguments.run(arguments)
        sys.stdout.flush()
    except TinyalexError as error:
        print(f"tinyalex: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("tinyalex: stopped", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader, `| head` say, has had enough. Nothing may be flushed into the pipe any more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return int(code or 0)


def parser() -> Parser:
    """All commands and flags."""
    top = Parser(
        prog="tinyalex", description="AlexNet as it was in 2012: train it, read it, check it."
    )
    top.add_argument("--version", action="version", version=f"tinyalex {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)

    def command(name: str, help: str, run: Any) -> Parser:
        sub: Parser = commands.add_parser(name, help=help, description=help)
        sub.set_defaults(run=run, parser=sub)
        return sub

    sub = command("train", "train a network; without flags a small one on built-in images", _train)
    sub.add_argument(
        "-c", "--config", metavar="FILE", help="TOML file of settings; flags win over it"
    )
    sub.add_argument("--resume", metavar="RUN", help=f"continue: {RUN}")
    for field in dataclasses.fields(Config):
        extra = field.metadata
        flags = [*([extra["short"]] if extra["short"] else []), "--" + field.name.replace("_", "-")]
        default = "" if field.default is None else f" (default: {field.default})"
        sub.add_argument(
            *flags,
            dest=field.name,
            type=extra["kind"],
            choices=extra["choices"],
            default=argparse.SUPPRESS,
            metavar=None if extra["choices"] else extra["kind"].__name__.upper(),
            help=extra["help"] + default,
        )

    sub = command("eval", "top-1 and top-5 error of one run, or of several averaged", _eval)
    sub.add_argument("runs", metavar="RUN", nargs="+", help=RUN)
    sub.add_argument("--data", help="images to use (default: those of the training)")
    sub.add_argument("--crops", type=int, choices=(1, 10), default=1, help="views an image")
    sub.add_argument(
        "-b", "--batch-size", type=int, default=128, metavar="INT", help="images at once"
    )
    sub.add_argument("-j", "--workers", type=int, default=2, metavar="INT", help="decoding threads")
    sub.add_argument("--json", action="store_true", help="print JSON")

    sub = command("predict", "what a run sees in pictures", _predict)
    sub.add_argument("source", metavar="RUN", help=RUN)
    sub.add_argument("images", metavar="IMAGE", nargs="+", help="picture file")
    sub.add_argument(
        "--topk", type=int, default=5, metavar="INT", help="classes to name (default: 5)"
    )
    sub.add_argument("--crops", type=int, choices=(1, 10), default=1, help="views an image")
    sub.add_argument("--json", action="store_true", help="print one JSON object a line")

    sub = command("summary", "layers, parameters, multiply-adds and memory of a network", _summary)
    sub.add_argument("--arch", default="alexnet", choices=tuple(ARCHITECTURES), help="network")
    sub.add_argument("--json", action="store_true", help="print JSON")

    sub = command("gradcheck", "check every gradient of a network numerically", _gradcheck)
    sub.add_argument("--arch", default="mini", choices=tuple(ARCHITECTURES), help="network")
    sub.add_argument("--seed", type=int, default=0, metavar="INT", help="of the numbers tried")

    sub = command("show", "draw pictures of a run", _show)
    sub.add_argument("what", choices=("curves", "filters", "predictions"), help="which picture")
    sub.add_argument("source", metavar="RUN", help=RUN)
    sub.add_argument("--data", help="images to use (default: those of the training)")
    sub.add_argument("-o", "--output", metavar="FILE", help="PNG to write (default: in the run)")

    sub = command("bench", "speed per layer and of a whole training step", _bench)
    sub.add_argument("--arch", default="alexnet", choices=tuple(ARCHITECTURES), help="network")
    sub.add_argument(
        "-b", "--batch-size", type=int, default=32, metavar="INT", help="images a step"
    )
    sub.add_argument("--against", choices=("torch",), help="measure this too, in turn")
    sub.add_argument("--rounds", type=int, default=5, metavar="INT", help="measurements of each")
    sub.add_argument("--json", action="store_true", help="print JSON")

    command("doctor", "what this machine has, and what to install", _doctor)
    return top


def _train(arguments: argparse.Namespace) -> None:
    from tinyalex import checkpoint
    from tinyalex.train import Trainer

    config, resumed = Config(), None
    if arguments.resume:
        path = checkpoint.find(arguments.resume, "last.npz")
        resumed = path, checkpoint.load(path)
        saved = {name: value for name, value in resumed[1].config.items() if name != "output_dir"}
        config = from_mapping(saved, config, str(path))
    if arguments.config:
        config = from_file(Path(arguments.config), config)
    flags = {f.name for f in dataclasses.fields(Config)} & vars(arguments).keys()
    config = from_mapping(
        {name: getattr(arguments, name) for name in flags}, config, "the command line"
    )
    Trainer(config, resumed).run()


def _eval(arguments: argparse.Namespace) -> None:
    from tinyalex.evaluate import evaluate, interval
    from tinyalex.trained import load_networks, open_data_of

    checkpoints, networks = load_networks(arguments.runs)
    dataset = open_data_of(checkpoints[0], arguments.data)
    split = dataset.train if dataset.val is None else dataset.val
    scores = evaluate(
        networks, split, arguments.batch_size, crops=arguments.crops, workers=arguments.workers
    )
    found = {
        "images": scores.images,
        "crops": arguments.crops,
        "networks": len(networks),
        "loss": scores.loss,
        "top1_error": scores.top1_error,
        "top1_interval": interval(scores.top1_error, scores.images),
        "top5_error": scores.top5_error,
        "top5_interval": interval(scores.top5_error, scores.images),
    }
    if arguments.json:
        print(json.dumps(found))
        return
    which = "validation" if dataset.val is not None else "all"
    views = "1 view" if arguments.crops == 1 else "10 views"
    print(f"{dataset.name}: {scores.images:,} {which} images, {views}, {len(networks)} network(s)")
    for note in dataset.notes:
        print(f"note: {note}")
    print(f"loss         {scores.loss:.4f}")
    for top in ("top1", "top5"):
        low, high = found[f"{top}_interval"]
        print(
            f"top-{top[3]} error  {100 * found[f'{top}_error']:.2f} %  "
            f"(95 % interval {100 * low:.2f} to {100 * high:.2f} %)"
        )


def _predict(arguments: argparse.Namespace) -> int:
    import numpy as np

    from tinyalex.data.decode import decode
    from tinyalex.evaluate import probabilities
    from tinyalex.trained import load_networks

    checkpoints, networks = load_networks([arguments.source])
    titles = checkpoints[0].titles
    size = networks[0].architecture.data.image_size
    failed = 0
    for path in arguments.images:
        try:
            image = decode(_read(path), size, path)
        except DataError as error:  # the others may still be answered; the exit code tells
            print(f"tinyalex: {error}", file=sys.stderr)
            failed = error.exit_code
            continue
        probs = probabilities(networks, image[None], arguments.crops)[0]
        best = np.argsort(-probs, kind="stable")[: arguments.topk]
        answers = [{"class": titles[i], "probability": round(float(probs[i]), 6)} for i in best]
        if arguments.json:
            print(json.dumps({"image": path, "predictions": answers}))
        else:
            print(path)
            for answer in answers:
                print(f"  {100 * answer['probability']:6.2f} %  {answer['class']}")
    return failed


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"Cannot read the picture {path}: {error.strerror}.") from None


def _summary(arguments: argparse.Namespace) -> None:
    from tinyalex.summary import summary, table

    architecture = get_architecture(arguments.arch)
    print(json.dumps(summary(architecture)) if arguments.json else table(architecture))


def _gradcheck(arguments: argparse.Namespace) -> int:
    from tinyalex.backend import get_backend
    from tinyalex.gradcheck import gradcheck

    results = gradcheck(get_architecture(arguments.arch), get_backend("reference"), arguments.seed)
    for result in results:
        print(
            f"{result.layer:<8} {result.kind:<22} {result.tensor:<8} {result.error:9.1e}  "
            f"{'ok' if result.ok else 'WRONG'}"
        )
    wrong = sum(not result.ok for result in results)
    print(f"{len(results)} gradients checked, {wrong} wrong")
    return 1 if wrong else 0


def _show(arguments: argparse.Namespace) -> None:
    from tinyalex import checkpoint, pictures
    from tinyalex.run import RunFolder
    from tinyalex.trained import load_networks, open_data_of

    folder = RunFolder(checkpoint.find(arguments.source, "best.npz").parent)
    path = Path(arguments.output) if arguments.output else folder.path / f"{arguments.what}.png"
    if arguments.what == "curves":
        pictures.curves(folder, path)
    else:
        checkpoints, networks = load_networks([arguments.source])
        if arguments.what == "filters":
            pictures.filters(networks[0], path)
        else:
            pictures.predictions(networks[0], open_data_of(checkpoints[0], arguments.data), path)
    print(path)


def _bench(arguments: argparse.Namespace) -> None:
    from tinyalex.bench import bench, table

    found = bench(arguments.arch, arguments.batch_size, arguments.rounds, arguments.against)
    print(json.dumps(found) if arguments.json else table(found))


def _doctor(arguments: argparse.Namespace) -> int:
    from tinyalex.doctor import report

    text, sound = report()
    print(text)
    return 0 if sound else 1
