"""Ctrl-C at any moment of any command ends it soon, with 130, and leaves nobody asleep."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from runs import pictures

from tinyalex.cli.parser import main

COUNT = int(os.environ.get("TINYALEX_INTERRUPTS", "24"))  # set it to look harder
FLAGS = ["--arch", "mini", "-b", "8", "--backend", "reference"]
SECONDS = 10  # in which a command must end, on a machine as busy as may be; the slowest is told

# The n-th thread that starts is interrupted while it does: `start` waits there for its first word.
AT_A_START = """
import signal, threading
wait, left = threading.Event.wait, [{n}]
def wait_and_interrupt(self, timeout=None):
    if sys._getframe(1).f_code is threading.Thread.start.__code__:
        left[0] -= 1
        if left[0] == 0:
            signal.raise_signal(signal.SIGINT)
    return wait(self, timeout)
threading.Event.wait = wait_and_interrupt
"""


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    """A line of every command, by name. {out} is a folder or file of its own."""
    folder = tmp_path_factory.mktemp("commands")
    data, run = pictures(folder / "pictures", train=20, val=9), folder / "run"
    once = ["--data", str(data), "--epochs", "1", "--output-dir", str(run)]
    assert main(["train", *FLAGS, *once]) == 0
    assert main(["export", str(run), "-o", str(folder / "weights.safetensors")]) == 0
    places = {"data": data, "run": run, "folder": folder, "flags": " ".join(FLAGS), "out": "{out}"}
    return {
        name: line.format(**places).split()
        for name, line in {
            "train": "train --data {data} {flags} --epochs 3 --output-dir {out}",
            "resume": "train --resume {run} --epochs 9 --output-dir {out}",
            "eval": "eval {run} --crops 10",
            "predict": "predict {run} {data}/val/blue/00.png",
            "features": "features {run} --data {data} --layer fc7 -o {out}.npz",
            "summary": "summary --arch alexnet --compare",
            "gradcheck": "gradcheck --arch mini",
            "compare": "compare --backend reference --arch mini",
            "filters": "show filters {run} -o {out}.png",
            "neighbors": "show neighbors {run} -o {out}.png",
            "confusion": "show confusion {run} -o {out}.png",
            "predictions": "show predictions {run} -o {out}.png",
            "bench": "bench --arch mini -b 8",
            "reproduce": "reproduce relu-vs-tanh --quick --data {data} --output-dir {out}",
            "import": "import {folder}/weights.safetensors --arch mini -o {out}",
            "export": "export {run} -o {out}.onnx",
            "pack": "data pack {data} -o {out} --size 32",
            "check": "data check {data}",
            "doctor": "doctor",
        }.items()
    }


def started(argv, patch=""):
    code = f"import sys\n{patch}\nfrom tinyalex.__main__ import main\nsys.exit(main())"
    return subprocess.Popen(
        [sys.executable, "-c", code, *argv], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def seconds_of(argv):
    began = time.perf_counter()
    process = started(argv)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err.decode()
    return time.perf_counter() - began


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_at_any_moment_of_any_command(commands, tmp_path, tell):
    landed = late = 0
    slowest = 0.0
    names = random.sample(list(commands), min(len(commands), max(COUNT // 4, 1)))
    for name in names:
        lasts = seconds_of([word.format(out=tmp_path / f"{name}-whole") for word in commands[name]])
        for i in range(-(-COUNT // len(names))):
            argv = [word.format(out=tmp_path / f"{name}-{i}") for word in commands[name]]
            at_a_start = random.random() < 0.5
            process = started(argv, AT_A_START.format(n=random.randint(1, 4)) if at_a_start else "")
            began = time.perf_counter()
            if not at_a_start:
                time.sleep(random.uniform(0.05, lasts))  # Python itself has begun by then
                began = time.perf_counter()
                process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=lasts + 60)
            code, told = process.returncode, err.decode()
            if code == 0:
                late += 1
                continue
            landed += 1
            slowest = max(slowest, 0 if at_a_start else time.perf_counter() - began)
            assert code in (130, -signal.SIGINT), (argv, code, told)
            assert "Traceback" not in told, (argv, told)
    tell(f"{landed} Ctrl-C in {len(names)} commands, {late} late, the slowest {slowest:.2f} s")
    assert landed
    assert slowest < SECONDS
