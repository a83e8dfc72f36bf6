"""Every kind of layer is everywhere where it must be. A new one is told here what it lacks."""

from __future__ import annotations

import inspect

import naive
import numpy as np
import offline
import pytest
import strategies
from mutations_conv import MUTATIONS as MUTATIONS_CONV
from mutations_layers import MUTATIONS as MUTATIONS_LAYERS
from small import EVERY_KIND, layer_of

from tinyalex import reference
from tinyalex.backend import Backend
from tinyalex.errors import UsageError
from tinyalex.judge.gradcheck import gradcheck
from tinyalex.net.draws import centre_draws, initial_parameters, training_draws
from tinyalex.net.layers import KINDS, Augment, Row
from tinyalex.net.network import Network, plan
from tinyalex.system.backends import get_backend

KERNELS = [*offline.kernels()]
KINDS_WITH_BACKWARD = [kind for kind in KINDS if kind != "augment"]
BACKENDS = [
    ("reference", (0,), "reference/__init__.py"),
    ("gpu", (0,), "gpu/__init__.py"),
    ("gpu", (0, 0), "gpu/two_gpu.py"),
]


def defined(place: object, kind: str) -> list[str]:
    """The functions of a kind that a place has, of forward and backward."""
    return [name for name in (kind, f"{kind}_backward") if hasattr(place, name)]


def wanted(kind: str) -> list[str]:
    return [kind] if kind == "augment" else [kind, f"{kind}_backward"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_a_row_of_the_network_that_has_every_kind(kind):
    """With it a step on two devices and in PyTorch is one of the reference: elsewhere in tests/."""
    assert layer_of(kind).row.kind == kind


def test_every_row_that_is_defined_has_its_kind():
    def leaves(row: type[Row]) -> set[type[Row]]:
        return set().union(*map(leaves, row.__subclasses__())) or {row}

    ours = {row for row in leaves(Row) if row.__module__ == Row.__module__}
    assert ours == set(KINDS.values()), "tinyalex/net/layers.py: KINDS"


@pytest.mark.parametrize("kind", KINDS)
def test_the_protocol_has_a_kind_with_its_arguments(kind):
    """x, then the parameters in the row's order, then its settings: as many as the row gives."""
    assert defined(Backend, kind) == wanted(kind), "tinyalex/backend.py: Backend"
    layer = layer_of(kind)
    takes = list(inspect.signature(getattr(Backend, kind)).parameters)[2:]  # without self and x
    if kind not in ("augment", "dropout"):  # whose arguments are drawn
        assert len(takes) == len(layer.trained) + len(layer.row.settings), "net/layers.py: settings"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "gpus", "file"), BACKENDS)
def test_a_backend_has_a_kind(name, gpus, file, kind):
    assert defined(get_backend(name, gpus), kind) == wanted(kind), file


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

    layer = layer_of(kind)
    h, w, c = layer.input
    side = EVERY_KIND.data.image_size
    images, maps = torch.zeros((2, side, side, 3), dtype=torch.uint8), torch.zeros((2, c, h, w))
    twin = Twin(EVERY_KIND, initial_parameters(EVERY_KIND, 0), np.zeros(3, np.float32))
    draws = centre_draws(EVERY_KIND.data, 2)
    twin.apply(layer.row, images if kind == "augment" else maps, draws)  # its error names the file


@pytest.mark.parametrize("kind", KINDS_WITH_BACKWARD)
def test_a_kind_whose_slope_jumps_is_kinked(kind):
    """Looked for at whole numbers: a ReLU has its 0 there, and a maximum its ties."""
    layer, rng, step = layer_of(kind), np.random.default_rng(0), 1e-6
    network = Network(EVERY_KIND, reference, initial_parameters(EVERY_KIND, 0), np.zeros(3))
    draws = training_draws(EVERY_KIND, 2, np.eye(3), seed=0, epoch=0, batch=0)
    arguments = network.arguments(layer.row, draws)
    x = strategies.integers(rng, (2, *layer.input)).astype(np.float64)
    t = step * rng.standard_normal(x.shape)
    behind, here, ahead = (getattr(reference, kind)(x + d, *arguments)[0] for d in (-t, 0, t))
    jump = np.abs(ahead - 2 * here + behind).max() / step
    assert layer.row.kinked == (jump > 1e-3), f"tinyalex/net/layers.py: {kind} kinked"


def test_every_kernel_is_compiled_without_a_gpu():
    assert sorted(offline.SIZES) == sorted(dict(KERNELS)), "tests/support/offline.py: SIZES"


@pytest.mark.parametrize(("name", "kernel"), KERNELS, ids=[name for name, _ in KERNELS])
def test_a_kernel_has_two_mistakes(name, kernel):
    """Which the agreement of its file's functions with the reference has to notice."""
    file, work = name.partition(".")[0], inspect.getsource(kernel.work)
    mistakes = [m for m in (*MUTATIONS_CONV, *MUTATIONS_LAYERS) if m.file == file and m.old in work]
    assert len(mistakes) >= 2, "tests/support/mutations_layers.py or mutations_conv.py"


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
