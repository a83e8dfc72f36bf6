"""Other programs' networks: their rows come to what was counted there; presets are as said."""

import json

import numpy as np
import pytest

from tinyalex.cli.parser import main
from tinyalex.net.draws import initial_parameters
from tinyalex.net.layers import Augment, Dropout
from tinyalex.net.presets import ARCHITECTURES
from tinyalex.net.shapes import parameters
from tinyalex.reports.namesakes import NAMESAKES, PRESET, namesakes
from tinyalex.reports.weighing import weighed
from tinyalex.system.backends import get_backend

# Counted in the programs themselves, run at their own size, or by hand where they do not install.
COUNTED = {
    "torchvision": (61_100_840, 714_188_480, "55-27-13-6"),
    "paddle": (61_100_840, 714_188_480, "55-27-13-6"),
    "gluon": (61_100_840, 714_188_480, "55-27-13-6"),
    "mxnet-symbols": (50_844_008, 1_009_945_728, "54-26-12-5"),
    "caffe2": (61_100_840, 714_188_480, "55-27-13-6"),
    "cuda-convnet2": (61_100_840, 714_188_480, "55-27-13-6"),
    "tf-slim": (50_303_912, 736_555_776, "54-26-12-5"),
    "onnx-zoo": (60_965_224, 654_560_384, "54-26-12-6"),
    "caffe": (60_965_224, 724_406_816, "55-27-13-6"),
    "matconvnet": (60_965_224, 724_406_816, "55-27-13-6"),
    "theano_alexnet": (60_965_224, 724_406_816, "55-27-13-6"),
    "chainer": (62_378_344, 1_135_256_096, "55-27-13-6"),
    "darknet": (62_378_344, 1_135_256_096, "55-27-13-6"),
    "pytorchcv": (62_378_344, 1_131_457_664, "54-27-13-6"),
    "pytorchcv-b": (61_100_840, 714_188_480, "55-27-13-6"),
    "dl4j": (62_378_344, 1_131_457_664, "54-27-13-6"),
}

# Read in the sources, not off rows: k and alpha of the normalisation, the order of layers 1 and 2,
# where dropout stands (<, before fc6 and fc7; >, behind them) and what it does at test.
CRP, CRNP, CRPN, CNPR = (
    "conv ReLU pool",
    "conv ReLU norm pool",
    "conv ReLU pool norm",
    "conv norm pool ReLU",
)
READ = {
    "torchvision": ("none", CRP, CRP, "inverted <"),
    "paddle": ("none", CRP, CRP, "x 0.5 <"),
    "gluon": ("none", CRP, CRP, "inverted >"),
    "mxnet-symbols": ("1 2e-05", CRPN, CRPN, "inverted >"),
    "caffe2": ("none", CRP, CRP, "none"),
    "cuda-convnet2": ("2 2e-05", CNPR, CRNP, "x 0.5 >"),
    "tf-slim": ("none", CRP, CRP, "inverted >"),
    "onnx-zoo": ("1 2e-05", CRNP, CRNP, "inverted >"),
    "caffe": ("1 2e-05", CRNP, CRNP, "inverted >"),
    "matconvnet": ("1 2e-05", CRNP, CRNP, "inverted >"),
    "theano_alexnet": ("2 0.0001", CRPN, CRPN, "x 0.5 >"),
    "chainer": ("2 0.0001", CRNP, CRNP, "inverted >"),
    "darknet": ("none", CRP, CRP, "inverted >"),
    "pytorchcv": ("2 2e-05", CRNP, CRNP, "inverted >"),
    "pytorchcv-b": ("none", CRP, CRP, "inverted >"),
    "dl4j": ("2 0.0001", CRNP, CRPN, "inverted >"),
}


@pytest.mark.parametrize("name", COUNTED)
def test_a_namesake_s_rows_are_what_was_read(name):
    """As rows are taken from presets, this fails if a preset changes in what its source has."""
    (namesake,) = [n for n in NAMESAKES if n.name == name]
    read = namesake.aspects()
    norm = read["normalisation"].replace("k ", "").replace("alpha ", "")
    dropout = read["dropout"].replace(" at test", "").replace(", in training", "")
    place = {"before": "<", "after": ">"}
    dropout, _, where = dropout.partition("; ")
    found = (
        norm.replace(", all channels", "").replace(",", ""),
        read["layer 1"].replace(",", ""),
        read["layer 2"].replace(",", ""),
        f"{dropout} {place[where.split()[0]]}" if where else dropout,
    )
    assert found == READ[name]


