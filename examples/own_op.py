"""An op of one's own, judged like the project's: leaky ReLU, its gradient checked numerically.

Write forward and backward as the reference does, then ask `check_op`. The second version has a
mistake on purpose, to show that the judge finds it.
"""

from types import SimpleNamespace

import numpy as np

from tinyalex.judge.gradcheck import apart, check_op


def leaky_relu(x, slope):
    """y = x where x > 0, else slope * x. The cache is x > 0 and the slope."""
    positive = x > 0
    return np.where(positive, x, slope * x), (positive, slope)


def leaky_relu_backward(dy, cache):
    """dx = dy where x > 0, else slope * dy."""
    positive, slope = cache
    return np.where(positive, dy, slope * dy)


def wrong_backward(dy, cache):
    """Forgets the slope, as a plain ReLU would."""
    positive, _ = cache
    return np.where(positive, dy, 0)


rng = np.random.default_rng(0)
x = apart((2, 4, 5, 3), rng)  # away from the kink at 0, where there is no derivative to check
for backward in (leaky_relu_backward, wrong_backward):
    ops = SimpleNamespace(leaky_relu=leaky_relu, leaky_relu_backward=backward)
    for tensor, error in check_op(ops, "leaky_relu", (x, 0.1), rng):
        print(f"{backward.__name__:<20} gradient by {tensor}: relative error {error:.1e}")
