"""`tinyalex bench`: what it measures, and what it makes of that."""

import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
from mpi import needs_mpi

from tinyalex.bench import bench
from tinyalex.bench.workload import peak_bytes
from tinyalex.cli.parser import main
from tinyalex.errors import TinyalexError
from tinyalex.net.layers import Conv2d, Linear
from tinyalex.net.presets import get_architecture
from tinyalex.net.shapes import layers
from tinyalex.runs.sharing import traffic

SMALL = ["bench", "--arch", "mini", "-b", "2", "--rounds", "2"]
WITH_TORCH = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch, which it measures, is not installed"
)


@pytest.mark.slow
def test_each_layer_has_its_times_and_its_products(capsys):
    assert main([*SMALL, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = get_architecture("mini").rows
    assert [layer["name"] for layer in found["layers"]] == [row.name for row in rows]
    for layer, timed in zip(layers(rows), found["layers"], strict=True):
        milliseconds = timed["forward"] + timed["backward"]
        assert milliseconds > 0
        products = 2 if layer.row is rows[1] else 3  # conv1 needs no gradient by the images
        flops = 2 * layer.macs * 2 * products
        assert timed["gflops"] * 1e6 * milliseconds == pytest.approx(flops)
        assert (timed["products"] > 0) == isinstance(layer.row, Conv2d | Linear)
    assert found["reference"] == found["training"]["reference"] > 0
    assert found["inference"]["reference"] > found["reference"]
    assert found["peak_bytes"]["reference"] > 20 << 20
    assert "ratio" not in found


@pytest.mark.torch
@pytest.mark.slow
@WITH_TORCH
def test_against_pytorch(capsys):
    assert main([*SMALL[:-1], "1", "--against", "torch", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    for mode in (found, found["training"], found["inference"]):
        assert set(mode["images_per_second"]) == {"reference", *bench.TORCH}
        assert mode["torch"] == max(mode["images_per_second"][name] for name in bench.TORCH)
        assert mode["ratio_range"][0] <= mode["ratio"] <= mode["ratio_range"][1]
    assert set(found["peak_bytes"]) == {"reference", *bench.TORCH}


def test_speeds_are_medians_and_ratios_are_taken_within_a_round():
    seconds = {"reference": [2.0, 4.0, 2.0], "slow": [8.0, 8.0, 8.0], "fast": [1.0, 4.0, 4.0]}
    found = bench._speeds(seconds, batch_size=8)
    assert found["images_per_second"] == {"reference": 4.0, "slow": 1.0, "fast": 2.0}
    assert (found["reference"], found["torch"], found["torch_version"]) == (4.0, 2.0, "fast")
    assert found["ratios"] == {"slow": (2.0, 4.0, 4.0), "fast": (0.5, 1.0, 2.0)}
    assert (found["ratio"], found["ratio_range"]) == (1.0, (0.5, 2.0))


def test_the_table_shows_all_that_was_found():
    speeds = bench._speeds({"reference": [0.5, 0.5], "another": [0.25, 0.2]}, batch_size=4)
    timed = {"forward": 3.0, "backward": 7.0, "gflops": 50.0, "products": 8.0}
    found = {
        "architecture": "mini",
        "batch_size": 4,
        "rounds": 2,
        "training": speeds,
        "inference": speeds,
        "layers": [{"name": "conv1"} | timed, {"name": "relu1"} | timed | {"products": 0.0}],
        "peak_bytes": {"reference": 3 << 20, "another": 0},
    }
    lines = bench.table(found).splitlines()
    assert lines[2].split() == ["conv1", "3.0", "7.0", "50", "8.0", "80", "%"]
    assert lines[3].split() == ["relu1", "3.0", "7.0"]
    assert "8 ms, which would be 500.0 images a second" in lines[4]
    assert sum("reference is 0.45 x as fast (0.40 to 0.50)" in line for line in lines) == 2
    assert [line.split()[1] for line in lines[-2:]] == ["3", "unknown"]


@needs_mpi
@pytest.mark.slow
def test_ranks_are_measured_beside_one_process(capsys):
    argv = ["bench", "--arch", "mini", "-b", "8", "--ranks", "2", "--rounds", "1"]
    assert main([*argv, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["training"]["images_per_second"]) == {"reference", "2 ranks"}
    assert found["peak_bytes"]["2 ranks"] > 0
    sends = min(traffic(get_architecture("mini"), 8).values()) / 2
    assert sends <= found["sent_bytes"] <= 1.1 * sends  # and the answers, to be counted
    assert "torch" not in found
    assert "a rank sends 0." in bench.table(found)


def test_a_system_that_ends_is_told_of(capfd):
    with pytest.raises(TinyalexError, match=r"'none such' ended with code 1; .* --batch-size"):
        bench._Child("none such", "mini", 1)
    assert "KeyError: 'none such'" in capfd.readouterr().err


def test_what_is_too_large_is_told_without_a_traceback(capfd):
    assert main(["bench", "--arch", "mini", "-b", str(10**12)]) == 1
    told = capfd.readouterr().err
    assert told.startswith("not enough memory: ")
    assert "tinyalex: The benchmark of 'reference' ended with code 1" in told
    assert "Traceback" not in told


def test_what_cannot_be_measured_is_told_before_anything_begins(capsys, monkeypatch):
    monkeypatch.setattr(bench, "_Child", pytest.fail)
    assert main(["bench", "--arch", "mimi"]) == 2
    assert "Did you mean 'mini'?" in capsys.readouterr().err
    monkeypatch.setattr(bench, "find_spec", lambda name: None)
    assert main([*SMALL, "--against", "torch"]) == 2
    assert "pip install 'tinyalex[parity]'" in capsys.readouterr().err


def test_without_a_module_that_windows_lacks_all_but_the_peak_is_measured():
    """As there: Python has no `resource`, and no other module of its own that knows the peak."""
    program = (
        "import sys; sys.modules['resource'] = None\n"
        "from tinyalex.bench.workload import peak_bytes\n"
        "sys.platform = 'win32'; print(peak_bytes())"
    )
    command = [sys.executable, "-c", program]
    child = subprocess.run(command, capture_output=True, text=True, check=True)
    assert child.stdout == "0\n"


def test_the_peak_is_of_this_process_and_not_of_its_parent():
    """A small child of a large process."""
    large = np.ones(100 << 20, np.uint8)
    program = "from tinyalex.bench.workload import peak_bytes; print(peak_bytes())"
    command = [sys.executable, "-c", program]
    child = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 10 << 20 < int(child.stdout) < large.nbytes < peak_bytes()
