"""Networks with a change: what each does to the rows, and what cannot be changed."""

import pytest

from tinyalex.errors import UsageError
from tinyalex.net.layers import LRN, AvgPool, Conv2d, Dropout, Linear, LRNMap, MaxPool, ReLU, Tanh
from tinyalex.net.presets import ARCHITECTURES, get_architecture
from tinyalex.net.shapes import layers
from tinyalex.net.variants import CHANGES


def rows(name, kind):
    return [row for row in get_architecture(name).rows if isinstance(row, kind)]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["alexnet", "2012", "mini", "cifar-18pct"])
def test_a_changed_network_has_its_name_and_still_fits(name, change):
    base, changed = get_architecture(name), get_architecture(f"{name}+{change}")
    assert changed.name == f"{name}+{change}"
    assert changed.source == f"{base.source}; {CHANGES[change].help}"
    assert changed.recipe == base.recipe
    assert changed.classes == base.classes
    assert layers(changed.rows)
    assert get_architecture(f"{name}+{change}+{change}").rows == changed.rows or change == "half"


def test_what_each_change_does():
    assert not rows("mini+tanh", ReLU)
    assert [row.name for row in rows("mini+tanh", Tanh)] == [f"tanh{i}" for i in range(1, 8)]
    assert not rows("alexnet+no-lrn", LRN)
    assert not rows("cifar-18pct+no-lrn", LRNMap)
    assert not rows("2012+no-lrn", LRN | LRNMap)
    assert {(r.size, r.stride) for r in rows("alexnet+pool-2", MaxPool)} == {(2, 2)}
    assert {(r.size, r.stride) for r in rows("cifar-18pct+pool-2", MaxPool | AvgPool)} == {(2, 2)}
    assert not rows("alexnet+no-dropout", Dropout)
    assert not get_architecture("mini+no-augmentation").data.crops
    assert not get_architecture("mini+no-augmentation").data.flip
    assert get_architecture("mini+colour").data.colour == 0.1
    assert get_architecture("2012+no-colour").data.colour == 0
    assert get_architecture("2012+no-colour").data.train_scale == 1
    plain = get_architecture("cifar-18pct+plain")
    assert {row.weight_decay for row in plain.rows if isinstance(row, Conv2d | Linear)} == {0}
    assert get_architecture("alexnet+ungrouped").rows == ARCHITECTURES["ungrouped"].rows
    assert get_architecture("alexnet+paper-init").rows == ARCHITECTURES["paper"].rows
    assert get_architecture("mini+tanh+no-lrn").rows == get_architecture("mini+no-lrn+tanh").rows


@pytest.mark.parametrize("name", ["alexnet", "cifar-18pct"])
def test_pools_apart_leave_maps_of_the_same_size(name):
    """So the paper compared them (section 3.4)."""

    def sizes(name):
        return [cost.output for cost in layers(get_architecture(name).rows)]

    assert sizes(f"{name}+pool-2") == sizes(name)


def test_half_is_the_papers_one_gpu_network():
    """59.80 million parameters: original layers-145-half.cfg."""
    half = get_architecture("alexnet+half")
    assert sum(cost.parameters for cost in layers(half.rows)) == 59_798_312
    assert [row.channels for row in rows("alexnet+half", Conv2d)] == [48, 128, 192, 192, 256]
    assert not half.has_towers


def test_a_convolution_goes_with_its_activation():
    names = [row.name for row in get_architecture("alexnet").rows]
    without = [row.name for row in get_architecture("alexnet+without-conv3").rows]
    assert without == [name for name in names if name not in ("conv3", "relu3")]
    without = [row.name for row in get_architecture("2012+without-conv5").rows]
    assert {"conv4", "relu4", "pool5", "relu5"} <= set(without)  # relu5 comes after the pool


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("alexnet+tan", "Did you mean 'tanh'"),
        ("alexnet+", "There is no change ''"),
        ("alexnt+tanh", "Did you mean 'alexnet'"),
        ("alexnet+without-conv1", "It has conv2, conv3, conv4, conv5"),
        ("alexnet+without-fc6", "It has conv2, conv3, conv4, conv5"),
        ("alexnet+pool-2+pool-2+without-conv2+no-such", "no-such"),
    ],
)
def test_what_does_not_exist_is_said(name, words):
    with pytest.raises(UsageError) as error:
        get_architecture(name)
    assert words in str(error.value)
