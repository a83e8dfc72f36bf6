"""AlexNet (Krizhevsky, Sutskever, Hinton 2012) as software to run, read and check.

    import tinyalex

    net = tinyalex.load("runs/20260314-092653-mini")    # or a .pth, .onnx, .caffemodel ...
    net.classes                             # ("circle", "cross", ...)
    net.predict("photo.jpg", topk=5)        # [("circle", 0.97), ...]
    net.probabilities(images)               # float64 (N, classes)
    net.features(images, "fc7")             # float32 (N, 4096)

Images are paths, images of Pillow's, or uint8 arrays (H, W, 3) or (N, H, W, 3) of any size, resized
and cropped as in training.

    tinyalex.train(tinyalex.Config(data="photos/", epochs=5))
    mine = tinyalex.Architecture("mine", "a sketch", (layers.Augment(...), ...), tinyalex.Recipe(5))
    tinyalex.train(tinyalex.Config(data="photos/"), mine)    # saved and loaded like any other

`load`, `train`, `Config`, `Architecture`, `Recipe`, `layers`, `get_architecture`, `get_backend`,
`open_data` and `TinyalexError` are public; anything else may change. They are imported when they
are first used, so that `import tinyalex` costs nothing.

To read the code, start at `tinyalex.training.loop`, the epochs and steps, before which comes
`tinyalex.training.start`; or at `tinyalex.net.presets`, where the networks stand as tables. The
layers are in `tinyalex.reference`, a folder beside `tinyalex/` in a checkout.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyalex.system.version import __version__

if TYPE_CHECKING:
    from tinyalex.data import open_data as open_data
    from tinyalex.errors import TinyalexError as TinyalexError
    from tinyalex.net import layers as layers
    from tinyalex.net.presets import Architecture as Architecture
    from tinyalex.net.presets import Recipe as Recipe
    from tinyalex.net.presets import get_architecture as get_architecture
    from tinyalex.runs.config import Config as Config
    from tinyalex.system.backends import get_backend as get_backend
    from tinyalex.training.train import train as train
    from tinyalex.training.trained import TrainedNetwork as TrainedNetwork
    from tinyalex.training.trained import load as load

_PLACES = {
    "Architecture": "net.presets",
    "Config": "runs.config",
    "Recipe": "net.presets",
    "TinyalexError": "errors",
    "TrainedNetwork": "training.trained",
    "get_architecture": "net.presets",
    "get_backend": "system.backends",
    "layers": "net.layers",
    "load": "training.trained",
    "open_data": "data",
    "train": "training.train",
}
__all__ = ["__version__", *_PLACES]

# Installed, reference/ lies inside this package. In a checkout it lies beside it.
_here = Path(__file__).parent
if not (_here / "reference").is_dir():
    __path__.append(str(_here.parent))


def __getattr__(name: str) -> Any:
    """Import what is public when it is first asked for."""
    if name not in _PLACES:
        raise AttributeError(f"module 'tinyalex' has no attribute {name!r}")
    from importlib import import_module

    module = import_module(f"tinyalex.{_PLACES[name]}")
    return module if name == "layers" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
