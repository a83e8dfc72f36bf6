"""Training from Python."""

from collections.abc import Callable

from tinyalex.net.presets import Architecture
from tinyalex.runs.config import Config
from tinyalex.training import loop
from tinyalex.training.start import prepare
from tinyalex.training.trained import TrainedNetwork, load


def train(
    config: Config,
    architecture: Architecture | None = None,
    say: Callable[[str], None] = print,
) -> TrainedNetwork:
    """Train as the command does, and load the best epoch.

    config: `Config(data="photos/", epochs=5)`. architecture: a network of one's own instead of the
    preset config.arch. say: prints a line. Raises TinyalexError, of the kinds in `tinyalex.errors`.
    """
    run = prepare(config, architecture=architecture, say=say)
    loop.train(run, say)
    return load(run.folder.path, config.backend)
