"""Learning-rate policies, as pure functions of the errors so far: nothing to save or restore."""

import math
from collections.abc import Mapping, Sequence

from tinyalex.net.layers import Parameter
from tinyalex.net.presets import Recipe

POLICIES = ("constant", "step", "plateau", "2012", "cosine")

# How the network that won was steered by hand (notes in the original layer-params-145.cfg, lines
# 169-181). After so many of 90 epochs: the rate of all weights falls to a tenth; that of the first
# layer's falls once more, and images are no longer coloured; the first layer is left as it is.
FALLS_2012, FIRST_FALLS_2012, FIRST_RESTS_2012 = (25, 51, 79), 67, 72
TINY = 1e-9  # by which 3 * 6.67 may be less than 20
WARM = 0.01  # the part of its rate with which a warm-up begins, as torchvision's


def learning_rate(recipe: Recipe, errors: Sequence[float], done: float = 0.0) -> tuple[float, str]:
    """The rate in epoch len(errors), and why it fell at its beginning ("" if it did not).

    errors: the watched error after each finished epoch (validation top-1; without validation images
    the training loss). done: the part of the epoch that is over. In the first warmup_epochs the
    rate rises in a line to what it is then. Policies:
      constant  recipe.lr for good.
      step      times lr_gamma every lr_step_size epochs.
      plateau   the paper's: times lr_gamma when the error has not fallen below its lowest for
                lr_patience epochs after the warm-up: it looks at errors, whatever the length.
      2012      times lr_gamma after 25, 51 and 79 of 90 epochs, by hand in the original; of others
                after the same parts of 3 * lr_step_size. See `factors`.
      cosine    from recipe.lr after the warm-up to 0 after recipe.epochs, along half a cosine.
    Falls come between epochs: one that is due within an epoch before it, but for the first.
    """
    epoch, drops, reason = len(errors), _drops(recipe, len(errors)), ""
    if drops > _drops(recipe, epoch - 1):
        by_hand = recipe.lr_scheduler == "2012"
        reason = "as by hand in 2012" if by_hand else f"epoch {epoch} is over"
    elif recipe.lr_scheduler == "plateau":
        lowest, waited = math.inf, 0
        for error in errors[recipe.warmup_epochs :]:
            reason = ""
            if error < lowest:
                lowest, waited = error, 0
            else:
                waited += 1
            if waited == recipe.lr_patience:
                reason = f"{waited} epochs without an error below {lowest:.4g}"
                drops, waited = drops + 1, 0
    rate, time, warm = recipe.lr * recipe.lr_gamma**drops, epoch + done, recipe.warmup_epochs
    if time < warm:
        return rate * (WARM + (1 - WARM) * time / warm), reason
    if recipe.lr_scheduler == "cosine":
        part = min((time - warm) / max(recipe.epochs - warm, 1), 1.0)
        rate *= (1 + math.cos(math.pi * part)) / 2
    return rate, reason


def _drops(recipe: Recipe, epoch: int) -> int:
    """Number of times that the rate has fallen before `epoch` by a policy that counts epochs."""
    if recipe.lr_scheduler == "step":
        return max(0, math.ceil((epoch + 1) / recipe.lr_step_size - TINY) - 1) if epoch > 0 else 0
    return sum(_past_2012(recipe, epoch, fall) for fall in FALLS_2012)


def _past_2012(recipe: Recipe, epoch: int, fall: int) -> bool:
    """True under the policy 2012 if what it does after epoch `fall` of 90 has been done."""
    at = fall * recipe.lr_step_size / 30
    return recipe.lr_scheduler == "2012" and epoch > 0 and at < epoch + 1 - TINY


def factors(recipe: Recipe, epoch: int, parameters: Mapping[str, Parameter]) -> dict[str, float]:
    """Factors on the rates of single parameters, by name, where a policy has them; 1 elsewhere.

    In 2012 the biases kept their rate when that of the weights fell, and the first layer, whose
    parameters come first, went ahead of the others. A parameter with factor 0 does not move.
    """
    if recipe.lr_scheduler != "2012":
        return {}
    fallen = recipe.lr * recipe.lr_gamma ** _drops(recipe, epoch)
    factor_of = {name: recipe.lr / fallen for name, p in parameters.items() if p.bias}
    layer = next(iter(parameters)).partition(".")[0]
    first = [name for name in parameters if name.startswith(f"{layer}.")]
    if _past_2012(recipe, epoch, FIRST_RESTS_2012):
        factor_of |= dict.fromkeys(first, 0.0)
    elif _past_2012(recipe, epoch, FIRST_FALLS_2012):
        factor_of |= {name: recipe.lr_gamma for name in first if not parameters[name].bias}
    return factor_of


def coloured(recipe: Recipe, epoch: int) -> bool:
    """True if an epoch's images are given colour noise, by networks that have any."""
    return not _past_2012(recipe, epoch, FIRST_FALLS_2012)
