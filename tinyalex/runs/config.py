"""The settings of a training run: one dataclass, from which flags and config files follow.

Defaults < the settings of a resumed run < a TOML file < flags. The result is saved in the run's
folder as config.toml, which is such a file.
"""

import json
import re
import sys
import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

from tinyalex.errors import UsageError, nearest
from tinyalex.net.presets import ARCHITECTURES, Architecture, Recipe, get_architecture
from tinyalex.net.schedule import POLICIES
from tinyalex.system.backends import BACKENDS, PRECISIONS

ON_BAD_IMAGE = ("error", "skip")
DECODING = 2  # `RULE` of data.decode, which is not imported here as it takes Pillow


class Rule(NamedTuple):
    """Values that a setting takes: in words, and as a test."""

    text: str
    holds: Callable[[Any], bool]


POSITIVE = Rule("a number above zero", lambda value: 0 < value <= sys.float_info.max)
NOT_NEGATIVE = Rule("a number that is zero or more", lambda value: 0 <= value <= sys.float_info.max)
LENGTH = Rule("a number of .01 or more", lambda value: 0.01 <= value <= sys.float_info.max)
FRACTION = Rule("a number from 0 up to, not including, 1", lambda value: 0 <= value < 1)
DECODING_RULE = Rule("1 or 2", lambda value: value in (1, DECODING))
GPUS = Rule(
    "one number of a GPU, or two with a comma between: 0 or 0,1",
    lambda value: re.fullmatch(r"\d+(,\d+)?", value) is not None,
)
NAMES = {int: "a whole number", float: "a number", str: "a text"}


def setting(
    default: Any,
    help: str,
    *,
    kind: type = str,
    short: str | None = None,
    choices: Collection[str] | None = None,
    rule: Rule | None = None,
) -> Any:
    """A field of Config, with what the command line needs to know of it."""
    extra = {"help": help, "kind": kind, "short": short, "choices": choices, "rule": rule}
    return field(default=default, metadata=extra)


def whole(help: str, default: int | None = None, *, short: str | None = None) -> Any:
    """A setting that is a whole number above zero."""
    return setting(default, help, kind=int, short=short, rule=POSITIVE)


