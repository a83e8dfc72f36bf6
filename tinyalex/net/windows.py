"""Sizes of what a sliding window leaves of an image: convolutions and pools."""

import math

Shape = tuple[int, int, int]
"""Height, width, channels of one image's activations."""


def conv_size(n: int, size: int, stride: int, pad: int, ceil: bool = False) -> int:
    """Side of a convolution's output: 1 + floor((n + 2 pad - size) / stride), with `ceil` up.

    Rounding up adds a last window that the padded border cuts off, unless it would start beyond.
    Raises ValueError if the window does not fit once (with `ceil`: if there is no pixel).
    """
    padded = n + 2 * pad
    if ceil and n > 0:
        return min(1 + math.ceil(max(padded - size, 0) / stride), math.ceil(padded / stride))
    if ceil or size > padded:
        raise ValueError(f"a window of {size} does not fit into {n} pixels with pad {pad}")
    return 1 + (padded - size) // stride


def pool_size(n: int, size: int, stride: int, ceil: bool) -> int:
    """Side of a pool's output: that of a convolution without pad."""
    return conv_size(n, size, stride, 0, ceil)
