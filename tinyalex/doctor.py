"""What this machine has for tinyalex, and what is missing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

import tinyalex

REQUIRED = ("numpy", "pillow", "tqdm", "threadpoolctl", "matplotlib")
OPTIONAL = {
    "torch": "bench --against torch and the parity tests; pip install 'tinyalex[parity]'",
    "hypothesis": "the property tests; pip install 'tinyalex[test]'",
}


def report() -> tuple[str, bool]:
    """The findings as text, and whether the reference backend can run. Imports nothing heavy."""
    lines = [
        f"tinyalex {tinyalex.__version__} in {Path(tinyalex.__file__).parent}",
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
    lines += [
        f"backend reference: {'ready' if sound else 'cannot run'}",
        "backend gpu: not part of this version",
    ]
    return "\n".join(lines), sound


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
