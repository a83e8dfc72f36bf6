"""How near is near enough for a backend, and the comparison of two.

Sums of whole numbers are exact in any order and are compared bit for bit. Other results may differ
by some roundings of the terms they add up, which counts also where the terms cancel.
"""

import numpy as np
from strategies import Call, integers

SUMS = 16
"""Roundings of a sum of products, in units of the dtype's epsilon. Measured: 5."""

POWERS = 84
"""Roundings of a power or an exponential: 1e-5 in float32."""

TORCH = 1e-12
"""One layer in float64, PyTorch and the reference; relative to the largest element."""

ORDER = 1e-12
"""One layer in float64 and its sums in another order; relative to the largest element."""

STEPS = 1e-9
"""The parameters after steps of a whole network in float64. Measured: 3e-15."""

FULL_SIZE = 1e-5
"""One layer of real size in float32: |d| / |y| of each tensor."""

FLOAT32_LOSS, FLOAT32_GRADIENT = 1e-5, 2e-2
"""One step of a whole network in float32: relative error of the loss, and |d| / |g| of a gradient.

Where rounding changes the sign of a ReLU's input or the winner of a max pool, gradients differ by
a percent and neither is wrong."""

POWER_OPS = {"tanh", "lrn", "lrn_map", "lrn_max_pool", "relu_lrn_max_pool"}
POWER_OPS |= {"softmax_cross_entropy"}


def agree(ops, truth, call: Call, dtype) -> None:
    """Asserts that `ops`, computing in dtype, agrees with `truth`, computing in float64."""
    actual, expected = results(ops, call, dtype), results(truth, call, np.float64)
    terms = absolute_terms(truth, call, expected)
    for tensor, value in actual.items():
        assert value.dtype == dtype, tensor
        near(value, expected[tensor], terms[tensor], roundings(call, tensor))


def roundings(call: Call, tensor: str) -> int:
    """How many roundings a result may be off; none if whole numbers make it exact."""
    if call.op in POWER_OPS:
        return POWERS
    thirds = (call.op, tensor) == ("avg_pool", "dx")
    return 0 if call.fill is integers and not thirds else SUMS


def agree_on_update(ops, truth, arguments, fill, dtype) -> None:
    """The same for the weights and velocities that `sgd_update` leaves."""
    weights, gradients, velocities, rates, momentum, decays = arguments
    signs = (1, weights), (-1, gradients), (1, velocities)
    absolute = [[sign * np.abs(a) for a in arrays] for sign, arrays in signs]
    terms = updated(truth, (*absolute, rates, momentum, [-d for d in decays]), np.float64)
    actual, expected = updated(ops, arguments, dtype), updated(truth, arguments, np.float64)
    for value, right, term in zip(actual, expected, terms, strict=True):
        assert value.dtype == dtype
        near(value, right, term, 0 if fill is integers else SUMS)


def near(actual, expected, terms, roundings) -> None:
    """Asserts |actual - expected| <= roundings * epsilon * terms, element by element.

    No roundings: equal, but for that of the exact result to the dtype.
    """
    assert actual.shape == expected.shape
    if roundings:
        excess = np.abs(actual - expected) - roundings * np.finfo(actual.dtype).eps * terms
        assert (excess <= 0).all(), f"{excess.max():.3g} beyond the tolerance"
    else:
        np.testing.assert_array_equal(actual, expected.astype(actual.dtype))


def relative(actual, expected) -> float:
    """The largest difference, relative to the largest element."""
    assert actual.shape == expected.shape
    largest = np.abs(expected).max()
    return float(np.abs(actual - expected).max() / (largest if largest else 1))


def relative_l2(actual, expected) -> float:
    """|actual - expected| / |expected|."""
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


def results(ops, call: Call, dtype) -> dict:
    """y and the gradients of a call, under their names, as NumPy arrays."""
    arguments = [
        ops.asarray(a) if isinstance(a, np.ndarray) else a for a in call.arguments_as(dtype)
    ]
    y, cache = getattr(ops, call.op)(*arguments)
    tensors = {"y": ops.to_numpy(y)}
    if call.op != "augment":
        gradients = backward(ops, call.op, ops.asarray(call.dy(tensors["y"])), cache)
        tensors |= {name: ops.to_numpy(gradient) for name, gradient in gradients.items()}
    return tensors


