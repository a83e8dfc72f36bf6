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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from tinyalex import __version__
from tinyalex.architectures import ARCHITECTURES, check_towers, get_architecture
from tinyalex.backend import BACKENDS, PRECISIONS
from tinyalex.config import Config, from_file, from_mapping, gpu_list, gpu_numbers
from tinyalex.errors import DataError, TinyalexError, UsageError, nearest

RUN = "folder of a run, or an .npz file in it"


class Parser(argparse.ArgumentParser):
    """argparse, with the nearest known flag or command in its error.

    more: what stands below the help, line by line, and takes a moment to look up.
    """

    more: Callable[[], str] | None = None

    def format_help(self) -> str:
        help = super().format_help()
        return help if self.more is None else f"{help}\n{self.more()}\n"

    def error(self, message: str) -> NoReturn:
        hint = ""
        if message.startswith("unrecognized arguments: "):
            hint = nearest(message.split()[2], self._option_string_actions)
        if "invalid choice: '" in message:
            wrong, known = message.split("invalid choice: '")[1].split("' (choose from ")
            hint = nearest(wrong, [name.strip("' )") for name in known.split(", ")])
        raise UsageError(f"{message}.{hint} See {self.prog} --help.")


def whole(least: int) -> Callable[[str], int]:
    """An argparse type: whole numbers from `least` on."""

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"takes a whole number of {least} or more, not {text}")
        return value

    return number


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit code: 0, or as `tinyalex.errors` says."""
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
        return 128 + 13  # SIGPIPE, which Windows does not name
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
        "-b", "--batch-size", type=whole(1), default=128, metavar="INT", help="images at once"
    )
    sub.add_argument(
        "-j", "--workers", type=whole(0), default=2, metavar="INT", help="decoding threads"
    )
    sub.add_argument("--json", action="store_true", help="print JSON")

    sub = command("predict", "what a run sees in pictures", _predict)
    sub.add_argument("source", metavar="RUN", help=RUN)
    sub.add_argument("images", metavar="IMAGE", nargs="+", help="picture file")
    sub.add_argument(
        "--topk", type=whole(1), default=5, metavar="INT", help="classes to name (default: 5)"
    )
    sub.add_argument("--crops", type=int, choices=(1, 10), default=1, help="views an image")
    sub.add_argument("--json", action="store_true", help="print one JSON object a line")

    sub = command("summary", "layers, parameters, multiply-adds and memory of a network", _summary)
    _add_arch(sub, "alexnet")
    sub.add_argument(
        "--compare", action="store_true", help="how the networks called AlexNet differ, and why"
    )
    sub.add_argument("--json", action="store_true", help="print JSON")

    sub = command("gradcheck", "check every gradient of a network numerically", _gradcheck)
    _add_arch(sub, "mini")
    sub.add_argument("--seed", type=whole(0), default=0, metavar="INT", help="of the numbers tried")

    sub = command("compare", "hold a backend against the reference, op by op", _compare)
    sub.add_argument("--backend", default="gpu", choices=BACKENDS, help="which (default: gpu)")
    _add_arch(sub, "mini")
    sub.add_argument("--steps", type=whole(1), default=1, metavar="INT", help="training steps")
    sub.add_argument(
        "-b", "--batch-size", type=whole(1), default=2, metavar="INT", help="images a step"
    )
    sub.add_argument("--gpus", default="0", metavar="STR", help="one GPU, or one for each tower")
    sub.add_argument("--precision", default="fp32", choices=PRECISIONS, help="of its products")
    sub.add_argument("--trace", action="store_true", help="print what two GPUs exchange")
    sub.add_argument(
        "--seed", type=whole(0), default=0, metavar="INT", help="of images and weights"
    )

    sub = command("show", "draw pictures of a run", _show)
    what = ("curves", "filters", "predictions", "neighbors", "confusion")
    sub.add_argument("what", choices=what, help="which picture")
    sub.add_argument("source", metavar="RUN", help=RUN)
    sub.add_argument("--data", help="images to use (default: those of the training)")
    sub.add_argument("-o", "--output", metavar="FILE", help="PNG to write (default: in the run)")

    sub = command("bench", "speed per layer and of a whole training step", _bench)
    _add_arch(sub, "alexnet")
    sub.add_argument(
        "-b", "--batch-size", type=whole(1), default=32, metavar="INT", help="images a step"
    )
    sub.add_argument("--against", choices=("torch",), help="measure this too, in turn")
    sub.add_argument(
        "--rounds", type=whole(1), default=5, metavar="INT", help="measurements of each"
    )
    sub.add_argument("--json", action="store_true", help="print JSON")

    sub = command(
        "reproduce", "the paper's experiments again, beside the paper's numbers", _reproduce
    )
    sub.more = _experiments
    sub.add_argument("name", metavar="NAME", help="one of those below, or all, for a page of them")
    sub.add_argument("--data", help="images to train on (default: the built-in ones)")
    sub.add_argument("--arch", metavar="STR", help="network (default: the experiment's own)")
    sub.add_argument("--epochs", type=whole(1), metavar="INT", help="of each run")
    sub.add_argument("--seeds", type=whole(1), metavar="INT", help="runs of each network")
    sub.add_argument(
        "--run",
        dest="source",
        metavar="RUN",
        help=f"a trained run to look at (default: train one): {RUN}",
    )
    sub.add_argument("--layer", metavar="STR", help="look at this convolution (default: at each)")
    sub.add_argument("--backend", default="auto", choices=BACKENDS, help="who computes")
    sub.add_argument("--quick", action="store_true", help="a size that ends within 3 minutes")
    sub.add_argument(
        "-o", "--output-dir", default="runs/reproduce", help="folder (default: runs/reproduce)"
    )

    _add_data(command("data", "pack images for speed, or explain what is wrong with them", None))

    command("doctor", "what this machine has, and what to install", _doctor)
    return top


def _add_arch(parser: Parser, default: str) -> None:
    parser.add_argument(
        "--arch",
        default=default,
        metavar="STR",
        help=f"network ({', '.join(ARCHITECTURES)}; mini+tanh is mini with a change), "
        f"default {default}",
    )


def _add_data(parser: Parser) -> None:
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    cores = os.cpu_count() or 1
    help = "decode, crop and resize all images once, into one file that is mapped"
    sub: Parser = commands.add_parser("pack", help=help, description=help)
    sub.set_defaults(run=_data_pack, parser=sub)
    sub.add_argument("source", metavar="SRC", help="folder, .zip or .tar of images")
    sub.add_argument("-o", "--output", metavar="DIR", required=True, help="folder of the pack")
    sub.add_argument(
        "--size", type=whole(1), default=256, metavar="INT", help="pixels (default: 256)"
    )
    sub.add_argument(
        "-j",
        "--workers",
        type=whole(1),
        default=cores,
        metavar="INT",
        help="threads (default: all)",
    )
    sub.add_argument("--max-pixels", type=whole(1), metavar="INT", help="refuse larger pictures")
    sub.add_argument(
        "--on-bad-image",
        default="error",
        choices=("error", "skip"),
        help="end, or leave the image out (default: error)",
    )

    help = "say how a data set is laid out, what is wrong with it, and what to do"
    sub = commands.add_parser("check", help=help, description=help)
    sub.set_defaults(run=_data_check, parser=sub)
    sub.add_argument("source", metavar="SRC", help="folder, .zip or .tar of images, or a pack")
    sub.add_argument("--against", metavar="DIR", help="pack to compare the images' SHA-256 with")
    sub.add_argument(
        "-j",
        "--workers",
        type=whole(1),
        default=cores,
        metavar="INT",
        help="threads (default: all)",
    )
    sub.add_argument("--json", action="store_true", help="print JSON")


def _train(arguments: argparse.Namespace) -> None:
    from tinyalex import checkpoint
    from tinyalex.train import Trainer

    config, resumed = Config(), None
    if arguments.resume:
        if "weights" in arguments:
            raise UsageError(
                "--resume goes on with a run's own weights; --weights starts a new run. Give one."
            )
        path = checkpoint.find(arguments.resume, "last.npz", "best.npz")
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

    if arguments.compare:
        from tinyalex import differences
        from tinyalex.backend import get_backend

        found = differences.compared(get_backend("auto"))
        print(json.dumps(found) if arguments.json else differences.table(found))
        return
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


def _compare(arguments: argparse.Namespace) -> None:
    from tinyalex.backend import get_backend
    from tinyalex.compare import TOLERANCES, compare

    if not gpu_list(arguments.gpus):
        raise UsageError(f"--gpus takes one number, or two as in 0,1; not {arguments.gpus!r}.")
    gpus, architecture = gpu_numbers(arguments.gpus), get_architecture(arguments.arch)
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


def _show(arguments: argparse.Namespace) -> None:
    from tinyalex import checkpoint, pictures
    from tinyalex.run import RunFolder
    from tinyalex.trained import load_networks, open_data_of

    folder = RunFolder(checkpoint.find(arguments.source, "best.npz", "last.npz").parent)
    path = Path(arguments.output) if arguments.output else folder.path / f"{arguments.what}.png"
    if arguments.what == "curves":
        pictures.curves(folder, path)
    else:
        checkpoints, networks = load_networks([arguments.source])
        if arguments.what == "filters":
            pictures.filters(networks[0], path)
        else:
            draw = getattr(pictures, arguments.what)
            draw(networks[0], open_data_of(checkpoints[0], arguments.data), path)
    print(path)


def _reproduce(arguments: argparse.Namespace) -> None:
    from tinyalex.reproduce import reproduce
    from tinyalex.reproduce.experiment import Request

    asked = ("data", "arch", "epochs", "seeds", "backend", "quick", "layer")
    values = {name: getattr(arguments, name) for name in asked}
    request = Request(folder=Path(arguments.output_dir), run=arguments.source, **values)
    reproduce(arguments.name, request)


def _experiments() -> str:
    from tinyalex.reproduce import listing

    return f"experiments:\n{listing()}"


def _bench(arguments: argparse.Namespace) -> None:
    from tinyalex.bench import bench, table

    found = bench(arguments.arch, arguments.batch_size, arguments.rounds, arguments.against)
    print(json.dumps(found) if arguments.json else table(found))


def _data_pack(arguments: argparse.Namespace) -> None:
    from tinyalex.data.decode import MAX_PIXELS
    from tinyalex.data.pack import pack

    max_pixels = MAX_PIXELS if arguments.max_pixels is None else arguments.max_pixels
    pack(
        Path(arguments.source),
        Path(arguments.output),
        arguments.size,
        workers=arguments.workers,
        max_pixels=max_pixels,
        on_bad_image=arguments.on_bad_image,
    )


def _data_check(arguments: argparse.Namespace) -> int:
    from tinyalex.data.check import check

    against = Path(arguments.against) if arguments.against else None
    report = check(Path(arguments.source), against=against, workers=arguments.workers)
    if arguments.json:
        print(json.dumps(dataclasses.asdict(report) | {"usable": report.usable}))
    else:
        print("\n".join(report.lines()))
    return 0 if report.usable else DataError.exit_code


def _doctor(arguments: argparse.Namespace) -> int:
    from tinyalex.doctor import report

    text, sound = report()
    print(text)
    return 0 if sound else 1
