"""The presets as their sources have them: what each does otherwise than `alexnet`, to the digit."""

import re
from dataclasses import asdict
from pathlib import Path

import pytest

from tinyalex.net.presets import ARCHITECTURES
from tinyalex.reports.summary import summary

ALEXNET = ARCHITECTURES["alexnet"]

# The paper's text; layers-145.cfg with layer-params-145.cfg; bvlc_alexnet's train_val.prototxt.
DIFFERENCES = {
    "paper": {"conv3.init_std": 0.01, "conv4.init_std": 0.01, "conv5.init_std": 0.01},
    "2012": {
        "data.size": 224,
        "data.train_scale": 1 / 1.1,
        "conv1.ceil": True,
        "norm1.alpha": 2e-5,
        "norm2.alpha": 2e-5,
    },
    "caffe": {
        "data.colour": 0,
        "norm1.k": 1,
        "norm1.alpha": 2e-5,
        "norm1.groups": 1,
        "conv2.bias": 0.1,
        "norm2.k": 1,
        "norm2.alpha": 2e-5,
        "norm2.groups": 1,
        "conv3.init_std": 0.01,
        "conv4.init_std": 0.01,
        "conv4.bias": 0.1,
        "conv5.init_std": 0.01,
        "conv5.bias": 0.1,
        "fc6.init_std": 0.005,
        "fc6.bias": 0.1,
        "drop6.scale_at": "train",
        "fc7.init_std": 0.005,
        "fc7.bias": 0.1,
        "drop7.scale_at": "train",
    },
    "caffenet": {
        "data.colour": 0,
        "norm1.k": 1,
        "norm1.alpha": 2e-5,
        "norm1.groups": 1,
        "norm2.k": 1,
        "norm2.alpha": 2e-5,
        "norm2.groups": 1,
        "conv3.init_std": 0.01,
        "conv4.init_std": 0.01,
        "conv5.init_std": 0.01,
        "fc6.init_std": 0.005,
        "drop6.scale_at": "train",
        "fc7.init_std": 0.005,
        "drop7.scale_at": "train",
    },
    "ungrouped": {f"{row}.groups": 1 for row in ("norm1", "conv2", "norm2", "conv4", "conv5")},
}

RECIPES = {
    "paper": {"bias_lr_multiplier": 1},
    "2012": {"lr_scheduler": "2012"},
    "caffe": {"batch_size": 256, "lr_scheduler": "step", "lr_step_size": 20},
    "caffenet": {"batch_size": 256, "lr_scheduler": "step", "lr_step_size": 20},
    "ungrouped": {},
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_preset_differs_from_alexnet_as_its_source_does(name):
    rows = {row.name: row for row in ALEXNET.rows}
    found = {
        f"{row.name}.{key}": value
        for row in ARCHITECTURES[name].rows
        if row.name in rows
        for key, value in asdict(row).items()
        if value != asdict(rows[row.name])[key]
    }
    assert found == pytest.approx(DIFFERENCES[name])


@pytest.mark.parametrize("name", RECIPES)
def test_a_preset_is_trained_as_its_source_was(name):
    usual, own = asdict(ALEXNET.recipe), asdict(ARCHITECTURES[name].recipe)
    assert {key: value for key, value in own.items() if value != usual[key]} == RECIPES[name]


def test_alexnet_is_in_the_order_of_the_paper_and_2012_in_its_own():
    assert kinds("alexnet") == kinds("paper") == kinds("caffe") == kinds("ungrouped")
    assert kinds("alexnet")[:9] == [
        *("augment", "conv2d", "relu", "lrn", "max_pool"),
        *("conv2d", "relu", "lrn", "max_pool"),
    ]
    assert kinds("2012")[:10] == [
        *("augment", "conv2d", "lrn", "max_pool", "relu"),
        *("conv2d", "relu", "lrn", "lrn_map", "max_pool"),
    ]
    assert kinds("2012")[10:14] == kinds("alexnet")[9:13]
    assert kinds("2012")[14:17] == ["conv2d", "max_pool", "relu"]
    assert kinds("2012")[17:] == kinds("alexnet")[16:]
    mapnorm2 = asdict(ARCHITECTURES["2012"].rows[8])
    assert mapnorm2 == {"name": "mapnorm2", "n": 5, "k": 1, "alpha": 4e-5, "beta": 0.75}


def test_caffenet_has_each_pool_before_its_normalisation():
    assert kinds("caffenet")[:9] == [
        *("augment", "conv2d", "relu", "max_pool", "lrn"),
        *("conv2d", "relu", "max_pool", "lrn"),
    ]
    assert kinds("caffenet")[9:] == kinds("alexnet")[9:]


def test_owt_2014_is_owt_in_the_layers_of_2012():
    """layers-imagenet-1gpu.cfg: the windows of owt's filters, all else as in network 145."""
    ours, owt = ({r.name: r for r in ARCHITECTURES[n].rows} for n in ("owt-2014", "owt"))
    layers = [f"conv{i}" for i in range(1, 6)]
    assert [ours[n].channels for n in layers] == [owt[n].channels for n in layers]
    assert [k for k in kinds("2012") if k != "lrn_map"] == kinds("owt-2014")
    norms = {(r.n, r.k, r.alpha, r.beta, r.groups) for r in ours.values() if r.kind == "lrn"}
    assert norms == {(5, 2, 1e-4 / 5, 0.75, 1)}
    assert [getattr(r, "bias", None) for r in ours.values() if hasattr(r, "bias")] == [
        *(0, 1, 0, 1, 1),
        *(1, 1, -7),
    ]


def kinds(name):
    return [row.kind for row in ARCHITECTURES[name].rows]


def test_the_readme_counts_every_network_right():
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    table = re.findall(r"^\| (`.*`) \| .* \| ([\d,]+) \| ([\d,]+) \|$", readme, re.MULTILINE)
    told = {name.strip("`"): row[1:] for row in table for name in row[0].split(", ")}
    counts = {name: summary(architecture) for name, architecture in ARCHITECTURES.items()}
    assert told == {n: (f"{c['parameters']:,}", f"{c['macs']:,}") for n, c in counts.items()}
