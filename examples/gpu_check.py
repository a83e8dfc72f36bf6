"""Everything about the GPU backend that only a GPU can show, in one table and under 8 minutes.

    python examples/gpu_check.py [--data PATH] [--arch A] [--gpus 0,1]

runs, in a checkout with `pip install '.[gpu,test]'`: the agreement tests with the simulator off;
`tinyalex compare` of the full `alexnet` at batch 128 in each precision and over two towers; the
same short run twice, which must end with the same bits; and a training run to its end, on PATH or
on the built-in images. Each line of the table has its own verdict; the exit code is 0 if all hold.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = {**os.environ, "NUMBA_ENABLE_CUDASIM": "0"}

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("--data", help="folder, .zip or .tar of images (default: built-in images)")
parser.add_argument("--arch", help="network of the run (default: as in tinyalex train)")
parser.add_argument("--epochs", help="of the run (default: the network's own)")
parser.add_argument("--gpus", default="0,0", help="of the two-tower checks (default: 0,0)")
arguments = parser.parse_args()

rows: list[tuple[str, str, float, str]] = []


def check(what: str, *command: str, last: int = 1) -> bool:
    """Runs a command, shows its output, and notes its verdict, time and last lines."""
    print(f"\n=== {what}: {' '.join(command)}", flush=True)
    began, lines = time.monotonic(), []
    with subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line.strip())
    verdict = "ok" if process.returncode == 0 else f"FAILED ({process.returncode})"
    said = " / ".join([line for line in lines if line][-last:])
    rows.append((what, verdict, time.monotonic() - began, said))
    return process.returncode == 0


def bits(folder: Path) -> dict[str, bytes]:
    """The parameters of a run, byte by byte."""
    with np.load(folder / "last.npz") as file:
        return {name: file[name].tobytes() for name in file.files if name.startswith("parameter")}


def train(what: str, folder: Path, *flags: str) -> bool:
    flags = ("--backend", "gpu", "--output-dir", str(folder), *flags)
    return check(what, "tinyalex", "train", *flags, last=3)


check("doctor", "tinyalex", "doctor")
agreement = sorted(str(p) for p in (ROOT / "tests/gpu").glob("test_agreement_*.py"))
# A warning of a library is no failure here, and ten failures tell more than one.
check("agreement tests", "pytest", "-q", "-W", "default", "--maxfail=10", *agreement)
full = ("tinyalex", "compare", "--backend", "gpu", "--arch", "alexnet", "-b", "128")
check("compare fp32", *full, "--steps", "20")
check("compare tf32", *full, "--steps", "2", "--precision", "tf32")
check("compare bf16", *full, "--steps", "2", "--precision", "bf16")
check("compare, two towers", *full, "--steps", "2", "--gpus", arguments.gpus)
with tempfile.TemporaryDirectory() as temporary:
    first, second, third = (Path(temporary) / name for name in ("first", "second", "third"))
    if train("a short run", first, "--max-steps", "50") and train(
        "the same again", second, "--max-steps", "50"
    ):
        same = "ok" if bits(first) == bits(second) else "FAILED"
        rows.append(("same bits", same, 0.0, "the parameters after 50 steps, twice"))
    names = {"--data": arguments.data, "--arch": arguments.arch, "--epochs": arguments.epochs}
    train("a run to its end", third, *(w for flag, v in names.items() if v for w in (flag, v)))
    if (third / "metrics.jsonl").exists():
        records = [json.loads(line) for line in (third / "metrics.jsonl").read_text().splitlines()]
        epochs = [record for record in records if record["event"] == "epoch"]
        if epochs:
            best = min(epochs, key=lambda record: record.get("val_top1_error", record["loss"]))
            rows.append(("its best epoch", "ok", 0.0, json.dumps(best)))

print(f"\n{'check':<22} {'verdict':<12} {'seconds':>8}  last words")
for what, verdict, seconds, said in rows:
    print(f"{what:<22} {verdict:<12} {seconds:>8.1f}  {said}")
sys.exit(any(verdict != "ok" for _, verdict, _, _ in rows))