@dataclass(frozen=True)
class Config:
    """Settings of a run. None means the architecture's own recipe, or none."""

    data: str | None = setting(None, "folder, .zip or .tar of images (default: built-in images)")
    arch: str | None = setting(
        None, f"network: {', '.join(ARCHITECTURES)} (default: alexnet; on built-in images mini)"
    )
    weights: str | None = setting(
        None, "start from this run's weights; the last layer is drawn anew for other classes"
    )
    freeze: str | None = setting(None, "train only what lies above this layer, as conv5")
    backend: str = setting("auto", "what computes; auto: the GPU if it answers", choices=BACKENDS)
    gpus: str = setting("0", "number of the GPU, or of one GPU for each tower: 0,1", rule=GPUS)
    precision: str = setting("fp32", "precision of matrix products", choices=PRECISIONS)
    pieces: int | None = whole(
        "pieces of a batch that are computed by themselves; as many ranks, or a half, a quarter "
        "and so on of that, or one, give the same bits (default: the number of ranks)"
    )
    parallel: str | None = setting(
        None, "what ranks have whole (default: as sends less)", choices=("data", "hybrid")
    )
    batch_size: int | None = whole("images a step, of all ranks; fewer for few data", short="-b")
    epochs: int | None = whole("times through the data")
    max_steps: int | None = whole("stop after so many steps in all")
    early_stopping: int | None = whole("end after so many epochs without a better validation error")
    lr: float | None = setting(None, "learning rate", kind=float, rule=POSITIVE)
    momentum: float | None = setting(None, "momentum", kind=float, rule=FRACTION)
    weight_decay: float | None = setting(
        None, "decay of weights that have none of their own", kind=float, rule=NOT_NEGATIVE
    )
    bias_lr_multiplier: float | None = setting(
        None, "learning rate of biases over that of weights", kind=float, rule=NOT_NEGATIVE
    )
    lr_scheduler: str | None = setting(None, "how the learning rate falls", choices=POLICIES)
    lr_step_size: float | None = setting(
        None,
        "epochs between falls (step), or a third of all (2012); as long a part of --epochs",
        kind=float,
        rule=LENGTH,
    )
    lr_gamma: float | None = setting(
        None, "factor on the rate at a fall", kind=float, rule=POSITIVE
    )
    lr_patience: int | None = whole("epochs without a better error before a fall (plateau)")
    warmup_epochs: int | None = setting(
        None, "epochs in which the rate rises to --lr", kind=int, rule=NOT_NEGATIVE
    )
    seed: int = setting(0, "seed of all random numbers", kind=int, rule=NOT_NEGATIVE)
    workers: int = setting(
        2, "threads that decode images ahead", kind=int, short="-j", rule=NOT_NEGATIVE
    )
    check_every: int | None = whole("steps between comparisons with the reference (default: none)")
    max_pixels: int | None = whole("refuse pictures of more pixels (default: 64 million)")
    on_bad_image: str = setting(
        "error", "stop at a picture that cannot be read, or leave it out", choices=ON_BAD_IMAGE
    )
    classes_at: int | None = whole(
        "which folder in an image's path is its class, from 1 (default: by their names)"
    )
    decoding: int = setting(
        DECODING,
        "rule by which JPEGs are read; 1, of runs before, reads large ones whole",
        kind=int,
        rule=DECODING_RULE,
    )
    print_freq: int = whole("steps between log lines", 50, short="-p")
    output_dir: str | None = setting(None, "folder of the run (default: runs/<time>-<arch>)")

    def __post_init__(self) -> None:
        for f in fields(self):
            value, extra = getattr(self, f.name), f.metadata
            if value is None:
                continue
            flag = "--" + f.name.replace("_", "-")
            kinds = (int, float) if extra["kind"] is float else extra["kind"]
            if not isinstance(value, kinds) or isinstance(value, bool):  # which is an int, too
                raise UsageError(f"{flag} takes {NAMES[extra['kind']]}, not {value!r}.")
            if "\0" in str(value):
                raise UsageError(f"{flag} cannot be {value!r}: no path or name has a zero byte.")
            if extra["choices"] and value not in extra["choices"]:
                raise UsageError(
                    f"{flag} cannot be {value!r}.{nearest(str(value), extra['choices'])} "
                    f"Known: {', '.join(extra['choices'])}."
                )
            if extra["rule"] and not extra["rule"].holds(value):
                raise UsageError(f"{flag} cannot be {value}: it takes {extra['rule'].text}.")

    def resolved(self, architecture: Architecture) -> Self:
        """Settings with those of the architecture's recipe where there were none.

        A schedule that counts epochs is then as long as they are; a run that is resumed has all
        settings, and so keeps its falls.
        """
        own = architecture.recipe
        policy, epochs = self.lr_scheduler or own.lr_scheduler, self.epochs or own.epochs
        recipe = asdict(own) | {"lr_step_size": own.falls_every(policy, epochs)}
        unset = {name: value for name, value in recipe.items() if getattr(self, name) is None}
        return replace(self, arch=architecture.name, **unset)

    @property
    def architecture(self) -> Architecture:
        """The preset that is asked for, with its original number of classes.

        Raises UsageError, with the nearest name, if there is none of this name.
        """
        return get_architecture(self.arch or ("alexnet" if self.data else "mini"))

    @property
    def recipe(self) -> Recipe:
        """The settings that make up a recipe, once `resolved`."""
        return Recipe(**{f.name: getattr(self, f.name) for f in fields(Recipe)})

    @property
    def devices(self) -> tuple[int, ...]:
        """The numbers in `gpus`."""
        return tuple(map(int, self.gpus.split(",")))

    def toml(self) -> str:
        """Text of a file for --config: one line a setting, those that are None left out.

        Raises UsageError for a path that is no text.
        """
        values = asdict(self).items()
        return "".join(f"{k} = {_toml(k, v)}\n" for k, v in values if v is not None)


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The names of the settings in `now` that are others than before, data however spelled."""
    return [
        name
        for name, value in now.items()
        if before.get(name) != value and not (name == "data" and same_data(before.get(name), value))
    ]


def same_data(one: str | None, other: str | None) -> bool:
    """True if two values of --data name one folder or archive; None is the built-in images."""
    return one == other or (
        one is not None and other is not None and Path(one).resolve() == Path(other).resolve()
    )


def _toml(name: str, value: Any) -> str:
    try:
        str(value).encode()
    except UnicodeEncodeError:
        raise UsageError(
            f"--{name.replace('_', '-')} cannot be {value!r}: some bytes of this name are not "
            "UTF-8, and the run's config.toml could not hold it. Rename the file or folder."
        ) from None
    # JSON's \ud83d for half a character is no TOML, nor is the character 127 as it is.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def from_mapping(values: Mapping[str, Any], base: Config, source: str) -> Config:
    """`base` with `values` over it. Raises UsageError for a setting that does not exist."""
    known = [f.name for f in fields(Config)]
    values = {name.replace("-", "_"): value for name, value in values.items()}
    for name in values:
        if name not in known:
            raise UsageError(
                f"{source} has a setting {name!r} that does not exist.{nearest(name, known)}"
            )
    return replace(base, **values)


def from_file(path: Path, base: Config) -> Config:
    """`base` with the settings of a TOML file over it."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"Cannot read the config file {path}: {error.strerror}.") from None
    except RecursionError:
        raise UsageError(f"The config file {path} is nested too deeply.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"The config file {path} is not TOML: {error}.") from None
    return from_mapping(values, base, str(path))
