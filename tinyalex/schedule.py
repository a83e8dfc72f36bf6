"""Learning-rate policies, as pure functions of the errors so far: nothing to save or restore."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tinyalex.architectures import Recipe

POLICIES = ("constant", "step", "plateau")


def learning_rate(recipe: Recipe, errors: Sequence[float]) -> tuple[float, str]:
    """The rate for epoch len(errors), and why it fell just now ("" if it did not).

    errors: the watched error after each finished epoch (validation top-1; without validation images
    the training loss). Policies:
      constant  recipe.lr for good.
      step      times lr_gamma every lr_step_size epochs.
      plateau   the paper's: times lr_gamma when the error has not fallen below its lowest for
                lr_patience epochs.
    """
    epoch = len(errors)
    if recipe.lr_scheduler == "constant":
        return recipe.lr, ""
    if recipe.lr_scheduler == "step":
        drops = epoch // recipe.lr_step_size
        fell = epoch > 0 and epoch % recipe.lr_step_size == 0
        reason = f"{recipe.lr_step_size} epochs have passed" if fell else ""
        return recipe.lr * recipe.lr_gamma**drops, reason

    drops, lowest, waited, reason = 0, math.inf, 0, ""
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
