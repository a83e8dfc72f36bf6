"""A batch in pieces on one rank: the same step as a whole, in data and in hybrid mode."""

import numpy as np
import pytest
import small
from runs import begun, few_images

from tinyalex import reference
from tinyalex.errors import UsageError
from tinyalex.gpu.device import Place
from tinyalex.gpu.two_gpu import TwoGPU
from tinyalex.net.draws import centre_draws, initial_parameters, training_draws
from tinyalex.net.network import Network
from tinyalex.net.optimizer import SGD
from tinyalex.net.presets import get_architecture
from tinyalex.net.step import train_step
from tinyalex.ranks.ranks import Ranks
from tinyalex.ranks.sums import Tree, cut, tree_sum
from tinyalex.ranks.team import Team
from tinyalex.runs.config import Config
from tinyalex.runs.sharing import shared_out, traffic
from tinyalex.training import start

MODES = ("data", "hybrid")
ALEXNET = get_architecture("alexnet")


def steps(architecture, ops, count, number=3):
    """Parameters and velocities after some steps in float64, and losses and logits of each."""
    parameters = {n: w.astype(np.float64) for n, w in initial_parameters(architecture, 0).items()}
    side, found = architecture.data.image_size, []
    network = Network(architecture, ops, parameters, np.full((side, side, 3), 127.5))
    sgd = SGD(network, architecture.recipe, {n: np.zeros_like(w) for n, w in parameters.items()})
    for i in range(number):
        rng = np.random.default_rng(i)
        images = rng.integers(0, 256, (count, side, side, 3), np.uint8)
        labels = rng.integers(0, architecture.classes, count, np.int32)
        draws = training_draws(architecture, count, np.eye(3), 0, 0, i)
        found += train_step(sgd, images, labels, draws, 0.001)
    found.append(ops.to_numpy(network.logits(images, centre_draws(architecture.data, count))))
    for arrays in (network.parameters, sgd.velocities):
        found += [ops.to_numpy(a) for a in arrays.values()]
    return found


@pytest.mark.parametrize("pieces", [2, 4])
@pytest.mark.parametrize("count", [8, 3, 1])
@pytest.mark.parametrize("architecture", [small.EVERY_KIND, small.TINY], ids=lambda a: a.name)
def test_pieces_of_two_towers_are_the_whole(architecture, count, pieces):
    """Parameters, velocities and answers, whole as in a checkpoint, with a tower at each place."""
    whole = steps(architecture, reference, count)
    towers = TwoGPU(reference, (Place(0), Place(0)))
    found = steps(architecture, Ranks(towers, Team(), pieces, "data"), count)
    for one, other in zip(whole, found, strict=True):
        assert np.abs(one - other).max() <= 1e-12 * np.abs(one).max()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("count", [8, 3, 1])
@pytest.mark.parametrize(
    "architecture", [small.EVERY_KIND, get_architecture("mini")], ids=lambda a: a.name
)
def test_pieces_are_the_whole(architecture, count, mode):
    """With fewer images than pieces, too: some are empty then."""
    whole = steps(architecture, reference, count)
    pieces = steps(architecture, Ranks(reference, Team(), 4, mode), count)
    for one, other in zip(whole, pieces, strict=True):
        assert np.abs(one - other).max() <= 1e-12 * np.abs(one).max()


def test_the_sum_is_a_tree():
    """In float32 the order shows: 1 and three halves of its last bit."""
    half = np.float32(2.0**-24)
    terms = [np.array([x], np.float32) for x in (1, half, half, half)]
    assert tree_sum(terms)[0] == (1 + half) + (half + half) != ((1 + half) + half) + half
    tree = Tree()
    for i in range(8):
        tree.add(np.array([float(i)]))
    assert tree.total[0] == 28


@pytest.mark.parametrize("pieces", [3, 5, 6, 7, 12])
def test_the_tree_is_the_tree_of_what_ranks_have(pieces):
    terms = np.random.default_rng(pieces).normal(size=(pieces, 500)).astype(np.float32)
    whole = tree_sum(terms.copy())
    for each in (n for n in (1, 2, 4) if pieces % n == 0):
        own = [tree_sum(terms[i : i + each].copy()) for i in range(0, pieces, each)]
        assert (tree_sum(own) == whole).all()


@pytest.mark.parametrize("count", [1, 5, 8, 33])
def test_ranks_have_runs_of_pieces(count):
    places = [cut(count, 4, i) for i in range(4)]
    assert [i for c in places for i in range(count)[c]] == list(range(count))

    class Second(Team):
        rank, size, threaded = 1, 2, False

        def __init__(self):
            pass

    own = Ranks(reference, Second(), 4, "data").own(count)
    assert (own.start, own.stop) == (places[2].start, places[3].stop)


