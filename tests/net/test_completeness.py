"""Every kind of layer is everywhere where it must be. A new one is told here what it lacks."""

from __future__ import annotations

import inspect

import naive
import numpy as np
import pytest
import strategies
from small import EVERY_KIND

from tinyalex.backend import Backend
from tinyalex.errors import UsageError
from tinyalex.judge.gradcheck import gradcheck
from tinyalex.net.layers import KINDS, Augment, Row
from tinyalex.net.network import plan
from tinyalex.net.shapes import layers
from tinyalex.system.backends import get_backend

KINDS_WITH_BACKWARD = [kind for kind in KINDS if kind != "augment"]
BACKENDS = [("reference", (0,)), ("gpu", (0,)), ("gpu", (0, 0))]


def defined(place: object, kind: str) -> list[str]:
    """The functions of a kind that a place has, of forward and backward."""
    return [name for name in (kind, f"{kind}_backward") if hasattr(place, name)]


def wanted(kind: str) -> list[str]:
    return [kind] if kind == "augment" else [kind, f"{kind}_backward"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_a_row_of_the_network_that_has_every_kind(kind):
    assert kind in {row.kind for row in EVERY_KIND.rows}, "tests/support/small.py: EVERY_KIND"


def test_every_row_that_is_defined_has_its_kind():
    def leaves(row: type[Row]) -> set[type[Row]]:
        return set().union(*map(leaves, row.__subclasses__())) or {row}

    ours = {row for row in leaves(Row) if row.__module__ == Row.__module__}
    assert ours == set(KINDS.values()), "tinyalex/net/layers.py: KINDS"


@pytest.mark.parametrize("kind", KINDS)
def test_the_protocol_has_a_kind_with_its_arguments(kind):
    """x, then the parameters in the row's order, then its settings: as many as the row gives."""
    assert defined(Backend, kind) == wanted(kind), "tinyalex/backend.py: Backend"
    layer = next(layer for layer in layers(EVERY_KIND.rows) if layer.row.kind == kind)
    takes = list(inspect.signature(getattr(Backend, kind)).parameters)[2:]  # without self and x
    if kind not in ("augment", "dropout"):  # whose arguments are drawn
        assert len(takes) == len(layer.trained) + len(layer.row.settings), "net/layers.py: settings"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "gpus"), BACKENDS)
def test_a_backend_has_a_kind(name, gpus, kind):
    ops = get_backend(name, gpus)
    assert defined(ops, kind) == wanted(kind), f"{name}, on {len(gpus)} devices"


@pytest.mark.parametrize("kind", KINDS)
def test_the_tests_have_a_kind(kind):
    assert defined(naive, kind) == wanted(kind), "tests/support/naive.py: plain loops"
    assert kind in strategies.ARGUMENTS, "tests/support/strategies.py: ARGUMENTS"


@pytest.mark.torch
@pytest.mark.parametrize("kind", KINDS)
def test_pytorch_has_a_kind(kind):
    pytest.importorskip("torch", reason="PyTorch, the judge here, is not installed")
    import torch

    from tinyalex.judge.torch_twin import Twin
    from tinyalex.net.draws import centre_draws, initial_parameters

    side = EVERY_KIND.data.image_size
    twin = Twin(EVERY_KIND, initial_parameters(EVERY_KIND, 0), np.zeros(3, np.float32))
    draws = centre_draws(EVERY_KIND.data, 2)
    x = torch.zeros((2, side, side, 3), dtype=torch.uint8)
    for row in EVERY_KIND.rows:
        x = twin.apply(row, x, draws)  # UsageError names the place
        if row.kind == kind:
            return
    pytest.fail("tinyalex/judge/torch_twin.py")


def test_gradcheck_covers_every_kind():
    results = gradcheck(EVERY_KIND, get_backend("reference"))
    assert {result.kind for result in results} >= set(KINDS_WITH_BACKWARD)
    assert all(result.ok for result in results)


def test_compare_knows_the_decisions_inside_of_every_fusion():
    """A ReLU or a maximum behind the first layer of a fusion: see compare.clear_decisions."""
    fused = {kind for kinds in get_backend("gpu").fusions for kind in kinds[1:]}
    assert {kind for kind in fused if KINDS[kind].kinked} == {"relu", "max_pool"}


class Swish(Row):
    """A layer that no backend has."""

    kind = "swish"


def test_a_layer_that_a_backend_lacks_is_a_mistake_of_the_user():
    rows = (Augment("data", size=4, image_size=4), Swish("swish1"))
    with pytest.raises(UsageError, match=r"The reference backend has no 'swish'.* swish1 is"):
        plan(rows, get_backend("reference"))


@pytest.mark.torch
def test_a_layer_that_pytorch_lacks_is_a_mistake_of_the_user():
    torch = pytest.importorskip("torch", reason="PyTorch, the judge here, is not installed")
    from tinyalex.judge.torch_twin import Twin

    twin = Twin(EVERY_KIND, {}, 0.0)
    with pytest.raises(UsageError, match=r"PyTorch has no 'swish'.* swish1 is"):
        twin.apply(Swish("swish1"), torch.zeros(1), None)
