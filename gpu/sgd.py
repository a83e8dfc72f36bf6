"""The update rule: one kernel moves all parameters, one thread per element of each."""

from __future__ import annotations

from collections.abc import Sequence

from tinyalex.gpu.device import Array, constants
from tinyalex.gpu.launch import Floats, kernel


@kernel
def sgd_kernel(
    i: int, w: Floats, dw: Floats, v: Floats, rate: Floats, decay: Floats, momentum: float
) -> None:
    old = w[i]
    move = momentum * v[i] - decay[0] * rate[0] * old - rate[0] * dw[i]
    v[i] = move
    w[i] = old + move


def sgd_update(
    weights: Sequence[Array],
    gradients: Sequence[Array],
    velocities: Sequence[Array],
    rates: Sequence[float],
    momentum: float,
    decays: Sequence[float],
) -> None:
    """v = momentum v - decay rate w - rate dw, then w = w + v, in place.

    Weights, gradients and velocities are lists of like-shaped arrays; each has its own rate and
    weight decay. Those are read on the device.
    """
    for w, dw, v in zip(weights, gradients, velocities, strict=True):
        if not w.shape == dw.shape == v.shape:
            raise ValueError(f"weights {w.shape}, gradient {dw.shape}, velocity {v.shape}")
    rate, decay = constants(rates), constants(decays)
    arrays = zip(weights, gradients, velocities, rate, decay, strict=True)
    sgd_kernel.each((w.size, w, dw, v, r, d, momentum) for w, dw, v, r, d in arrays)
