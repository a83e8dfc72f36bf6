"""The loss. Sums are made in a fixed order, so that they repeat bit for bit.

Forward, one thread per (image, lane) goes through every 32nd logit, so that the 32 threads of a
warp read neighbours; then one thread per image joins its lanes; then a single one adds up the
images. Backward, one thread per logit.
"""

from __future__ import annotations

import math

import numpy as np
from numpy import float32

from tinyalex.gpu.device import Array, empty, split
from tinyalex.gpu.launch import Count, Floats, Ints, kernel

LANES = 32
LOWEST = np.finfo(np.float32).min  # minus infinity would make NaN of a lane without logits


@kernel
def lane_kernel(i: int, logits: Floats, tops: Floats, totals: Floats, classes: int) -> None:
    image, lane = split(i, LANES)
    first, last = image * classes, (image + 1) * classes
    top, total = LOWEST, float32(0)
    for j in range(first + lane, last, LANES):
        top = max(top, logits[j])
    for j in range(first + lane, last, LANES):
        total += math.exp(logits[j] - top)
    tops[i] = top
    totals[i] = total


@kernel
def image_kernel(
    i: int,
    logits: Floats,
    labels: Ints,
    lane_tops: Floats,
    lane_totals: Floats,
    tops: Floats,
    totals: Floats,
    losses: Floats,
    classes: int,
) -> None:
    top, total = LOWEST, float32(0)
    for lane in range(LANES):
        top = max(top, lane_tops[i * LANES + lane])
    for lane in range(LANES):
        j = i * LANES + lane
        total += lane_totals[j] * math.exp(lane_tops[j] - top)
    tops[i] = top
    totals[i] = total
    label = labels[i]
    if 0 <= label < classes:
        losses[i] = math.log(total) - (logits[i * classes + label] - top)
    else:
        losses[i] = float32(math.nan)


@kernel
def mean_kernel(i: int, x: Floats, y: Floats, count: Count) -> None:
    total = float32(0)
    for j in range(count):
        total += x[j]
    y[i] = total / float32(count)


Cache = tuple[Array, Array, Array, Array]


def softmax_cross_entropy(logits: Array, labels: Array) -> tuple[Array, Cache]:
    """loss = mean over images of -log p[label], p = softmax(logits) = exp(logits - top) / total.

    logits: (N, classes). labels: int32 (N,); one that names no class makes the loss NaN. loss: a
    scalar array. top: the row's maximum, which keeps exp finite. The cache has both (N,).
    """
    N, classes = logits.shape
    if labels.shape != (N,):
        raise ValueError(f"labels {labels.shape} and logits {logits.shape} do not fit")
    lane_tops, lane_totals = empty((N, LANES)), empty((N, LANES))
    tops, totals, losses, loss = empty((N,)), empty((N,)), empty((N,)), empty(())
    lane_kernel(N * LANES, logits, lane_tops, lane_totals, classes)
    image_kernel(N, logits, labels, lane_tops, lane_totals, tops, totals, losses, classes)
    mean_kernel(1, losses, loss, N)
    return loss, (logits, labels, tops, totals)


@kernel
def softmax_backward_kernel(
    i: int,
    logits: Floats,
    labels: Ints,
    tops: Floats,
    totals: Floats,
    dlogits: Floats,
    images: Count,
    classes: int,
) -> None:
    image, c = split(i, classes)
    p = math.exp(logits[i] - tops[image]) / totals[image]
    onehot = float32(1) if c == labels[image] else float32(0)
    dlogits[i] = (p - onehot) / float32(images)


def softmax_cross_entropy_backward(cache: Cache) -> Array:
    """dlogits = (p - onehot(label)) / N."""
    logits, labels, tops, totals = cache
    dlogits = empty(logits.shape)
    softmax_backward_kernel(dlogits.size, logits, labels, tops, totals, dlogits, *logits.shape)
    return dlogits
