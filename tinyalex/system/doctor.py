"""Report on what this machine has for tinyalex, and what is missing. Imports nothing heavy."""

import ctypes
import importlib.metadata
import importlib.util
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tinyalex.system.version import __version__

REQUIRED = ("numpy", "pillow", "tqdm", "threadpoolctl", "matplotlib")
OPTIONAL = {
    "torch": "bench --against torch and the parity tests; pip install 'tinyalex[parity]'",
    "hypothesis": "the property tests; pip install 'tinyalex[test]'",
}
CUPY = ("cupy-cuda13x", "cupy-cuda12x", "cupy")
DRIVER = "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"


@dataclass(frozen=True)
class Part:
    """Something that the GPU backend needs: what is there of it, or what to do about it."""

    name: str
    present: str | None
    remedy: str

    def __str__(self) -> str:
        return f"{self.name:<14} {self.present or f'missing: {self.remedy}'}"


def report() -> tuple[str, bool]:
    """The findings as text, and whether the reference backend can run."""
    lines = [
        f"tinyalex {__version__} in {Path(__file__).parents[1]}",
        f"Python {platform.python_version()} on {platform.system()} {platform.machine()}, "
        f"{os.cpu_count()} cores{_memory()}",
    ]
    sound = True
    for package in REQUIRED:
        version = _version(package)
        sound = sound and version is not None
        lines.append(f"{package:<14} {version or 'MISSING: pip install ' + package}")
    for package, use in OPTIONAL.items():
        lines.append(f"{package:<14} {_version(package) or 'not installed; needed for ' + use}")
    parts = gpu_parts()
    lacking = ", ".join(missing(parts))
    lines += [
        *map(str, parts),
        f"backend reference: {'ready' if sound else 'cannot run'}",
        f"backend gpu: {f'cannot run without {lacking}' if lacking else 'ready'}",
    ]
    if lacking and _version("numba"):
        lines.append("backend gpu, simulated and slow: NUMBA_ENABLE_CUDASIM=1 tinyalex compare")
    return "\n".join(lines), sound


def simulated() -> bool:
    """True if Numba's simulator is asked for in place of a GPU."""
    return os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")


def missing(parts: Sequence[Part] | None = None) -> list[str]:
    """The names of what the GPU backend needs and this machine has not."""
    return [part.name for part in (gpu_parts() if parts is None else parts) if not part.present]


def gpu_parts() -> list[Part]:
    """Parts that the GPU backend needs, with what was found of each."""
    devices, major = _driver()
    extra = "gpu-cuda12" if major == 12 else "gpu"
    pip = f"pip install 'tinyalex[{extra}]'"
    fitting = CUPY[1:] if major == 12 else CUPY  # an older driver than its runtime runs nothing
    redirected = "_numba_cuda_redirector" in sys.modules  # its .pth file has been read
    retired = "" if redirected or not _version("numba-cuda") else "its .pth file was not read; "
    return [
        Part("NVIDIA driver", devices, "an NVIDIA GPU, and NVIDIA's driver for it"),
        Part("CuPy", next((f"{v} ({p})" for p in fitting if (v := _version(p))), None), pip),
        Part("numba-cuda", _version("numba-cuda") if redirected else None, retired + pip),
        Part("cuBLAS", _library("cublas"), pip),
        Part("libNVVM", _library("nvvm"), pip),
    ]


def _driver() -> tuple[str | None, int | None]:
    """The GPUs that answer the driver, in words, and the major number of its CUDA version."""
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError:
        return None, None
    number, name, size = ctypes.c_int(), ctypes.create_string_buffer(100), ctypes.c_size_t()
    driver.cuDriverGetVersion(ctypes.byref(number))
    major, minor = divmod(number.value // 10, 100)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(number)):
        return None, major
    devices = []
    for device in range(number.value):
        driver.cuDeviceGetName(name, len(name), device)
        driver.cuDeviceTotalMem_v2(ctypes.byref(size), device)
        devices.append(f"{device}: {name.value.decode()}, {size.value / 2**30:.0f} GiB")
    return "; ".join([f"CUDA {major}.{minor}", *devices]) if devices else None, major


def _library(name: str) -> str | None:
    """Path of a library of the CUDA toolkit, looked up as the GPU backend does it."""
    if not importlib.util.find_spec("cuda") or not importlib.util.find_spec("cuda.pathfinder"):
        return None
    from cuda import pathfinder

    try:
        return str(pathfinder.load_nvidia_dynamic_lib(name).abs_path)
    except pathfinder.DynamicLibNotFoundError:
        return None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _memory() -> str:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return ""
    size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return f", {size / 2**30:.0f} GiB memory"
