"""One training step: forward, loss, backward, update."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from tinyalex.backend import Array
from tinyalex.net.draws import Draws
from tinyalex.net.network import Network
from tinyalex.net.optimizer import NO_FACTORS, SGD


class Step(NamedTuple):
    """The mean loss of a batch before the update, and its logits (N, classes) on the host."""

    loss: float
    logits: Any


def loss_and_gradients(
    network: Network, images: Any, labels: Any, draws: Draws
) -> tuple[Step, dict[str, Array]]:
    """The step, and the gradient with respect to each parameter; none where the loss is not finite.

    images: uint8 (N, image_size, image_size, 3). labels: int32 (N,), on the host. The backend is
    waited for only when all has been asked of it, and then only until it knows the loss.
    """
    ops = network.ops
    logits, tape = network.forward(images, draws)
    loss, cache = ops.softmax_cross_entropy(logits, ops.asarray(labels, "labels"))
    metrics = ops.download(loss, logits)
    gradients = network.backward(ops.softmax_cross_entropy_backward(cache), tape)
    known, answers = metrics()
    step = Step(float(known), answers)
    return step, gradients if math.isfinite(step.loss) else {}


def train_step(
    sgd: SGD,
    images: Any,
    labels: Any,
    draws: Draws,
    lr: float,
    factors: Mapping[str, float] = NO_FACTORS,
) -> Step:
    """Move the parameters by the gradient of a batch, unless its loss is not finite.

    factors: on the rates of single parameters, see `SGD.step`.
    """
    step, gradients = loss_and_gradients(sgd.network, images, labels, draws)
    if gradients:
        sgd.step(gradients, lr, factors)
    return step
