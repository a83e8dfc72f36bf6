"""How fast a training step is, per layer and whole, beside PyTorch on the same machine.

Each system runs in a process of its own, because the threads of one would spin beside the other,
and the systems take turns, so that a machine whose speed drifts treats them alike. Ratios are taken
within a round.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np

from tinyalex.architectures import Architecture, get_architecture
from tinyalex.backend import Backend, get_backend
from tinyalex.draws import Draws, initial_parameters, training_draws
from tinyalex.errors import UsageError
from tinyalex.network import Network
from tinyalex.optimizer import SGD
from tinyalex.shapes import layers

REST = 0.3  # seconds between turns: idle BLAS and OpenMP threads spin so long
RATE = 1e-6  # a learning rate with which random labels do not make anything diverge
COLOUR = np.eye(3, dtype=np.float32)  # any colours: what they are costs no time

TORCH: dict[str, Literal["module", "band"]] = {
    "torch, nn.LocalResponseNorm's method": "module",
    "torch, LRN as a 1x1 band convolution": "band",
}


def bench(arch: str, batch_size: int, rounds: int, against: str | None) -> dict[str, Any]:
    """Seconds of whole training steps, interleaved, and of each layer of the reference.

    `reference` and `torch` are images a second (median), torch the faster of its forms; `ratio` is
    the median of reference over torch by round.
    """
    systems = ["reference", *(TORCH if against == "torch" else ())]
    children = {system: _Child(system, arch, batch_size) for system in systems}
    try:
        seconds: dict[str, list[float]] = {system: [] for system in systems}
        for _ in range(rounds):
            for system, child in children.items():
                time.sleep(REST)
                seconds[system].append(child.ask("step"))
        per_layer = children["reference"].ask("layers")
    finally:
        for child in children.values():
            child.end()

    speed = {system: batch_size / statistics.median(s) for system, s in seconds.items()}
    found = {
        "architecture": arch,
        "batch_size": batch_size,
        "rounds": rounds,
        "reference": speed["reference"],
        "images_per_second": speed,
        "layers": per_layer,
    }
    if against:
        ratios = {s: _ratios(seconds["reference"], seconds[s]) for s in systems[1:]}
        fastest = max(systems[1:], key=speed.__getitem__)
        low, middle, high = ratios[fastest]
        found |= {"torch": speed[fastest], "torch_version": fastest, "ratio": middle}
        found |= {"ratio_range": (low, high), "ratios": ratios}
    return found


def _ratios(ours: list[float], theirs: list[float]) -> tuple[float, float, float]:
    """Lowest, median and highest speed of ours over theirs, round by round."""
    ratios = sorted(b / a for a, b in zip(ours, theirs, strict=True))
    return ratios[0], statistics.median(ratios), ratios[-1]


def table(found: dict[str, Any]) -> str:
    """What bench found, for people."""
    lines = [
        f"{found['architecture']}, batch {found['batch_size']}: one training step of the reference",
        f"{'layer':<8} {'forward ms':>11} {'backward ms':>12} {'GFLOP/s':>8}",
    ]
    for row in found["layers"]:
        rate = f"{row['gflops']:8.0f}" if row["gflops"] else ""
        lines.append(f"{row['name']:<8} {row['forward']:>11.1f} {row['backward']:>12.1f} {rate}")
    lines += ["", f"images a second, median of {found['rounds']} rounds in turn:"]
    for system, speed in found["images_per_second"].items():
        low, middle, high = found.get("ratios", {}).get(system, (None,) * 3)
        ratio = f"   reference is {middle:.2f} x as fast ({low:.2f} to {high:.2f})" if low else ""
        lines.append(f"  {system:<38} {speed:8.1f}{ratio}")
    return "\n".join(lines)


class _Child:
    """A system under test in a process that answers one JSON line to each word."""

    def __init__(self, system: str, arch: str, batch_size: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tinyalex.bench", system, arch, str(batch_size)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.system = system
        self.ask("step")  # the first step allocates and compiles

    def ask(self, word: str) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(word + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended; its error follows
        answer = self.process.stdout.readline()
        if not answer:
            raise UsageError(
                f"The benchmark of {self.system!r} ended with code {self.process.wait()}; its own "
                "message stands above. PyTorch is installed with: pip install 'tinyalex[parity]'."
            )
        return json.loads(answer)

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def _serve(system: str, arch: str, batch_size: int) -> None:
    """The child's side: runs a step, or times the layers, whenever a word comes in."""
    work = Work.of(get_architecture(arch), batch_size)
    ops = get_backend("reference")
    step = reference_step(work, ops) if system == "reference" else torch_step(work, TORCH[system])
    for word in sys.stdin:
        began = time.perf_counter()
        if word.strip() == "layers":
            print(json.dumps(layer_times(work, ops)), flush=True)
            continue
        step()
        print(json.dumps(time.perf_counter() - began), flush=True)


