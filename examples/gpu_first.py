"""The first minutes on a GPU: what works there and how fast, the most important first.

    OUT=FOLDER python examples/gpu_first.py

needs nothing installed but what the backend needs. Each stage has its own time limit and its
verdict at once, here and in OUT/verdicts.txt; what it says goes to a file of its own in OUT while
it says it. So the folder tells what was found, whenever the rest is cut off, which is after nine
minutes at the latest. The exit code is 0 if every stage ended well.

This script has not run on a GPU yet; with NUMBA_ENABLE_CUDASIM=1 it runs in the simulator.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
OUT = Path(os.environ.get("OUT", "gpu-first")).resolve()
SECONDS = 540  # for all stages
PYTHON = (sys.executable, "-u")
TINYALEX = (*PYTHON, "-m", "tinyalex")
COMPARE = (*TINYALEX, "compare", "--backend", "gpu", "--steps", "1")
FULL = (*COMPARE, "--arch", "alexnet", "-b", "16")
TRAIN = (*TINYALEX, "train", "--backend", "gpu", "--arch", "mini", "--max-steps", "30")
PACKAGES = "nvidia|cuda|cupy|numba|numpy|torch"
VERSIONS = f"""
import importlib.metadata, re, subprocess, sys
print(sys.version)
for d in sorted(importlib.metadata.distributions(), key=lambda d: d.name):
    if re.match({PACKAGES!r}, d.name):
        print(d.name, d.version)
subprocess.run(["git", "log", "-1", "--format=%H"])
subprocess.run("nvidia-smi")
"""
SAME_BITS = """
import sys, numpy as np
first, second = (np.load(f"{folder}/last.npz") for folder in sys.argv[1:])
names = [name for name in first.files if name.startswith("parameter/")]
differ = [name for name in names if first[name].tobytes() != second[name].tobytes()]
sys.exit(f"differ: {differ}" if differ else print(len(names), "parameters have the same bits"))
"""
SUITE = sorted(map(str, (ROOT / "tests/gpu").glob("test_agreement_*.py")))


class Stage(NamedTuple):
    """A command and how many seconds it may take; its name is its file's, too."""

    name: str
    seconds: float
    command: tuple[str, ...]


STAGES = [
    Stage("versions", 20, (*PYTHON, "-c", VERSIONS)),
    Stage("doctor", 20, (*TINYALEX, "doctor")),
    Stage("compare mini", 60, (*COMPARE, "--arch", "mini")),
    Stage("compare mini bf16", 30, (*COMPARE, "--arch", "mini", "--precision", "bf16")),
    Stage("compare mini towers", 60, (*COMPARE, "--arch", "mini", "--gpus", "0,0")),
    Stage("compare alexnet", 60, FULL),
    Stage("compare alexnet tf32", 45, (*FULL, "--precision", "tf32")),
    Stage("compare alexnet bf16", 45, (*FULL, "--precision", "bf16")),
    Stage(
        "memcheck",
        60,
        ("compute-sanitizer", "--error-exitcode", "9", *COMPARE, "--arch", "mini", "-b", "2"),
    ),
    Stage("benchmark", 200, (*PYTHON, str(ROOT / "examples/gpu_bench.py"))),
    Stage("a run", 30, (*TRAIN, "--output-dir", str(OUT / "first"))),
    Stage("the run again", 30, (*TRAIN, "--output-dir", str(OUT / "second"))),
    Stage("same bits", 10, (*PYTHON, "-c", SAME_BITS, str(OUT / "first"), str(OUT / "second"))),
    # A warning of a library is no failure here, and ten failures tell more than one.
    Stage("agreement", 200, (*PYTHON, "-m", "pytest", "-qW", "default", "--maxfail=10", *SUITE)),
]


def verdict_of(stage: Stage, seconds: float) -> str:
    """Run a stage, at most so long, and say in a word or two how it ended."""
    if seconds <= 0:
        return "NO TIME LEFT"
    if not shutil.which(stage.command[0]):
        return f"NO {stage.command[0]}"
    environment = {"NUMBA_ENABLE_CUDASIM": "0", **os.environ, "PYTHONPATH": str(ROOT)}
    with (OUT / f"{stage.name}.txt").open("ab") as file:
        child = subprocess.Popen(
            stage.command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = child.wait(seconds)
        except subprocess.TimeoutExpired:
            return "CUT OFF"
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)  # its children too
                child.wait()
    return f"FAILED ({code})" if code else "ok"


def last_words(stage: Stage) -> str:
    """The last line that a stage said."""
    file = OUT / f"{stage.name}.txt"
    lines = file.read_text(errors="replace").split("\n") if file.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def main() -> int:
    OUT.mkdir(parents=True, exist_ok=True)
    began, sound = time.monotonic(), True
    with (OUT / "verdicts.txt").open("a") as file:
        for stage in STAGES:
            at = time.monotonic()
            verdict = verdict_of(stage, min(stage.seconds, began + SECONDS - at))
            sound &= verdict == "ok"
            line = f"{stage.name:<20} {verdict:<12} {time.monotonic() - at:6.1f} s  "
            line += last_words(stage)[:200]
            print(line, flush=True)
            print(line, file=file, flush=True)
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