def test_traffic_of_alexnet():
    """By hand: 60,965,224 parameters, 2,334,080 of them in convolutions."""
    linear = 9216 + 4096 + 4096
    assert traffic(ALEXNET, 128) == {
        "data": 2 * 4 * 60_965_224,
        "hybrid": 2 * 4 * 2_334_080 + 4 * 128 * (2 * linear + 1000),
    }
    trained, below = 4097 * 1000, 9216 + 4096
    assert traffic(ALEXNET, 128, "fc7") == {
        "data": 2 * 4 * trained,
        "hybrid": 4 * 128 * (below + 2 * 4096 + 1000),
    }
    sends = {n: traffic(ALEXNET, n) for n in (3274, 3275)}
    assert sends[3274]["hybrid"] < sends[3274]["data"]
    assert sends[3275]["hybrid"] > sends[3275]["data"]


@pytest.mark.parametrize(
    ("settings", "size", "expected"),
    [
        ({}, 1, (None, None)),
        ({}, 4, (4, "hybrid")),
        ({"pieces": 8}, 2, (8, "hybrid")),
        ({"parallel": "data"}, 2, (2, "data")),
        ({"batch_size": 4000}, 2, (2, "data")),
        ({}, 3, (3, "hybrid")),
        ({"pieces": 6}, 3, (6, "hybrid")),
        ({"pieces": 6}, 1, (6, "hybrid")),
        ({"freeze": "fc6"}, 2, (2, "hybrid")),
        ({"freeze": "fc7", "batch_size": 600}, 2, (2, "data")),
        ({"gpus": "0,1"}, 2, (2, "data")),
        ({"gpus": "0,1", "pieces": 4, "parallel": "data"}, 1, (4, "data")),
        ({"gpus": "0,1", "pieces": 1024}, 1, (1024, "data")),
    ],
)
def test_the_mode_that_sends_less_is_taken(settings, size, expected):
    team = Team()
    team.size = size
    config = shared_out(Config(**settings).resolved(ALEXNET), ALEXNET, team)
    assert (config.pieces, config.parallel) == expected


@pytest.mark.parametrize(
    ("settings", "size", "word"),
    [
        ({"pieces": 4}, 3, "--pieces 4"),
        ({"pieces": 12}, 2, "start: 1, 3, 6, 12."),
        ({"pieces": 2}, 4, "--pieces 2"),
        ({"pieces": 6}, 2, "--pieces 6"),
        ({"parallel": "data"}, 1, "--parallel data"),
        ({"check_every": 5, "pieces": 2}, 1, "--check-every"),
        ({"parallel": "hybrid", "pieces": 1024}, 1, "1024 pieces"),
        ({"parallel": "hybrid", "gpus": "0,1"}, 2, "--gpus 0,1"),
    ],
)
def test_what_cannot_be_shared_out_is_refused(settings, size, word):
    team = Team()
    team.size = size
    with pytest.raises(UsageError, match=word):
        shared_out(Config(**settings).resolved(ALEXNET), ALEXNET, team)


@pytest.mark.parametrize(
    ("gpus", "expected"),
    [("0", (2,)), ("1", (3,)), ("0,1", (4, 5)), ("0,0", (2, 2)), ("2,0", (8, 6))],
)
def test_ranks_of_a_host_take_its_gpus_in_order(gpus, expected, monkeypatch):
    class Asked(Exception):
        """For a backend on these GPUs."""

    def ask(name, gpus, precision):
        raise Asked(gpus)

    third = Team()
    third.local = 2
    few_images(monkeypatch, 65)
    monkeypatch.setattr(start, "join", lambda: third)
    monkeypatch.setattr(start, "get_backend", ask)
    with pytest.raises(Asked) as asked:
        begun(Config(arch="mini", backend="gpu", gpus=gpus))
    assert asked.value.args == (expected,)


def test_a_parameter_is_whole_again():
    """In the roles that hybrid mode cuts, and in those that it does not."""
    ops = Ranks(reference, Team(), 4, "hybrid")
    a = np.arange(30.0).reshape(10, 3)
    for role in ("both", "images", "tower", "neurons", "head"):
        np.testing.assert_array_equal(ops.to_numpy(ops.asarray(a, role)), a)
    assert len(ops.asarray(a, "neurons").parts) == 4
