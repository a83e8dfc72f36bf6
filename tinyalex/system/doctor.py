"""Report on what this machine has for tinyalex, and what is missing. Imports nothing heavy."""

import ctypes
import importlib.metadata
import importlib.util
import os
import platform
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tinyalex.system.version import __version__

REQUIRED = ("numpy", "pillow", "tqdm", "threadpoolctl", "matplotlib")
OPTIONAL = {
    "torch": "bench --against torch and the parity tests; pip install 'tinyalex[parity]'",
    "hypothesis": "the property tests; pip install 'tinyalex[test]'",
}
CUPY = ("cupy-cuda13x", "cupy-cuda12x", "cupy")
CUPY_SINCE, NUMBA_CUDA_SINCE = "14", "0.30"  # as in pyproject.toml; older ones fail when imported
LIBRARIES = {"cuBLAS": "cublas", "NVRTC": "nvrtc", "libNVVM": "nvvm"}
LIBDEVICE = "nvvm/libdevice/libdevice.10.bc"
# Packages that have it, and where they put it.
LIBDEVICE_IN = {"nvidia-nvvm": "nvidia/cu13", "nvidia-cuda-nvcc-cu12": "nvidia/cuda_nvcc"}
LINKERS = {"nvidia-nvvm": "nvidia-nvjitlink", "nvidia-cuda-nvcc-cu12": "nvidia-nvjitlink-cu12"}
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
    """Findings as text, and whether both the reference and the GPU backend can run here."""
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
    lacking, numba = ", ".join(missing(parts)), _version("numba")
    lines += [
        *map(str, parts),
        f"backend reference: {'ready' if sound else 'cannot run'}",
        f"backend gpu: {f'cannot run without {lacking}' if lacking else 'ready'}",
    ]
    if lacking and numba:
        lines.append("backend gpu, simulated and slow: NUMBA_ENABLE_CUDASIM=1 tinyalex compare")
    return "\n".join(lines), sound and bool(numba if simulated() else not lacking)


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
    pip = f"pip install -U 'tinyalex[{extra}]'"
    fitting = CUPY[1:] if major == 12 else CUPY  # an older driver than its runtime runs nothing
    cupy = {p: v for p in fitting if _at_least(v := _version(p), CUPY_SINCE)}
    redirected = "_numba_cuda_redirector" in sys.modules  # its .pth file has been read
    numba = _version("numba-cuda") if _at_least(_version("numba-cuda"), NUMBA_CUDA_SINCE) else None
    retired = "" if redirected or not numba else "its .pth file was not read; "
    driver = "an NVIDIA GPU, and NVIDIA's driver for it, of which nvidia-smi tells"
    toolkit = f"{pip}, or CUDA_HOME=FOLDER of a CUDA toolkit"
    return [
        Part("NVIDIA driver", devices, driver),
        Part("CuPy", next((f"{v} ({p})" for p, v in cupy.items()), None), pip),
        Part("numba-cuda", numba if redirected else None, retired + pip),
        *(Part(name, _library(library), toolkit) for name, library in LIBRARIES.items()),
        Part("libdevice", _libdevice(), toolkit),
        _linker(toolkit),
    ]


def _linker(remedy: str) -> Part:
    """nvJitLink, if it reads what libNVVM writes: PyTorch brings one, which may be older."""
    for nvvm, linker in LINKERS.items():
        wanted, found = _version(nvvm), _version(linker)
        if wanted and found and not _at_least(found, wanted, parts=2):
            pip = f"pip install -U '{linker}>={'.'.join(wanted.split('.')[:2])}'"
            return Part("nvJitLink", None, f"{found} is older than libNVVM {wanted}; {pip}")
    return Part("nvJitLink", _library("nvJitLink"), remedy)


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


def _libdevice() -> str | None:
    """Path of NVIDIA's functions for kernels, looked for where Numba does."""
    folders = [sys.prefix, os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")]
    for package, folder in LIBDEVICE_IN.items():
        with suppress(importlib.metadata.PackageNotFoundError):
            folders.append(str(importlib.metadata.distribution(package).locate_file(folder)))
    paths = (Path(folder, LIBDEVICE) for folder in (*folders, "/usr/local/cuda") if folder)
    return next((str(path) for path in paths if path.is_file()), None)


def _at_least(version: str | None, wanted: str, parts: int = 9) -> bool:
    """True if there is a version, not older than the wanted one in its first `parts` numbers."""

    def numbers(text: str) -> list[int]:
        return [int(n) for n in re.findall(r"\d+", text)[:parts]]

    return version is not None and numbers(version) >= numbers(wanted)


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
