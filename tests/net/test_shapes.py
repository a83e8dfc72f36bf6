"""Sizes and counts, against counting by hand and against the published numbers."""

import math

import naive
import pytest
import small
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tinyalex.errors import UsageError
from tinyalex.net.layers import LRN, Augment, AvgPool, Conv2d, Linear, MaxPool, ReLU
from tinyalex.net.presets import ARCHITECTURES, get_architecture
from tinyalex.net.shapes import layers
from tinyalex.net.windows import conv_size

DATA = Augment("data", size=8, image_size=8)

sides, sizes, strides = st.integers(1, 30), st.integers(1, 12), st.integers(1, 6)


@example(2, 1, 2, 0, True)  # one more window would begin beyond the border
@given(sides, sizes, strides, st.integers(0, 3), st.booleans())
def test_conv_size_counts_the_windows(n, size, stride, pad, ceil):
    windows = naive.starts(n + 2 * pad, size, stride, ceil)
    if windows:
        assert conv_size(n, size, stride, pad, ceil) == len(windows)
    else:
        with pytest.raises(ValueError, match="does not fit"):
            conv_size(n, size, stride, pad, ceil)


@given(sides, sizes, strides)
def test_conv_size_rounds_up_as_in_2012(n, size, stride):
    """1 + ceil((n - size) / stride), of a window that fits and has no gap to the next."""
    assume(stride <= size <= n)
    assert conv_size(n, size, stride, 0, ceil=True) == 1 + math.ceil((n - size) / stride)


def test_windows_over_nothing_are_refused():
    with pytest.raises(ValueError, match="does not fit into 0 pixels"):
        conv_size(0, 3, 2, pad=1, ceil=True)


@pytest.mark.parametrize(
    ("name", "parameters", "macs", "neurons"),
    [
        ("alexnet", 60_965_224, 724_406_816, 659_272),
        ("paper", 60_965_224, 724_406_816, 659_272),
        ("2012", 60_965_224, 724_406_816, 659_272),
        ("caffe", 60_965_224, 724_406_816, 659_272),
        ("caffenet", 60_965_224, 724_406_816, 659_272),
        ("owt-2014", 61_100_840, 714_188_480, 494_184),
        ("ungrouped", 62_378_344, 1_135_256_096, 659_272),
        ("owt", 61_100_840, 714_188_480, 494_184),
        ("cifar-19pct", 89_578, 12_298_240, 45_066),
        ("cifar-18pct", 89_578, 12_298_240, 45_066),
    ],
)
def test_counts_of_a_preset(name, parameters, macs, neurons):
    counted = layers(ARCHITECTURES[name].rows)
    assert sum(layer.parameters for layer in counted) == parameters
    assert sum(layer.macs for layer in counted) == macs
    assert sum(layer.neurons for layer in counted) == neurons


@pytest.mark.parametrize("name", ["alexnet", "paper", "2012", "caffe", "caffenet"])
def test_alexnet_layer_by_layer(name):
    table = {  # weights, biases, multiply-adds, neurons
        "conv1": (34_848, 96, 105_415_200, 290_400),
        "conv2": (307_200, 256, 223_948_800, 186_624),
        "conv3": (884_736, 384, 149_520_384, 64_896),
        "conv4": (663_552, 384, 112_140_288, 64_896),
        "conv5": (442_368, 256, 74_760_192, 43_264),
        "fc6": (37_748_736, 4_096, 37_748_736, 4_096),
        "fc7": (16_777_216, 4_096, 16_777_216, 4_096),
        "fc8": (4_096_000, 1_000, 4_096_000, 1_000),
    }
    counted = {}
    for layer in layers(ARCHITECTURES[name].rows):
        if layer.weight:
            numbers = (math.prod(p.shape) for p in layer.trained.values())
            counted[layer.row.name] = (*numbers, layer.macs, layer.neurons)
    assert counted == table


def test_alexnet_map_by_map():
    maps = {layer.row.name: layer.output for layer in layers(ARCHITECTURES["alexnet"].rows)}
    assert maps["data"] == (227, 227, 3)
    assert maps["conv1"] == maps["norm1"] == (55, 55, 96)
    assert maps["pool1"] == (27, 27, 96)
    assert maps["conv2"] == (27, 27, 256)
    assert maps["pool2"] == (13, 13, 256)
    assert maps["conv3"] == maps["conv4"] == (13, 13, 384)
    assert maps["pool5"] == (6, 6, 256)
    assert maps["fc6"] == maps["drop7"] == (1, 1, 4096)
    assert maps["fc8"] == (1, 1, 1000)


def test_the_network_of_2012_map_by_map():
    """224 pixels and 3 zeros make 55 windows of 11, and what lies above is alexnet's."""
    maps = {layer.row.name: layer.output for layer in layers(ARCHITECTURES["2012"].rows)}
    assert maps["data"] == (224, 224, 3)
    assert maps["conv1"] == maps["norm1"] == (55, 55, 96)
    assert maps["pool1"] == maps["relu1"] == (27, 27, 96)
    assert maps["conv2"] == maps["norm2"] == maps["mapnorm2"] == (27, 27, 256)
    assert maps["pool2"] == (13, 13, 256)
    assert maps["conv5"] == (13, 13, 256)
    assert maps["pool5"] == maps["relu5"] == (6, 6, 256)


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=lambda a: a.name)
def test_the_last_layer_takes_the_number_of_classes(architecture):
    changed = architecture.with_classes(7)
    assert changed.classes == layers(changed.rows)[-1].output[2] == 7
    assert changed.rows[:-1] == architecture.rows[:-1]


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=lambda a: a.name)
def test_every_network_can_be_made_small(architecture):
    little = small.shrunk(architecture)
    rows = [layer.row for layer in layers(little.rows)]
    assert [(row.name, row.kind) for row in rows] == [
        (row.name, row.kind) for row in architecture.rows
    ]
    assert sum(layer.parameters for layer in layers(little.rows)) < 200_000
    assert (little.data, little.classes) == (architecture.data, architecture.classes)
    assert little.has_towers == architecture.has_towers


def test_an_unknown_architecture_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match="Did you mean 'alexnet'"):
        get_architecture("alexnet2")


@pytest.mark.parametrize(
    "row",
    [
        Conv2d("odd", 6, size=3, groups=2),
        Conv2d("odd", 5, size=3, groups=3),
        Conv2d("odd", 6, size=13, pad=2),
        MaxPool("odd", 9, 2),
        AvgPool("odd", 9, 2),
        LRN("odd", groups=2),
    ],
)
def test_a_row_that_does_not_fit_is_named(row):
    with pytest.raises(ValueError, match=r"^odd: "):
        layers((DATA, row, ReLU("relu"), Linear("fc", 10)))


@pytest.mark.parametrize("rows", [(), (ReLU("relu"),)])
def test_a_network_begins_with_augment(rows):
    with pytest.raises(ValueError, match="Augment"):
        layers(rows)
