"""Layers computed as one, made of a backend's primitives: what a fusion has to agree with."""

import functools
import inspect
from types import SimpleNamespace

import checks
import numpy as np
import strategies
from hypothesis import strategies as st
from strategies import BOOLEANS, STRIDES, between, drawn

from tinyalex import reference
from tinyalex.backend import Backend

OFFERED = [*Backend.__annotations__, *(name for name in vars(Backend) if not name.startswith("_"))]
"""What every backend has, by name."""

RUNS = {
    "augment_conv2d": ("augment", "conv2d"),
    "relu_conv2d": ("relu", "conv2d"),
    "lrn_max_pool": ("lrn", "max_pool"),
    "relu_lrn_max_pool": ("relu", "lrn", "max_pool"),
    "relu_max_pool": ("relu", "max_pool"),
    "linear_relu_dropout": ("linear", "relu", "dropout"),
}


def with_fusions(ops, **functions):
    """The primitives of a backend with fusions under their names, or others made of them."""
    table = {f"{op}{end}": f for op, run in RUNS.items() for end, f in composed(ops, run).items()}
    return replaced(ops, **table | functions)


def replaced(ops, **functions):
    """A backend with some functions replaced, or more of them."""
    return SimpleNamespace(**{name: getattr(ops, name) for name in OFFERED} | functions)


def broken(op, change):
    """The reference with a function whose result is changed."""
    right = getattr(reference, op)
    return with_fusions(reference, fusions={}, **{op: lambda *arguments: change(right(*arguments))})


def composed(ops, run):
    """The forward and the backward of a run of layers, one after the other."""

    def forward(x, *arguments):
        caches, arguments = [], list(arguments)
        for kind in run:
            count = len(inspect.signature(getattr(reference, kind)).parameters) - 1
            x, cache = getattr(ops, kind)(x, *arguments[:count])
            del arguments[:count]
            caches.append(cache)
        return x, caches

    def backward(dy, caches):
        parameters = ()
        below = (*reversed(run[:-1]), None)
        for kind, next_kind, cache in zip(reversed(run), below, reversed(caches), strict=True):
            if kind == "augment":
                return None, *parameters
            options = {"need_dx": False} if next_kind == "augment" else {}  # as in a network
            gradients = checks.backward(ops, kind, dy, cache, **options)
            dy = gradients.pop("dx", None)
            parameters = (*gradients.values(), *parameters)
        return (dy, *parameters) if parameters else dy

    return {"": forward, "_backward": backward}


def no_kink_near(call):
    """Whether rounding changes no sign before a ReLU, where gradients jump."""
    run = RUNS[call.op]
    if call.fill is strategies.integers or "relu" not in run[1:]:
        return True
    below = composed(reference, run[: run.index("relu")])[""]
    x, *rest = call.arguments_as(np.float64)
    z, _ = below(x, *rest)
    x, *rest = (np.abs(a) if isinstance(a, np.ndarray) else a for a in (x, *rest))
    terms, _ = below(x, *rest)
    return bool((np.abs(z) > checks.SUMS * np.finfo(np.float32).eps * terms).all())


@drawn
def linear_relu_dropout(draw, fill):
    x, w, b = draw(strategies.linear(fill))
    mask = np.random.default_rng(draw(strategies.SEEDS)).integers(0, 2, (len(x), len(w)), np.uint8)
    return x, w, b, mask if draw(BOOLEANS) else None, draw(strategies.factors(fill))


@drawn
def augment_conv2d(draw, fill):
    *views, size, scale = draw(strategies.augment(fill))
    stride, pad, ceil = draw(STRIDES), draw(between(0, 2)), draw(BOOLEANS)
    groups = 3 if draw(BOOLEANS) else 1
    kh, kw = (draw(between(1, 4 if ceil else min(4, size + 2 * pad))) for _ in "hw")
    O = groups * draw(between(1, 3))
    rng = np.random.default_rng(draw(strategies.SEEDS))
    w = fill(rng, (O, kh, kw, 3 // groups))
    return *views, size, scale, w, fill(rng, (O,)), stride, pad, groups, ceil


@drawn
def lrn_max_pool(draw, fill):
    x, *normalisation = draw(strategies.lrn(fill))
    ceil, stride = draw(BOOLEANS), draw(STRIDES)
    size = draw(between(1, 4 if ceil else min(4, *x.shape[1:3])))
    return x, *normalisation, size, stride, ceil


def winners_are_clear(call):
    """Whether rounding changes no maximum of a max pool: others are equal or clearly less."""
    x, n, k, alpha, beta, groups, size, stride, ceil = call.arguments_as(np.float64)
    if call.op.startswith("relu"):
        x, _ = reference.relu(x)
    z, _ = reference.lrn(x, n, k, alpha, beta, groups)
    y, _ = reference.max_pool(z, size, stride, ceil)
    near = 2 * checks.POWERS * np.finfo(np.float32).eps
    (_, H, W, _), (_, Ho, Wo, _) = z.shape, y.shape
    for i, h in reference.pool.taps(H, Ho, size, stride):
        for j, v in reference.pool.taps(W, Wo, size, stride):
            maximum, gap = y[:, i, j], y[:, i, j] - z[:, h, v]
            if ((gap > 0) & (gap <= near * np.abs(maximum))).any():
                return False
    return True


ARGUMENTS = {
    "augment_conv2d": augment_conv2d,
    "linear_relu_dropout": linear_relu_dropout,
    "lrn_max_pool": lrn_max_pool,
    "relu_conv2d": strategies.conv2d,
    "relu_lrn_max_pool": lrn_max_pool,
    "relu_max_pool": strategies.max_pool,
}


@functools.cache
def calls(op, fill):
    """Calls of a fusion or of a layer."""
    if op not in ARGUMENTS:
        return strategies.calls(op, fill)
    arguments = ARGUMENTS[op](fill)
    drawn = st.builds(strategies.Call, st.just(op), arguments, st.just(fill), strategies.SEEDS)
    return drawn.filter(winners_are_clear if "lrn_max_pool" in op else no_kink_near)
