"""Workloads to be timed: training steps and inference on random images, ours and PyTorch's."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from tinyalex.backend import Backend
from tinyalex.net.draws import Draws, centre_draws, initial_parameters, training_draws
from tinyalex.net.network import Network
from tinyalex.net.optimizer import SGD
from tinyalex.net.presets import Architecture
from tinyalex.net.step import train_step

RATE = 1e-6  # a learning rate with which random labels do not make anything diverge
COLOUR = np.eye(3, dtype=np.float32)  # any will do: the time does not depend on them

Call = Callable[[], object]


class Work(NamedTuple):
    """Random images and labels, the draws of a training step and of evaluation."""

    architecture: Architecture
    images: Any
    labels: Any
    mean: Any
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
            training_draws(architecture, batch_size, COLOUR, 0, 0, 0),
            centre_draws(architecture.data, batch_size),
        )

    def parameters(self) -> dict[str, Any]:
        """Initial weights, drawn anew each time: who keeps them has their memory twice."""
        return initial_parameters(self.architecture, 0)


def reference_calls(work: Work, ops: Backend) -> dict[str, Call]:
    """A training step: draws, augment, forward, loss, backward, update. Inference: the logits."""
    architecture, images, labels = work.architecture, work.images, work.labels
    parameters = work.parameters()
    network = Network(architecture, ops, parameters, work.mean)
    sgd = SGD(network, architecture.recipe, {n: np.zeros_like(w) for n, w in parameters.items()})

    def step() -> None:
        draws = training_draws(architecture, len(labels), COLOUR, 0, 0, 0)
        train_step(sgd, images, labels, draws, RATE)

    return {"training": step, "inference": lambda: network.logits(images, work.centre)}


def torch_calls(work: Work, form: Literal["module", "band"]) -> dict[str, Call]:
    """Training and inference in PyTorch, eager, on images cropped already. form: see `Twin`."""
    import torch

    from tinyalex.judge.torch_twin import Twin

    recipe, draws = work.architecture.recipe, work.draws
    twin = Twin(work.architecture, work.parameters(), work.mean, form)
    x = twin.apply(work.architecture.rows[0], torch.from_numpy(work.images), draws)
    x = x.contiguous(memory_format=torch.channels_last)
    target = torch.from_numpy(work.labels).long()
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
            twin.logits(x, work.centre)

    return {"training": step, "inference": inference}


def peak_bytes() -> int:
    """The most memory that this process had at once; 0 on Windows, where Python does not know."""
    if sys.platform == "linux":  # where ru_maxrss begins with what the parent process had
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.split("VmHWM:")[1].split()[0])
    if sys.platform == "win32":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
