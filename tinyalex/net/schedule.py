"""Learning-rate policies, as pure functions of the errors so far: nothing to save or restore."""

import math
from collections.abc import Mapping, Sequence

from tinyalex.net.layers import Parameter
from tinyalex.net.presets import Recipe

POLICIES = ("constant", "step", "plateau", "2012")

# How the network that won was steered by hand (notes in the original layer-params-145.cfg, lines
# 169-181). After so many epochs: the rate of all weights falls to a tenth; that of the first
# layer's falls once more, and images are no longer coloured; the first layer is left as it is.
FALLS_2012, FIRST_FALLS_2012, FIRST_RESTS_2012 = (25, 51, 79), 67, 72


def learning_rate(recipe: Recipe, errors: Sequence[float]) -> tuple[float, str]:
    """The rate for epoch len(errors), and why it fell just now ("" if it did not).

    errors: the watched error after each finished epoch (validation top-1; without validation images
    the training loss). Policies:
      constant  recipe.lr for good.
      step      times lr_gamma every lr_step_size epochs.
      plateau   the paper's: times lr_gamma when the error has not fallen below its lowest for
                lr_patience epochs.
      2012      times lr_gamma after 25, 51 and 79 epochs, by hand in the original; see `factors`.
    """
    epoch, drops, reason = len(errors), 0, ""
    if recipe.lr_scheduler == "step":
        drops = epoch // recipe.lr_step_size
        if epoch > 0 and epoch % recipe.lr_step_size == 0:
            reason = f"{recipe.lr_step_size} epochs have passed"
    elif recipe.lr_scheduler == "2012":
        drops = sum(epoch >= fall for fall in FALLS_2012)
        reason = "as by hand in 2012" if epoch in FALLS_2012 else ""
    elif recipe.lr_scheduler == "plateau":
        lowest, waited = math.inf, 0
        for error in errors:
            reason = ""
            if error < lowest:
                lowest, waited = error, 0
            else:
                waited += 1
            if waited == recipe.lr_patience:
                reason = f"{waited} epochs without an error below {lowest:.4g}"
                drops, waited = drops + 1, 0
    return recipe.lr * recipe.lr_gamma**drops, reason


def factors(recipe: Recipe, epoch: int, parameters: Mapping[str, Parameter]) -> dict[str, float]:
    """Factors on the rates of single parameters, by name, where a policy has them; 1 elsewhere.

    In 2012 the biases kept their rate when that of the weights fell, and the first layer, whose
    parameters come first, went ahead of the others. A parameter with factor 0 does not move.
    """
    if recipe.lr_scheduler != "2012":
        return {}
    fallen, _ = learning_rate(recipe, [0.0] * epoch)
    factor_of = {name: recipe.lr / fallen for name, p in parameters.items() if p.bias}
    layer = next(iter(parameters)).partition(".")[0]
    first = [name for name in parameters if name.startswith(f"{layer}.")]
    if epoch >= FIRST_RESTS_2012:
        factor_of |= dict.fromkeys(first, 0.0)
    elif epoch >= FIRST_FALLS_2012:
        factor_of |= {name: recipe.lr_gamma for name in first if not parameters[name].bias}
    return factor_of


def coloured(recipe: Recipe, epoch: int) -> bool:
    """True if an epoch's images are given colour noise, by networks that have any."""
    return recipe.lr_scheduler != "2012" or epoch < FIRST_FALLS_2012
