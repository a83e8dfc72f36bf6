"""The update rule."""

from collections.abc import Sequence
from functools import partial

from tinyalex.reference.threads import in_pieces, in_runs
from tinyalex.system.arrays import Array


def sgd_update(
    weights: Sequence[Array],
    gradients: Sequence[Array],
    velocities: Sequence[Array],
    rates: Sequence[float],
    momentum: float,
    decays: Sequence[float],
) -> None:
    """v = momentum v - decay rate w - rate dw, then w = w + v, in place. Section 5 of the paper.

    Weights, gradients and velocities are lists of like-shaped arrays; each has its own rate and
    weight decay. The paper: momentum .9, decay 5e-4, dw the mean over the batch.
    """
    for w, dw, v, rate, decay in zip(weights, gradients, velocities, rates, decays, strict=True):
        if not w.shape == dw.shape == v.shape:
            raise ValueError(f"weights {w.shape}, gradient {dw.shape}, velocity {v.shape}")
        if not (w.flags.c_contiguous and v.flags.c_contiguous):
            raise ValueError("what is updated in place has to be contiguous")
        flat = w.reshape(-1), dw.reshape(-1), v.reshape(-1)
        in_pieces(partial(_update, *flat, rate, momentum, decay), w.size, w.nbytes)


def _update(
    w: Array, dw: Array, v: Array, rate: float, momentum: float, decay: float, piece: slice
) -> None:
    for run in in_runs(piece, 3 * w.itemsize):
        v[run] *= momentum
        v[run] -= decay * rate * w[run] + rate * dw[run]
        w[run] += v[run]
