"""The `tinyalex` command: its flags, and errors as one paragraph and an exit code."""

import argparse
import dataclasses
import itertools
import os
import re
import shlex
import signal
import stat
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, NoReturn, TextIO

from tinyalex.cli import commands
from tinyalex.errors import NO_MEMORY, TinyalexError, UsageError, WriteError, nearest, printable
from tinyalex.net.presets import ARCHITECTURES, Recipe
from tinyalex.ranks.launch import launched
from tinyalex.runs.config import ON_BAD_IMAGE, Config
from tinyalex.system.backends import BACKENDS, PRECISIONS
from tinyalex.system.version import __version__

RUN = "folder of a run, or an .npz file in it"
PICTURES = "picture, or folder, .zip or .tar of pictures"
RECIPE = tuple(field.name for field in dataclasses.fields(Recipe))
# What other programs call our commands, flags and values; or why there is no such flag.
ELSEWHERE = {
    word: meant
    for meant, words in {
        "train": "fit finetune fine-tune resume",
        "eval": "test validate val score accuracy",
        "predict": "classify infer inference detect",
        "show": "plot draw visualize visualise",
        "summary": "info describe model list",
        "data": "dataset check pack",
        "features": "embed extract",
        "export": "convert save",
        "import": "load",
        "doctor": "install",
        "--version": "version -v",
        "gpu": "cuda nvidia",
        "reference": "cpu numpy",
        "curves": "loss training",
        "--backend": "--device --cuda --accelerator",
        "--arch": "--model --network --net",
        "--lr": "--learning-rate --learning_rate --lr0",
        "--data": "--dir --root --folder --path --source --input",
        "--weights": "--pretrained --checkpoint --ckpt --finetune",
        "--resume": "--continue --restore",
        "--output-dir": "--save-dir --project --log-dir --logdir --name",
        "--early-stopping": "--patience --early-stop",
        "--precision": "--amp --fp16 --half --bf16",
        "--weight-decay": "--wd --decay",
        "--lr-scheduler": "--sched --scheduler",
        "--max-steps": "--steps --iterations --max-iter",
        "--quiet": "--silent -s",
        "--crops": "--tta --ten-crop",
        "--topk": "--top --top-k --top5 -k",
        "--json": "--format --out-format",
        "The folders of the data are the classes.": "--num-classes --num_classes --nc",
        "A network has one size of images: see tinyalex summary.": "--img-size --imgsz --size",
        "There is one, SGD with momentum.": "--optimizer --optim --opt",
        "Crops and flips are on; --arch mini+no-augmentation is without.": "--augment --aug",
        "A tenth is held out where there is no folder named val.": "--val-split --split --val",
        "Pictures stand without a flag.": "--image --images --img --file",
        "The folder of the run stands without a flag.": "--run",
    }.items()
    for word in words.split()
}


class Parser(argparse.ArgumentParser):
    """argparse, with the nearest known flag or command in its error.

    more: what stands below the help, line by line, and takes a moment to look up. known: what was
    understood of a command.
    """

    more: Callable[[], str] | None = None
    known = argparse.Namespace()

    def format_help(self) -> str:
        help = super().format_help()
        return help if self.more is None else f"{help}\n{self.more()}\n"

    def _print_message(self, message: str, file: Any = None) -> None:
        """Print help, and do not swallow what goes wrong in that, as argparse would."""
        (file or sys.stderr).write(message)

    def error(self, message: str) -> NoReturn:
        hint = ""
        if message.startswith("unrecognized arguments: "):
            unknown = shlex.split(message)[2:]
            hint = self._hint(unknown[0], self._option_string_actions)
            if unknown[0].partition("+")[0].lower() in ARCHITECTURES:
                hint = f" Did you mean '--arch {unknown[0].lower()}'?"
            elif os.path.isdir(unknown[0]) and not getattr(self.known, "data", None):
                hint = f" Did you mean '--data {unknown[0]}'?"
        if "invalid choice: '" in message:
            wrong, known = message.split("invalid choice: '")[1].split("' (choose from ")
            hint = self._hint(wrong, [name.strip("' )") for name in known.split(", ")])
        raise UsageError(f"{message}.{hint} See {self.prog} --help.")

    def _hint(self, word: str, known: Iterable[str]) -> str:
        """Guess at what was meant by a flag, a command or a value that there is not."""
        name = word.partition("=")[0]
        meant = ELSEWHERE.get(name.lower(), "")
        if meant.endswith("."):
            return f" {meant}"
        if meant in {*known, *self._option_string_actions}:
            return f" Did you mean {meant!r}?"
        if name == "--weights" or meant in ("--weights", "--resume", "--arch"):
            return " The folder of the run stands without a flag."
        return nearest(name, known)


