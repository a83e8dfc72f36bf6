"""Time of each layer in a training step of the reference, beside bare products."""

import math
import time
import timeit
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from tinyalex.backend import Backend
from tinyalex.bench.workload import Work
from tinyalex.net.layers import Conv2d
from tinyalex.net.network import Network
from tinyalex.net.shapes import Layer, layers
from tinyalex.reference.threads import PIECES, RUN_BYTES, in_pieces

PASSES = 3  # of which the best counts
OPERAND_BYTES = 1 << 28  # at most, of the columns that a bare product reads


def layer_times(work: Work, ops: Backend) -> list[dict[str, Any]]:
    """Milliseconds of each layer, forward and backward, and of its matrix products alone.

    For layers without products `gflops` and `products` are 0. Both are the best of a few passes.
    """
    best = _passes(work, ops)
    images, results = len(work.labels), []
    for layer in layers(work.architecture.rows):
        name = layer.row.name
        forward, backward = (best.get((name, way), 0.0) for way in ("forward", "backward"))
        above_images = layer.row is work.architecture.rows[1]  # no gradient by the images
        flops = 2 * layer.macs * images * (2 if above_images else 3)
        results.append(
            {
                "name": name,
                "forward": forward,
                "backward": backward,
                "gflops": flops / 1e6 / (forward + backward) if flops else 0.0,
                "products": bare_products(layer, images, above_images) if flops else 0.0,
            }
        )
    return results


def _passes(work: Work, ops: Backend) -> dict[tuple[str, str], float]:
    """The least milliseconds of (row, forward or backward)."""
    network = Network(work.architecture, ops, work.parameters(), work.mean)
    best: dict[tuple[str, str], float] = {}

    def timed(row: str, way: str, call: Callable[..., Any], *arguments: Any) -> Any:
        began = time.perf_counter()
        answer = call(*arguments)
        elapsed = 1e3 * (time.perf_counter() - began)
        best[row, way] = min(elapsed, best.get((row, way), elapsed))
        return answer

    for _ in range(PASSES):
        x, tape = work.images, []
        for stage in network.stages:
            (row,) = stage.rows
            arguments = network.arguments(row, work.draws)
            x, cache = timed(row.name, "forward", stage.forward, x, *arguments)
            tape.append(cache)
        _, cache = ops.softmax_cross_entropy(x, work.labels)
        dy = ops.softmax_cross_entropy_backward(cache)
        for stage, cache in list(zip(network.stages, tape, strict=True))[:0:-1]:  # not augment
            (row,) = stage.rows
            dy, _ = timed(row.name, "backward", stage.gradients, dy, cache)
    return best


def bare_products(layer: Layer, batch_size: int, above_images: bool) -> float:
    """Milliseconds of y = col w^T, dw = dy^T col and dcol = dy w, with no columns to unfold.

    Each by BLAS on its own threads, or, for convolutions, in runs of images and on the reference's
    threads, whichever is faster. Where the columns would be large, a part of the batch is timed and
    the rest reckoned.
    """
    assert layer.weight is not None
    groups = layer.row.groups if isinstance(layer.row, Conv2d) else 1
    filters, inputs = layer.weight[0] // groups, math.prod(layer.weight[1:])
    pixels = math.prod(layer.output[:2])
    column_bytes = 4 * groups * pixels * inputs  # of an image

    def seconds(images: int, runs: int = 0) -> list[float]:
        """Time of each product for the whole batch: so many images at once, or in so many runs."""
        col, dcol = np.ones((2, groups, images * pixels, inputs), np.float32)
        y, dy = np.ones((2, groups, images * pixels, filters), np.float32)
        w, dw = np.ones((2, groups, filters, inputs), np.float32)
        factors = [(col, w.transpose(0, 2, 1), y), (dy.transpose(0, 2, 1), col, dw), (dy, w, dcol)]

        def product(a: Any, b: Any, out: Any) -> None:
            if not runs:
                np.matmul(a, b, out=out)
                return

            def work(piece: slice) -> None:
                own = np.empty_like(out)
                for _ in range(piece.start, piece.stop):
                    np.matmul(a, b, out=own)

            in_pieces(work, runs, runs * images * column_bytes)

        scale = batch_size / (images * max(1, runs))
        return [
            scale * min(timeit.repeat(partial(product, *f), number=1, repeat=PASSES))
            for f in factors[: 2 if above_images else 3]
        ]

    whole = seconds(min(batch_size, max(1, OPERAND_BYTES // column_bytes)))
    if not isinstance(layer.row, Conv2d):
        return 1e3 * sum(whole)
    images = min(-(-batch_size // PIECES), max(1, RUN_BYTES // column_bytes))
    return 1e3 * sum(map(min, whole, seconds(images, -(-batch_size // images))))
