"""Jobs of several ranks for the tests: how they are started, watched and attacked."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

BIN = Path(sys.executable).parent
MPIEXEC = shutil.which("mpiexec", path=str(BIN)) or shutil.which("mpiexec")
needs_mpi = pytest.mark.skipif(
    not (MPIEXEC and find_spec("mpi4py")) or sys.platform != "linux",
    reason="needs Linux, mpi4py and mpiexec: pip install 'tinyalex[mpi]'",
)
# Open MPI, where that is installed, starts no root and no more ranks than cores without these.
ROOT = (
    "OMPI_ALLOW_RUN_AS_ROOT",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM",
    "PRTE_MCA_rmaps_default_mapping_policy",
)
ENVIRONMENT = os.environ | dict(zip(ROOT, ("1", "1", ":oversubscribe"), strict=True))
# Called "rank" from where on Ctrl-C is for tinyalex to meet: Python exits at one in its own start.
MAIN = """import sys
from tinyalex.ranks.launch import die_of_interrupts
die_of_interrupts()
open("/proc/self/comm", "w").write("rank")
from tinyalex.cli.parser import main
{}
sys.exit(main(sys.argv[1:]))"""


def job(ranks: int, *argv: Any, patch: str | None = "", **settings: Any) -> subprocess.Popen[str]:
    """Python on so many ranks: the command after the lines of `patch`; if it is None, a script."""
    code = [] if patch is None else ["-c", MAIN.format(patch)]
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": ENVIRONMENT}
    assert MPIEXEC
    return subprocess.Popen(
        [MPIEXEC, "-n", str(ranks), sys.executable, *code, *map(str, argv)],
        text=True,
        **(pipes | settings),
    )


def ended(process: subprocess.Popen[str], seconds: float = 120) -> tuple[int, str, str]:
    """Exit code, output and errors of a job."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        for pid in below(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.kill()
        process.communicate()
        raise
    return process.returncode, out, err


def below(pid: int) -> list[int]:
    """All processes that have come from this one, by /proc."""
    found = []
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, told(tasks).split()):
            found += [child, *below(child)]
    return found


def told(path: Path) -> str:
    """What /proc says; nothing of a process that has ended meanwhile."""
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def ranks_of(process: subprocess.Popen[str]) -> list[int]:
    """The process numbers of a job's ranks that have begun, in no order."""
    return [p for p in below(process.pid) if told(Path(f"/proc/{p}/comm")).strip() == "rank"]


def alive(pid: int) -> bool:
    """False of what has ended, waited for or not."""
    state = told(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return bool(state) and state[0] not in "ZX"


def seconds_until_gone(pids: list[int], longest: float) -> float:
    """How long it takes until none of them lives; at most `longest`."""
    began = time.monotonic()
    while any(map(alive, pids)) and time.monotonic() - began < longest:
        time.sleep(0.01)
    return time.monotonic() - began