class Work(NamedTuple):
    """What a step is measured on: random images and labels, one set of draws, initial weights."""

    architecture: Architecture
    images: Any
    labels: Any
    mean: Any
    parameters: dict[str, Any]
    draws: Draws

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
        )


def reference_step(work: Work, ops: Backend) -> Callable[[], None]:
    """A whole training step: draws, augment, forward, loss, backward, update."""
    architecture, images, labels, mean, parameters, _ = work
    network = Network(architecture, ops, parameters, mean)
    sgd = SGD(network, architecture.recipe, {n: np.zeros_like(w) for n, w in parameters.items()})

    def step() -> None:
        draws = training_draws(architecture, len(labels), COLOUR, 0, 0, 0)
        logits, tape = network.forward(images, draws)
        _, cache = ops.softmax_cross_entropy(logits, labels)
        sgd.step(network.backward(ops.softmax_cross_entropy_backward(cache), tape), RATE)

    return step


def layer_times(work: Work, ops: Backend) -> list[dict[str, Any]]:
    """Milliseconds of each layer of the reference, forward and backward, the best of 3 passes."""
    architecture, images, labels, mean, parameters, draws = work
    network = Network(architecture, ops, parameters, mean)
    best: dict[tuple[str, str], float] = {}

    def timed(row: str, way: str, call: Callable[..., Any], *arguments: Any) -> Any:
        began = time.perf_counter()
        answer = call(*arguments)
        elapsed = 1e3 * (time.perf_counter() - began)
        best[row, way] = min(elapsed, best.get((row, way), elapsed))
        return answer

    for _ in range(3):
        x, tape = images, []
        for step in network.steps:
            (row,) = step.rows
            arguments = network.arguments(row, draws)
            x, cache = timed(row.name, "forward", step.forward, x, *arguments)
            tape.append(cache)
        _, cache = ops.softmax_cross_entropy(x, labels)
        dy = ops.softmax_cross_entropy_backward(cache)
        for step, cache in list(zip(network.steps, tape, strict=True))[:0:-1]:  # not augment
            (row,) = step.rows
            dy, _ = timed(row.name, "backward", step.gradients, dy, cache)

    found = []
    for layer in layers(architecture.rows):
        name = layer.row.name
        forward, backward = (best.get((name, way), 0.0) for way in ("forward", "backward"))
        products = 2 if layer.row is architecture.rows[1] else 3  # no gradient by the image
        flops = 2 * layer.macs * len(labels) * products
        gflops = flops / 1e6 / (forward + backward)
        found.append({"name": name, "forward": forward, "backward": backward, "gflops": gflops})
    return found


def torch_step(work: Work, form: Literal["module", "band"]) -> Callable[[], None]:
    """The same step in PyTorch, eager, on images that are cropped already."""
    import torch

    from tinyalex.torch_twin import Twin

    architecture, images, labels, mean, parameters, draws = work
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

    return step


if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2], int(sys.argv[3]))
