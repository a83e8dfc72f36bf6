"""Choice of the backend that computes, and of its devices.

The only place that imports one, by its name and when it is asked for: the GPU's needs what not
every machine has.
"""

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from typing import cast

from tinyalex.backend import Backend, Trace
from tinyalex.errors import UsageError
from tinyalex.system import doctor, memory


def _reference(gpus: Sequence[int], precision: str, trace: Trace) -> Backend:
    memory.keep_freed()
    return cast(Backend, importlib.import_module("tinyalex.reference"))


def _gpu(gpus: Sequence[int], precision: str, trace: Trace) -> Backend:
    missing = () if doctor.simulated() else doctor.missing()
    if missing:
        raise UsageError(
            f"The GPU backend cannot run here without {', '.join(missing)}. What to install: "
            "tinyalex doctor. To do without a GPU: --backend reference, or, slowly, Numba's "
            "simulator with NUMBA_ENABLE_CUDASIM=1 in the environment."
        )
    if not importlib.util.find_spec("numba"):
        raise UsageError("Numba's simulator needs Numba: pip install 'tinyalex[test]'.")
    gpu, device = (importlib.import_module(f"tinyalex.gpu{name}") for name in ("", ".device"))
    places = [device.Place(number, precision) for number in gpus]
    device.use(places[0])
    if len(places) == 2:
        two_gpu = importlib.import_module("tinyalex.gpu.two_gpu")
        return cast(Backend, two_gpu.TwoGPU(gpu, places, trace))
    return cast(Backend, gpu)


def _auto(gpus: Sequence[int], precision: str, trace: Trace) -> Backend:
    """The GPU if one really answers, else the reference, which runs anywhere."""
    answers = not doctor.simulated() and not doctor.missing()
    return BACKENDS["gpu" if answers else "reference"](gpus, precision, trace)


BACKENDS: dict[str, Callable[[Sequence[int], str, Trace], Backend]] = {
    "auto": _auto,
    "reference": _reference,
    "gpu": _gpu,
}
"""Every choice of --backend, and how it is made. Another backend is another entry."""

PRECISIONS = ("fp32", "tf32", "bf16")


def get_backend(
    name: str,
    gpus: Sequence[int] = (0,),
    precision: str = "fp32",
    trace: Trace = lambda *exchange: None,
) -> Backend:
    """The backend of that name, imported now. Raises UsageError if it cannot run here.

    "auto" takes the GPU if one really answers. gpus: one device, or one for each tower. precision:
    how a GPU multiplies, fp32, tf32 or bf16. trace: hears what two devices exchange. The reference
    has no use for these; with it the process keeps the memory that it frees.
    """
    if name not in BACKENDS:
        raise UsageError(f"There is no backend {name!r}. Known: {', '.join(BACKENDS)}.")
    return BACKENDS[name](gpus, precision, trace)
