"""The script of a GPU's first minutes, in the simulator: stages that hang, fail and end well."""

import importlib
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tinyalex.gpu import device

EXAMPLES = Path(__file__).parents[2] / "examples"

PROGRAM = """
import sys
sys.path.insert(0, {examples!r})
import gpu_first as first
python, by_name = first.PYTHON, {{stage.name: stage for stage in first.STAGES}}
hangs = "import os; os.system('while sleep .1; do echo alive; done')"
first.SECONDS = {seconds}
first.STAGES = [first.Stage(*stage) for stage in (
    ("hangs", 1.5, (*python, "-c", hangs)),
    by_name["doctor"],
    ("fails", 20, (*python, "-c", "import sys; sys.exit('because')")),
    ("absent", 20, ("no-such-command",)),
    *{stages},
)]
sys.exit(first.main())
"""
COMPARE = '[("mini", 100, (*first.COMPARE, "--arch", "mini", "-b", "1"))]'
NO_TIME = '[("too late", 99, (*python, "-c", hangs)), ("never", 20, (*python, "-c", ""))]'


def verdicts(out, stages, seconds):
    """The words of each verdict by its stage, and how long all took."""
    began = time.monotonic()
    child = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(examples=str(EXAMPLES), **locals())],
        env={**os.environ, "OUT": str(out), "NUMBA_ENABLE_CUDASIM": "1"},
        capture_output=True,
        text=True,
    )
    assert child.returncode == 1, child.stderr
    assert (out / "verdicts.txt").read_text() == child.stdout
    said = (out / "hangs.txt").read_text()
    time.sleep(0.5)
    assert "alive" in said
    assert said == (out / "hangs.txt").read_text()  # its children have ended too
    found = {line[:20].strip(): line[21:] for line in child.stdout.splitlines()}
    assert found["hangs"].startswith("CUT OFF")
    assert found["fails"].startswith("FAILED (1)")
    assert found["fails"].endswith("because")
    assert found["absent"].startswith("NO no-such-command")
    assert found["doctor"].startswith("ok")
    assert "backend reference: ready" in (out / "doctor.txt").read_text()
    return found, time.monotonic() - began


@pytest.mark.slow
def test_no_stage_takes_another_s_time(tmp_path):
    found, seconds = verdicts(tmp_path, NO_TIME, seconds=6)
    assert found["too late"].startswith("CUT OFF")
    assert found["never"].startswith("NO TIME LEFT")
    assert seconds < 12


@pytest.mark.slow
@pytest.mark.skipif(not device.SIMULATOR, reason="on a GPU the script itself is to be run")
def test_a_comparison_has_its_verdict_and_its_file(tmp_path):
    found, _ = verdicts(tmp_path, COMPARE, seconds=100)
    assert found["mini"].startswith("ok")
    assert found["mini"].endswith("No tensor differs by more than its tolerance.")
    assert "norm1 pool1" in (tmp_path / "mini.txt").read_text()


@pytest.fixture
def example(monkeypatch):
    """A script by its name, as a module."""
    monkeypatch.setenv("NUMBA_ENABLE_CUDASIM", os.environ.get("NUMBA_ENABLE_CUDASIM", "0"))
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module


def test_the_stages_end_within_ten_minutes(example):
    """With what the rest of a machine's call may take."""
    gpu_first = example("gpu_first")
    assert gpu_first.SECONDS <= 560
    assert len({stage.name for stage in gpu_first.STAGES}) == len(gpu_first.STAGES)
    names = [stage.name for stage in gpu_first.STAGES]
    before = gpu_first.STAGES[: names.index("benchmark")]
    assert sum(s.seconds for s in before) + 100 <= gpu_first.SECONDS  # whatever hangs
    assert gpu_first.SUITE


def test_a_precision_that_differs_is_left_out(example, monkeypatch, capsys):
    bench = example("gpu_bench")

    def run(command, cwd):
        return SimpleNamespace(returncode=int("tf32" in command))

    monkeypatch.setattr(bench.subprocess, "run", run)
    assert list(bench.agreeing()) == ["fp32", "bf16"]
    assert "tf32 differs" in capsys.readouterr().out
