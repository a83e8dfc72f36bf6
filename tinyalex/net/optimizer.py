"""Momentum SGD: which parameter moves at which rate and decays by how much."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from tinyalex.backend import Array
from tinyalex.net.network import Network, role_of
from tinyalex.net.presets import Recipe
from tinyalex.net.shapes import parameters

NO_FACTORS: Mapping[str, float] = MappingProxyType({})


class SGD:
    """The paper's update over all parameters of a network. The formula: `sgd_update`.

    velocities: one array per parameter, of its shape, copied; zeros at the start. updating: whether
    an update has begun and not ended, so that some parameters have moved and others have not.
    """

    def __init__(self, network: Network, recipe: Recipe, velocities: Mapping[str, Any]) -> None:
        self.network = network
        self.recipe = recipe
        self.updating = False
        self.velocities = {
            name: network.ops.asarray(np.array(v), role_of(name, network.architecture))
            for name, v in velocities.items()
        }
        self.multipliers: dict[str, float] = {}
        self.decays: dict[str, float] = {}
        for name, parameter in parameters(network.architecture.rows).items():
            own = parameter.decay
            self.decays[name] = recipe.weight_decay if own is None else own
            self.multipliers[name] = recipe.bias_lr_multiplier if parameter.bias else 1.0

    def step(
        self, gradients: Mapping[str, Array], lr: float, factors: Mapping[str, float] = NO_FACTORS
    ) -> None:
        """Move the network's parameters, in place.

        factors: on the rates of single parameters, by name; one with 0 stays as it is, and so does
        its velocity. So does one without a gradient.
        """
        names = [name for name in self.network.parameters if name in gradients]
        names = [name for name in names if factors.get(name, 1) != 0]
        self.updating = True
        self.network.ops.sgd_update(
            [self.network.parameters[name] for name in names],
            [gradients[name] for name in names],
            [self.velocities[name] for name in names],
            [lr * self.multipliers[name] * factors.get(name, 1) for name in names],
            self.recipe.momentum,
            [self.decays[name] for name in names],
        )
        self.updating = False