Command = Callable[[str, str, Any], Parser]


def _whole(parser: Any, *flags: str, least: int = 1, **settings: Any) -> None:
    """Add a flag that takes whole numbers from `least` on."""

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"takes a whole number of {least} or more, not {text}")
        return value

    parser.add_argument(*flags, type=number, metavar="INT", **settings)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code: 0, or as `tinyalex.errors` says."""
    argv = sys.argv[1:] if argv is None else argv
    if launched().rank:  # the first one speaks
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    try:
        for before, word in itertools.pairwise(["tinyalex", *argv]):
            if not word or (word.startswith("--") and word.endswith("=")):
                where = f"The value of {word[:-1]}" if word else f"What follows {before}"
                raise UsageError(f"{where} is empty. Is a variable of the shell not set?")
            _check_readable(word)
        if argv[:1] == ["help"]:
            argv = [*argv[1:], "--help"]
        arguments, unknown = parser().parse_known_args(argv)
        if unknown:
            arguments.parser.known = arguments
            arguments.parser.error(f"unrecognized arguments: {shlex.join(unknown)}")
        if launched().size > 1:
            if not hasattr(arguments, "on_ranks"):
                command = arguments.parser.prog
                raise UsageError(f"{command} is for one process. Leave the launcher out.")
            _team().join()
        code = arguments.run(arguments)
        if launched().size > 1:
            _team().join().finish()
        sys.stdout.flush()
    except TinyalexError as error:
        return _told(str(error), error.exit_code, error.program)
    except MemoryError:
        return _told(NO_MEMORY, TinyalexError.exit_code)
    except KeyboardInterrupt:
        return _told("stopped", 128 + signal.SIGINT)
    except BrokenPipeError:  # the reader, `| head` say, has had enough
        _give_up(sys.stdout)
        return _told("", 128 + 13, tell=lambda text: None)  # SIGPIPE, which Windows does not name
    except OSError as error:
        if error.filename is not None:
            raise
        _give_up(sys.stdout)
        return _told(f"Cannot write the output: {error.strerror}.", WriteError.exit_code)
    return int(code or 0)


def _check_readable(word: str) -> None:
    """Raise UsageError for an address, or a pipe that a program might wait for for ever."""
    path = word.partition("=")[2] if word.startswith("--") else word
    if re.match(r"(https?|ftp|s3|gs|hf)://", path):
        raise UsageError(
            f"{path} is an address, and tinyalex reads files. Fetch it first (curl -LO ADDRESS), "
            "and give the name of the file."
        )
    with suppress(OSError, ValueError):
        if stat.S_ISFIFO(os.stat(path).st_mode) and not path.startswith("/dev/"):
            raise UsageError(f"{path} is a pipe, and not read. Give a file or a folder.")


def _team() -> Any:
    """Means by which ranks talk, imported where there are some."""
    from tinyalex.ranks import team

    return team


def _tell(text: str) -> None:
    """Print an error; where the terminal has gone, nothing."""
    try:
        print(f"tinyalex: {text}", file=sys.stderr)
        sys.stdout.flush()
    except OSError:
        _give_up(sys.stdout, sys.stderr)


def _told(text: str, code: int, program: str = "", tell: Callable[[str], None] = _tell) -> int:
    """The exit code, after saying why, once for all ranks."""
    lines = "\n".join(map(printable, (text, *program.splitlines())))
    if launched().size > 1:
        with suppress(UsageError):  # as all ranks meet it
            return int(_team().join().fail(lines, code, tell))
    if not launched().rank:
        tell(lines)
    return code


def _give_up(*streams: TextIO) -> None:
    """Let what was not written vanish: at its end Python would try again, and fail with 120."""
    for stream in streams:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def parser() -> Parser:
    """All commands and flags."""
    top = Parser(
        prog="tinyalex", description="AlexNet as it was in 2012: train it, read it, check it."
    )
    top.set_defaults(run=lambda arguments: top.print_help(), parser=top)
    top.add_argument("--version", action="version", version=f"tinyalex {__version__}")
    command = _commands(top, required=False)
    for add in (_train, _eval, _predict, _features, _summary, _gradcheck, _compare, _show, _report):
        add(command)
    for add in (_bench, _reproduce, _import, _export, _data):
        add(command)
    command("doctor", "what this machine has, and what to install", commands.do_doctor)
    return top


def _commands(parser: Parser, required: bool = True) -> Command:
    """Function that adds a command: its name, what it does in words, and what runs it."""
    subparsers = parser.add_subparsers(metavar="COMMAND", required=required, parser_class=Parser)

    def command(name: str, help: str, run: Any) -> Parser:
        sub: Parser = subparsers.add_parser(name, help=help, description=help)
        sub.set_defaults(run=run, parser=sub)
        return sub

    return command


def _train(command: Command) -> None:
    sub = command(
        "train", "train a network; without flags a small one on built-in images", commands.do_train
    )
    sub.add_argument(
        "-c", "--config", metavar="FILE", help="TOML file of settings; flags win over it"
    )
    sub.add_argument("--resume", metavar="RUN", help=f"continue: {RUN}")
    sub.add_argument("-q", "--quiet", action="store_true", help="print the last lines only")
    sub.set_defaults(on_ranks=True)
    for title, names in GROUPS.items():
        group = sub.add_argument_group(title)
        for name in names:
            _add_setting(group, name)


GROUPS = {
    "data": ("data", "classes_at", "on_bad_image", "max_pixels", "decoding", "workers"),
    "network": ("arch", "weights", "freeze"),
    "recipe": ("epochs", "max_steps", "early_stopping", *RECIPE[1:], "seed"),
    "hardware": ("backend", "gpus", "precision", "pieces", "parallel", "check_every"),
    "run": ("output_dir", "print_freq"),
}
"""The settings in the order in which --help has them."""


def _add_setting(group: Any, name: str) -> None:
    field = Config.__dataclass_fields__[name]
    extra, default = field.metadata, field.default
    if name in RECIPE:
        alexnet, mini = (getattr(ARCHITECTURES[a].recipe, name) for a in ("alexnet", "mini"))
        default = alexnet if alexnet == mini else f"alexnet {alexnet}, mini {mini}"
    group.add_argument(
        *([extra["short"]] if extra["short"] else []),
        "--" + name.replace("_", "-"),
        dest=name,
        type=extra["kind"],
        choices=extra["choices"],
        default=argparse.SUPPRESS,
        metavar=None if extra["choices"] else extra["kind"].__name__.upper(),
        help=extra["help"] + ("" if default is None else f" (default: {default})"),
    )


def _eval(command: Command) -> None:
    sub = command(
        "eval", "top-1 and top-5 error of one run, or of several averaged", commands.do_eval
    )
    sub.set_defaults(on_ranks=True)
    sub.add_argument("runs", metavar="RUN", nargs="+", help=RUN)
    sub.add_argument("--data", help="images to use (default: those of the training)")
    _add_classes_at(sub)
    _whole(
        sub,
        "--numbers-from",
        least=0,
        help="class folders are numbers that count the network's sorted classes from this one",
    )
    sub.add_argument("--crops", type=int, choices=(1, 10), default=1, help="views of each image")
    _whole(sub, "-b", "--batch-size", default=128, help="images at once")
    _add_workers(sub)
    sub.add_argument("--per-class", action="store_true", help="accuracy of each class, too")
    sub.add_argument("--csv", metavar="FILE", help="write the classes' accuracies to name.csv")
    sub.add_argument("--json", action="store_true", help="print JSON")


def _predict(command: Command) -> None:
    sub = command("predict", "what a run sees in pictures", commands.do_predict)
    sub.add_argument("source", metavar="RUN", help=RUN)
    sub.add_argument("images", metavar="IMAGE", nargs="+", help=PICTURES)
    _whole(sub, "--topk", default=5, help="classes to name (default: 5)")
    sub.add_argument("--crops", type=int, choices=(1, 10), default=1, help="views of each image")
    sub.add_argument("--csv", metavar="FILE", help="write the answers to name.csv, too")
    sub.add_argument("--json", action="store_true", help="print one JSON object a line")


def _features(command: Command) -> None:
    sub = command("features", "what a run's layers answer to pictures", commands.do_features)
    sub.set_defaults(on_ranks=True)
    sub.add_argument("source", metavar="RUN", help=RUN)
    sub.add_argument("images", metavar="IMAGE", nargs="*", help=PICTURES)
    sub.add_argument("--data", help="data set whose images to take, with their labels")
    sub.add_argument(
        "--layer",
        default="fc7",
        metavar="STR",
        help="rows of the network, with commas between; relu7 is fc7 after ReLU (default: fc7)",
    )
    sub.add_argument(
        "--pool", choices=("max", "mean"), help="over a map: one number for each channel"
    )
    sub.add_argument("--views", type=int, choices=(1, 10), default=1, help="averaged views")
    _whole(sub, "-b", "--batch-size", default=128, help="images at once")
    _whole(sub, "-j", "--workers", least=0, default=2, help="decoding threads")
    sub.add_argument(
        "-o", "--output", metavar="FILE", required=True, help="name.npz, name.npy or name.csv"
    )


def _import(command: Command) -> None:
    sub = command(
        "import", "weights from PyTorch, ONNX, Caffe or safetensors as a run", commands.do_import
    )
    sub.add_argument(
        "files",
        metavar="FILE",
        nargs="+",
        help="weights; with a .caffemodel also its .prototxt and mean.binaryproto",
    )
    sub.add_argument("--arch", metavar="STR", help="network, where the files do not say it")
    sub.add_argument("--mean", metavar="FILE", help="mean image: .binaryproto or .npy")
    sub.add_argument(
        "--classes",
        metavar="STR",
        help="names of the outputs: a text with one a line, a RUN, a data set, or ilsvrc2012",
    )
    sub.add_argument("-o", "--output-dir", metavar="DIR", required=True, help="folder of the run")


def _export(command: Command) -> None:
    sub = command(
        "export", "a run's weights for PyTorch, ONNX, Caffe or safetensors", commands.do_export
    )
    sub.add_argument("source", metavar="RUN", help=RUN)
    sub.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        required=True,
        help="name.onnx, .safetensors, .pth, .caffemodel; or a folder, for a run of weights alone",
    )


def _summary(command: Command) -> None:
    sub = command(
        "summary", "layers, parameters, multiply-adds and memory of a network", commands.do_summary
    )
    _add_arch(sub, "alexnet")
    sub.add_argument(
        "--compare", action="store_true", help="how the networks called AlexNet differ, and why"
    )
    sub.add_argument(
        "--namesakes", action="store_true", help="what other programs have under that name"
    )
    sub.add_argument("--json", action="store_true", help="print JSON")


def _gradcheck(command: Command) -> None:
    sub = command(
        "gradcheck", "check every gradient of a network numerically", commands.do_gradcheck
    )
    _add_arch(sub, "mini")
    _whole(sub, "--seed", least=0, default=0, help="seed of the numbers tried")


def _compare(command: Command) -> None:
    sub = command("compare", "hold a backend against the reference, op by op", commands.do_compare)
    sub.add_argument("--backend", default="gpu", choices=BACKENDS, help="which (default: gpu)")
    _add_arch(sub, "mini")
    _whole(sub, "--steps", default=1, help="training steps")
    _whole(sub, "-b", "--batch-size", default=2, help="images a step")
    sub.add_argument("--gpus", default="0", metavar="STR", help="one GPU, or one for each tower")
    sub.add_argument(
        "--precision", default="fp32", choices=PRECISIONS, help="precision of matrix products"
    )
    sub.add_argument("--trace", action="store_true", help="print what two GPUs exchange")
    _whole(sub, "--seed", least=0, default=0, help="seed of images and weights")


def _show(command: Command) -> None:
    sub = command("show", "draw pictures of a run", commands.do_show)
    what = ("curves", "filters", "predictions", "neighbors", "confusion")
    sub.add_argument("what", choices=what, help="which picture")
    sub.add_argument("source", metavar="RUN", help=RUN)
    sub.add_argument("--data", help="images to use (default: those of the training)")
    _add_workers(sub)
    sub.add_argument("-o", "--output", metavar="FILE", help="PNG to write (default: in the run)")


def _report(command: Command) -> None:
    sub = command("report", "all about a run on one HTML page", commands.do_report)
    sub.add_argument("source", metavar="RUN", help=RUN)
    sub.add_argument("--data", help="images to use (default: those of the training)")
    _add_workers(sub)
    sub.add_argument("-o", "--output", metavar="FILE", help="page to write (default: in the run)")


def _bench(command: Command) -> None:
    sub = command("bench", "speed per layer and of a whole training step", commands.do_bench)
    _add_arch(sub, "alexnet")
    _whole(sub, "-b", "--batch-size", default=32, help="images a step")
    sub.add_argument("--against", choices=("torch",), help="measure this too, in turn")
    _whole(sub, "--ranks", default=1, help="measure so many processes beside one, too")
    _whole(sub, "--rounds", default=5, help="measurements of each")
    sub.add_argument("--json", action="store_true", help="print JSON")


def _reproduce(command: Command) -> None:
    sub = command(
        "reproduce",
        "the paper's experiments again, beside the paper's numbers",
        commands.do_reproduce,
    )
    sub.set_defaults(on_ranks=True)
    sub.more = _experiments
    sub.add_argument("name", metavar="NAME", help="one of those below, or all, for a page of them")
    sub.add_argument("--data", help="images to train on (default: the built-in ones)")
    sub.add_argument("--arch", metavar="STR", help="network (default: the experiment's own)")
    _whole(sub, "--epochs", help="epochs of each run")
    _whole(sub, "--seeds", help="runs of each network")
    sub.add_argument(
        "--run",
        dest="source",
        metavar="RUN",
        help=f"a trained run to look at (default: train one): {RUN}",
    )
    sub.add_argument("--layer", metavar="STR", help="look at this convolution (default: at each)")
    sub.add_argument("--backend", default="auto", choices=BACKENDS, help="what computes")
    _add_workers(sub)
    sub.add_argument("--quick", action="store_true", help="a size that ends within 3 minutes")
    sub.add_argument(
        "-o", "--output-dir", default="runs/reproduce", help="folder (default: runs/reproduce)"
    )


def _add_arch(parser: Parser, default: str) -> None:
    parser.add_argument(
        "--arch",
        default=default,
        metavar="STR",
        help=f"network ({', '.join(ARCHITECTURES)}; mini+tanh is mini with a change), "
        f"default {default}",
    )


def _add_workers(parser: Parser) -> None:
    help = f"decoding threads (default: {Config.workers})"
    _whole(parser, "-j", "--workers", least=0, default=Config.workers, help=help)


def _data(command: Command) -> None:
    nested = _commands(
        command("data", "pack images for speed, or explain what is wrong with them", None)
    )
    sub = nested(
        "pack",
        "decode, crop and resize all images once, into one file",
        commands.do_data_pack,
    )
    sub.add_argument("source", metavar="SRC", help="folder, .zip or .tar of images")
    sub.add_argument("-o", "--output", metavar="DIR", required=True, help="folder of the pack")
    _whole(sub, "--size", default=256, help="pixels (default: 256)")
    _add_classes_at(sub)
    _add_decoding(sub)
    sub.add_argument(
        "--on-bad-image",
        default="error",
        choices=ON_BAD_IMAGE,
        help="end, or leave the image out (default: error)",
    )

    sub = nested(
        "check",
        "say how a data set is laid out, what is wrong with it, and what to do",
        commands.do_data_check,
    )
    sub.add_argument("source", metavar="SRC", help="folder, .zip or .tar of images, or a pack")
    sub.add_argument("--against", metavar="DIR", help="pack to compare the images' SHA-256 with")
    _add_classes_at(sub)
    _add_decoding(sub)
    sub.add_argument("--json", action="store_true", help="print JSON")


def _add_classes_at(parser: Parser) -> None:
    field = Config.__dataclass_fields__["classes_at"]
    _whole(parser, "--classes-at", help=field.metadata["help"])


def _add_decoding(parser: Parser) -> None:
    _whole(parser, "-j", "--workers", default=os.cpu_count() or 1, help="threads (default: all)")
    _whole(parser, "--max-pixels", help="refuse larger pictures (default: 64 million)")


def _experiments() -> str:
    from tinyalex.reproduce import listing

    return f"experiments:\n{listing()}"
