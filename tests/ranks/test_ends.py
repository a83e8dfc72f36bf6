"""Ranks ended at any moment are all gone within seconds, and the run goes on to the same bits."""

import os
import random
import signal
import time
from collections import Counter

import pytest
from mpi import below, ended, job, needs_mpi, ranks_of, seconds_until_gone
from runs import pictures, records, saved

from tinyalex.cli.parser import main
from tinyalex.runs import checkpoint

ATTACKS = int(os.environ.get("TINYALEX_RANK_ATTACKS", "3"))  # set it to look harder
GONE = 10.0  # seconds, for all processes
RUN = ["--arch", "mini", "-b", "8", "--epochs", "12", "-p", "1", "--backend", "reference"]
# Saves after every step; only what is saved and logged is compared.
PATCH = "from tinyalex.training import recorder\nrecorder.SAVE_SECONDS = -1\n"
PATCH += "recorder.Recorder.draw = lambda self: None\n"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("ends") / "pictures", train=7, val=2)


def attacked(images, folder, mode, jobs, numbers, count):
    """Signals sent, and what they met; every run that ends has the bits of one never disturbed."""
    argv = ["train", "--data", images, *RUN, "--pieces", max(jobs), "--parallel", mode]
    whole, run, met, slowest = folder / "whole", folder / "run", Counter(), 0.0
    assert main([str(a) for a in (*argv, "--output-dir", whole)]) == 0
    expected, step = saved(whole / "last.npz"), 0
    dice = random.Random()
    while sum(met.values()) < count:
        ranks, number = dice.choice(jobs), dice.choice(numbers)
        begun = (run / "last.npz").exists()
        rest = ["train", "--resume", run] if begun else [*argv, "--output-dir", run]
        process = job(ranks, *rest, patch=PATCH)
        time.sleep(dice.uniform(0.2, 2))
        victims = [process.pid, *ranks_of(process)]
        all_of_it = [process.pid, *below(process.pid)]
        if process.poll() is None:
            os.kill(dice.choice(victims), number)
            began = time.monotonic()
            code, _, _ = ended(process, 60)
            seconds_until_gone(all_of_it, 60)
            slowest = max(slowest, time.monotonic() - began)
            met[signal.Signals(number).name if code else "too late"] += 1
        else:
            ended(process)
            met["too late"] += 1
        if (run / "last.npz").exists():
            now = checkpoint.load(run / "last.npz").progress.step
            assert now >= step
            step = now
        if process.returncode == 0:
            assert saved(run / "last.npz") == expected
            run, step = folder / f"run{sum(met.values())}", 0
    if (run / "last.npz").exists():
        assert main(["train", "--resume", str(run)]) == 0
        assert saved(run / "last.npz") == expected
        assert records(run) == records(whole)
    return met, slowest


@needs_mpi
@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "jobs", "numbers"),
    [
        ("data", (2, 4), (signal.SIGKILL,)),
        ("data", (2, 4), (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)),
        ("hybrid", (1, 2), (signal.SIGKILL, signal.SIGTERM)),  # of three classes: two pieces
    ],
)
def test_ranks_ended_at_any_moment(mode, jobs, numbers, images, tmp_path, tell):
    met, slowest = attacked(images, tmp_path, mode, jobs, numbers, ATTACKS)
    tell(f"{dict(met)} on {jobs} ranks, {mode}: all processes gone within {slowest:.1f} s")
    assert slowest < GONE
