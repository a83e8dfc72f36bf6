"""Where a training step of the reference spends its time: each layer, beside bare products."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tinyalex.backend import Backend
from tinyalex.network import Network
from tinyalex.rows import Conv2d
from tinyalex.shapes import Layer, layers
from tinyalex.workload import Work

PASSES = 3  # of which the best counts
OPERAND_BYTES = 1 << 28  # at most, of the columns that a bare product reads


def layer_times(work: Work, ops: Backend) -> list[dict[str, Any]]:
    """Milliseconds of each layer, forward and backward, and of its matrix products alone.

    For layers without products `gflops` and `products` are 0. Both are the best of a few passes.
    """
    best = _passes(work, ops)
    found = []
    for layer in layers(work.architecture.rows):
        name = layer.row.name
        forward, backward = (best.get((name, way), 0.0) for way in ("forward", "backward"))
        times, products = forward + backward, 0.0
        above_images = layer.row is work.architecture.rows[1]  # no gradient by the images
        flops = 2 * layer.macs * len(work.labels) * (2 if above_images else 3)
        if flops:
            products = bare_products(layer, len(work.labels), above_images)
        found.append(
            {
                "name": name,
                "forward": forward,
                "backward": backward,
                "gflops": flops / 1e6 / times if times else 0.0,
                "products": products,
            }
        )
    return found


def _passes(work: Work, ops: Backend) -> dict[tuple[str, str], float]:
    """The least milliseconds of (row, forward or backward)."""
    network = Network(work.architecture, ops, work.parameters, work.mean)
    best: dict[tuple[str, str], float] = {}

    def timed(row: str, way: str, call: Callable[..., Any], *arguments: Any) -> Any:
        began = time.perf_counter()
        answer = call(*arguments)
        elapsed = 1e3 * (time.perf_counter() - began)
        best[row, way] = min(elapsed, best.get((row, way), elapsed))
        return answer

    for _ in range(PASSES):
        x, tape = work.images, []
        for step in network.steps:
            (row,) = step.rows
            arguments = network.arguments(row, work.draws)
            x, cache = timed(row.name, "forward", step.forward, x, *arguments)
            tape.append(cache)
        _, cache = ops.softmax_cross_entropy(x, work.labels)
        dy = ops.softmax_cross_entropy_backward(cache)
        for step, cache in list(zip(network.steps, tape, strict=True))[:0:-1]:  # not augment
            (row,) = step.rows
            dy, _ = timed(row.name, "backward", step.gradients, dy, cache)
    return best


def bare_products(layer: Layer, batch_size: int, above_images: bool) -> float:
    """Milliseconds of y = col w^T, dw = dy^T col and dcol = dy w, by BLAS on all its threads.

    The columns lie there already and what comes of dcol is left out: no convolution by products is
    faster. Where the columns would be large, a part of the batch is timed and the rest reckoned.
    """
    assert layer.weight is not None
    groups = layer.row.groups if isinstance(layer.row, Conv2d) else 1
    filters, inputs = layer.weight[0] // groups, math.prod(layer.weight[1:])
    pixels = math.prod(layer.output[:2])
    images = min(batch_size, max(1, OPERAND_BYTES // (4 * groups * pixels * inputs)))
    col, dcol = np.ones((2, groups, images * pixels, inputs), np.float32)
    y, dy = np.ones((2, groups, images * pixels, filters), np.float32)
    w, dw = np.ones((2, groups, filters, inputs), np.float32)
    factors = [(col, w.transpose(0, 2, 1), y), (dy.transpose(0, 2, 1), col, dw), (dy, w, dcol)]

    milliseconds = 0.0
    for a, b, out in factors[:2] if above_images else factors:
        times = []
        for _ in range(PASSES):
            began = time.perf_counter()
            np.matmul(a, b, out=out)
            times.append(time.perf_counter() - began)
        milliseconds += 1e3 * min(times) * batch_size / images
    return milliseconds
