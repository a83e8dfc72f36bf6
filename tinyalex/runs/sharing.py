"""Choice of how a run is shared out: pieces of a batch, data or hybrid, and what that sends."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from tinyalex.backend import Backend
from tinyalex.errors import UsageError
from tinyalex.net.layers import Linear
from tinyalex.net.network import Network, frozen_rows
from tinyalex.net.presets import Architecture
from tinyalex.net.shapes import layers
from tinyalex.ranks.ranks import Mode, Ranks, over
from tinyalex.ranks.team import Team, cores
from tinyalex.runs.config import Config

FLOAT = 4  # bytes

T = TypeVar("T")


def traffic(architecture: Architecture, images: int, freeze: str | None = None) -> dict[Mode, int]:
    """Bytes of a step with a batch of so many images that K ranks share, over (K - 1) / K, a rank.

    Gradients travel twice: each rank's terms to the rank that adds them, and the sums back. In
    hybrid mode those of convolutions; and forward the input of each linear layer, backward its
    gradient, and the logits. What is frozen has no gradient.
    """
    every, frozen = layers(architecture.rows), frozen_rows(architecture, freeze)
    trained = every[frozen:]
    linear = [layer for layer in trained if isinstance(layer.row, Linear)]
    whole = sum(layer.parameters for layer in trained)
    convolutions = whole - sum(layer.parameters for layer in linear)
    inputs = [math.prod(c.input) for c in every if isinstance(c.row, Linear)]
    below = len(inputs) - len(linear)
    activations = images * (sum(inputs) + sum(inputs[below:]) + architecture.classes)
    return {"data": 2 * FLOAT * whole, "hybrid": FLOAT * (2 * convolutions + activations)}


def shared_out(config: Config, architecture: Architecture, team: Team) -> Config:
    """`config` with the number of pieces and the mode, where there is more than one piece.

    The mode is the one that sends less, on any number of ranks. Raises UsageError where the ranks
    cannot share the pieces out.
    """
    pieces = config.pieces or team.size
    each = (2**i for i in range(pieces.bit_length()))
    fitting = {1, *(pieces // n for n in each if pieces % n == 0)}
    if team.size not in fitting:
        raise UsageError(
            f"--pieces {pieces} cannot be shared out among {team.size} ranks: each takes as many, "
            "a power of two, or one takes all. Processes to start: "
            f"{', '.join(map(str, sorted(fitting)))}."
        )
    if pieces > 1 and config.check_every:
        raise UsageError(
            f"--check-every compares whole batches with the reference, and here are {pieces} "
            "pieces of each. Leave it out, or train in one process and one piece."
        )
    if pieces == 1:
        if config.parallel:
            raise UsageError(
                f"--parallel {config.parallel} says how the ranks of a job share a network out, "
                "and this is one process. Start several with mpiexec, or give --pieces."
            )
        return config
    sends = traffic(architecture, config.recipe.batch_size, config.freeze)
    if len(config.devices) > 1:
        sends.pop("hybrid")
        if config.parallel == "hybrid":
            raise UsageError(
                f"--parallel hybrid cuts linear layers by neuron, and so does --gpus {config.gpus} "
                "for its two towers. Give --parallel data, or each rank one GPU: --gpus 0 is the "
                "first one on each host, and the ranks take those behind it."
            )
    fewest = min(row.features for row in architecture.rows if isinstance(row, Linear))
    if fewest < pieces:
        sends.pop("hybrid", None)
        if config.parallel == "hybrid":
            raise UsageError(
                f"--parallel hybrid cuts each linear layer into {pieces} pieces of neurons, and "
                f"one of {architecture.name} has {fewest} neurons. Give --parallel data."
            )
    mode = config.parallel or min(sends, key=lambda mode: sends[mode])
    return replace(config, pieces=pieces, parallel=mode)


def backend(ops: Backend, team: Team, config: Config) -> Backend:
    """The backend of this rank for a run that is `shared_out`, over `ops`, which computes."""
    return over(ops, team, config.pieces or 1, "hybrid" if config.parallel == "hybrid" else "data")


def description(ops: Backend, architecture: Architecture, config: Config) -> list[str]:
    """Line on how a run is shared out, and what a step sends; none for one piece."""
    if not isinstance(ops, Ranks):
        return []
    team, sends = ops.team, traffic(architecture, config.recipe.batch_size, config.freeze)
    if team.size == 1:
        return [f"{ops.pieces} pieces of each batch, {ops.mode} parallel, on one rank"]
    part = (team.size - 1) / team.size / 1e6
    other: Mode = "data" if ops.mode == "hybrid" else "hybrid"
    return [
        f"{team.size} ranks on {team.hosts} host(s), {len(cores()) or 'unknown'} core(s) each; "
        f"{ops.pieces} pieces of each batch; {ops.mode} parallel, which sends "
        f"{part * sends[ops.mode]:.2f} MB a step and rank ({other}: {part * sends[other]:.2f} MB)"
    ]


def on_first(network: Network, ask: Callable[[Network], T]) -> T:
    """Answer of the first rank, which has the network for itself meanwhile, told to all."""
    network, ops = whole(network), network.ops
    if not isinstance(ops, Ranks):
        return ask(network)
    answer: T = ops.team.tell(ops.team.first and ask(network))
    return answer


def whole(network: Network) -> Network:
    """The network on one rank alone, with all of its parameters. All ranks have to ask for it."""
    ops = network.ops
    if not isinstance(ops, Ranks):
        return network
    parameters = {name: ops.to_numpy(a) for name, a in network.parameters.items()}
    return Network(network.architecture, ops.ops, parameters, ops.to_numpy(network.mean))