def updated(ops, arguments, dtype) -> list:
    """The weights and velocities after an sgd_update, which changes copies of the arguments."""
    *lists, rates, momentum, decays = arguments
    weights, gradients, velocities = ([ops.asarray(a.astype(dtype)) for a in l] for l in lists)
    ops.sgd_update(weights, gradients, velocities, rates, momentum, decays)
    return [ops.to_numpy(a) for a in weights + velocities]


def backward(ops, op, dy, cache, **options) -> dict:
    """The gradients of a layer: dx, and those by its parameters, which are numbered.

    The loss takes no dy, and images have no dx. options: of the backend's function, as need_dx.
    """
    function = getattr(ops, f"{op}_backward")
    gradients = function(cache) if op == "softmax_cross_entropy" else function(dy, cache, **options)
    dx, *own = gradients if isinstance(gradients, tuple) else (gradients,)
    by_parameters = {f"gradient by parameter {i}": gradient for i, gradient in enumerate(own, 1)}
    return by_parameters if dx is None else {"dx": dx} | by_parameters


def absolute_terms(ops, call: Call, expected: dict) -> dict:
    """For each element of the results the sum of the absolute values of what it adds up."""
    arguments = call.arguments_as(np.float64)
    positive = [np.abs(a) if isinstance(a, np.ndarray) else a for a in arguments]
    terms = {tensor: np.abs(value) for tensor, value in expected.items()}
    match call.op:
        case "augment":
            images, mean, *rest = positive
            terms["y"], _ = ops.augment(images, -mean, *rest)
        case "augment_conv2d":
            images, mean, *rest = positive
            y, cache = ops.augment_conv2d(images, -mean, *rest)
            terms |= {"y": y} | backward(ops, call.op, np.abs(call.dy(y)), cache)
        case "conv2d" | "relu_conv2d" | "linear" | "linear_relu_dropout" | "avg_pool":
            y, cache = getattr(ops, call.op)(*positive)
            terms |= {"y": y} | backward(ops, call.op, np.abs(call.dy(y)), cache)
        case "relu_max_pool":
            y, cache = ops.relu_max_pool(*arguments)
            terms["dx"] = ops.relu_max_pool_backward(np.abs(call.dy(y)), cache)
        case "max_pool":
            _, cache = ops.max_pool(*arguments)
            terms["dx"] = ops.max_pool_backward(np.abs(call.dy(expected["y"])), cache)
        case "tanh":  # 1 - y^2
            terms["dx"] = np.abs(call.dy(expected["y"])) * (1 + expected["y"] ** 2)
        case "lrn" | "lrn_map":
            dy = np.abs(call.dy(expected["y"]))
            terms["dx"] = normalisation_terms(ops, call.op, positive, dy)
        case "lrn_max_pool" | "relu_lrn_max_pool":
            if call.op.startswith("relu"):
                arguments = [ops.relu(arguments[0])[0], *arguments[1:]]
                positive[0] = arguments[0]
            z, _ = ops.lrn(*arguments[:6])
            y, cache = ops.max_pool(z, *arguments[6:])
            dz = ops.max_pool_backward(np.abs(call.dy(y)), cache)
            terms["dx"] = normalisation_terms(ops, "lrn", positive[:6], dz)
        case "softmax_cross_entropy":  # p - onehot, over N
            logits, _ = arguments
            terms["y"] = 2 * np.abs(logits).max() + np.log(logits.shape[1])
            terms["dx"] = np.full(logits.shape, 2 / len(logits))
    return terms


def normalisation_terms(ops, op, positive, dy):
    """For dx = direct - through the scale, both >= 0 on absolute values: their sum."""
    x, _, k, _, beta, *_ = positive
    y, cache = getattr(ops, op)(*positive)
    power = np.divide(y, x, out=np.full_like(y, k**-beta), where=x != 0)  # scale^-beta
    return 2 * dy * power - backward(ops, op, dy, cache)["dx"]
