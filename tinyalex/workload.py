"""What benchmarks time: training steps and inference on random images, ours and PyTorch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np

from tinyalex.architectures import Architecture
from tinyalex.backend import Backend
from tinyalex.draws import Draws, centre_draws, initial_parameters, training_draws
from tinyalex.network import Network
from tinyalex.optimizer import SGD

RATE = 1e-6  # a learning rate with which random labels do not make anything diverge
COLOUR = np.eye(3, dtype=np.float32)  # any colours: what they are costs no time

Call = Callable[[], object]


class Work(NamedTuple):
    """Random images and labels, the draws of a training step and of evaluation, weights."""

    architecture: Architecture
    images: Any
    labels: Any
    mean: Any
    parameters: dict[str, Any]
    draws: Draws
    centre: Draws

    @classmethod
    def of(cls, architecture: Architecture, batch_size: int) -> Work:
        rng = np.random.default_rng(0)
        side = architecture.data.image_size
        return cls(
            architecture,
            rng.integers(0, 256, (batch_size, side, side, 3), np.uint8),
            rng.integers(0, architecture.classes, batch_size, np.int32),
            np.full((side, side, 3), 127.5, np.float32),
            initial_parameters(architecture, 0),
            training_draws(architecture, batch_size, COLOUR, 0, 0, 0),
            centre_draws(architecture.data, batch_size),
        )


def reference_calls(work: Work, ops: Backend) -> dict[str, Call]:
    """A training step: draws, augment, forward, loss, backward, update. Inference: the logits."""
    architecture, images, labels, mean, parameters, *_ = work
    network = Network(architecture, ops, parameters, mean)
    sgd = SGD(network, architecture.recipe, {n: np.zeros_like(w) for n, w in parameters.items()})

    def step() -> None:
        draws = training_draws(architecture, len(labels), COLOUR, 0, 0, 0)
        logits, tape = network.forward(images, draws)
        _, cache = ops.softmax_cross_entropy(logits, labels)
        sgd.step(network.backward(ops.softmax_cross_entropy_backward(cache), tape), RATE)

    return {"training": step, "inference": lambda: network.forward(images, work.centre)[0]}


def torch_calls(work: Work, form: Literal["module", "band"]) -> dict[str, Call]:
    """The same in PyTorch, eager, on images that are cropped already. form: see `Twin`."""
    import torch

    from tinyalex.torch_twin import Twin

    architecture, images, labels, mean, parameters, draws, centre = work
    recipe, twin = architecture.recipe, Twin(architecture, parameters, mean, form)
    x = twin.apply(architecture.rows[0], torch.from_numpy(images), draws)
    x, target = x.contiguous(memory_format=torch.channels_last), torch.from_numpy(labels).long()
    sgd = torch.optim.SGD(
        twin.parameters.values(), RATE, recipe.momentum, weight_decay=recipe.weight_decay
    )

    def step() -> None:
        sgd.zero_grad()
        loss = torch.nn.functional.cross_entropy(twin.logits(x, draws), target)
        torch.autograd.backward([loss])
        sgd.step()

    def inference() -> None:
        with torch.inference_mode():
            twin.logits(x, centre)

    return {"training": step, "inference": inference}