@pytest.mark.parametrize("name", COUNTED)
def test_a_namesake_s_rows_come_to_what_was_counted(name):
    (namesake,) = [n for n in NAMESAKES if n.name == name]
    read = namesake.aspects()
    found = (int(read[key].replace(",", "")) for key in ("parameters", "multiply-adds"))
    assert (*found, read["maps"]) == COUNTED[name]


def test_every_namesake_tells_everything():
    assert {n.name for n in NAMESAKES if n.rows} == set(COUNTED)
    keys = [set(n.aspects()) for n in NAMESAKES]
    assert all(key == keys[0] for key in keys)
    assert all(n.source and n.start and n.preset for n in NAMESAKES)


def without_dropout_and_images(rows):
    return [row for row in rows if not isinstance(row, Dropout | Augment)]


@pytest.mark.parametrize("namesake", [n for n in NAMESAKES if n.rows], ids=lambda n: n.name)
def test_a_preset_that_is_named_has_these_layers(namesake):
    """But for dropout and the input's size, of which the same cell of the table speaks."""
    first = namesake.preset.split()[0].strip(",;")
    if first == "none:":
        assert all(namesake.rows != preset.rows for preset in ARCHITECTURES.values())
        return
    ours, theirs = ARCHITECTURES[first].rows, namesake.rows
    if namesake.name == "onnx-zoo":
        assert ours[0].size == 227 != theirs[0].size
    elif "dropout" not in namesake.preset and namesake.name not in ("gluon", "pytorchcv-b"):
        assert [r for r in ours if isinstance(r, Dropout)] == [
            r for r in theirs if isinstance(r, Dropout)
        ]
    for mine, other in zip(*map(without_dropout_and_images, (ours, theirs)), strict=True):
        assert mine == other or (namesake.name == "onnx-zoo" and mine.name == "pool5")


def test_owt_starts_as_pytorch_s_layers_do():
    """Held against PyTorch 2.13: every weight and bias within 1/sqrt(inputs), std of a uniform."""
    drawn = initial_parameters(ARCHITECTURES["owt"], seed=0)
    for name, inputs in (("conv1", 363), ("conv5", 2304), ("fc6", 9216), ("fc8", 4096)):
        for kind in ("weight", "bias"):
            values = drawn[f"{name}.{kind}"] * np.sqrt(inputs)
            assert 0.9 < np.abs(values).max() < 1 + 1e-6
            assert values.std() == pytest.approx(3**-0.5, abs=0.09 if kind == "bias" else 0.01)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_biases_decay_in_owt_alone(name):
    """As torchvision's references/classification/train.py has it; Caffe's decay_mult is 0."""
    decays = {p.decay for p in parameters(ARCHITECTURES[name].rows).values() if p.bias}
    assert decays == ({None} if name == "owt" else {0})


@pytest.mark.parametrize(("columns", "widest"), [(40, 60), (80, 80), (120, 96)])
def test_the_table_fits_the_terminal(columns, widest, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["summary", "--namesakes"]) == 0
    longest = max(map(len, capsys.readouterr().out.splitlines()))
    assert widest - 10 < longest <= widest


def test_the_command_prints_all_of_them(capsys):
    assert main(["summary", "--namesakes"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n{n.name}" in f"\n{out}" for n in NAMESAKES)
    assert main(["summary", "--namesakes", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == namesakes()
    assert [d["aspect"] for d in found["differences"]][-1] == PRESET


@pytest.mark.slow
def test_k_matters_and_the_division_of_alpha_does_not():
    moved = weighed(get_backend("reference"))
    assert moved["k 1, not 2"]["norm1"] == pytest.approx(2**0.75, rel=0.05)
    assert moved["k 1, not 2"]["logits"] > 10 * moved["alpha / 5"]["logits"]
    assert moved["across both towers"]["logits"] < 0.01
    assert moved["no normalisation"]["norm1"] is None
