"""Every layer as plain loops over indices, straight from its formula: a slow backend in itself.

It shares nothing with `tinyalex.reference` but the signatures. A cache holds the arguments, and
all results are float64.
"""

import math

import numpy as np

asarray = to_numpy = np.asarray


def augment(images, mean, corner, flip, shift, size, scale):
    y = np.zeros((len(images), size, size, 3))
    for n, i, j, c in np.ndindex(y.shape):
        row = corner[n, 0] + i
        column = corner[n, 1] + (size - 1 - j if flip[n] else j)
        y[n, i, j, c] = scale * (
            float(images[n, row, column, c]) - mean[row, column, c] + shift[n, c]
        )
    return y, None


def conv2d(x, w, b, stride, pad, groups, ceil):
    rows, columns = _conv_starts(x, w, stride, pad, ceil)
    y = np.zeros((len(x), len(rows), len(columns), len(w)))
    for n, i, j, o in np.ndindex(y.shape):
        y[n, i, j, o] = b[o]
        for tap, pixel in _conv_taps(x, w, n, rows[i], columns[j], o, groups):
            y[n, i, j, o] += w[tap] * x[pixel]
    return y, (x, w, stride, pad, groups, ceil)


def conv2d_backward(dy, cache):
    x, w, stride, pad, groups, ceil = cache
    rows, columns = _conv_starts(x, w, stride, pad, ceil)
    dx, dw, db = np.zeros(x.shape), np.zeros(w.shape), np.zeros(len(w))
    for n, i, j, o in np.ndindex(dy.shape):
        db[o] += dy[n, i, j, o]
        for tap, pixel in _conv_taps(x, w, n, rows[i], columns[j], o, groups):
            dx[pixel] += dy[n, i, j, o] * w[tap]
            dw[tap] += dy[n, i, j, o] * x[pixel]
    return dx, dw, db


def _conv_starts(x, w, stride, pad, ceil):
    """The top of each window, and the left, in the coordinates of x."""
    return [
        [start - pad for start in starts(n + 2 * pad, size, stride, ceil)]
        for n, size in zip(x.shape[1:3], w.shape[1:3], strict=True)
    ]


def _conv_taps(x, w, n, top, left, o, groups):
    """The index in w and the index in x of each product of one output."""
    _, H, W, _ = x.shape
    O, kh, kw, channels = w.shape
    group = o // (O // groups)
    for r, s, c in np.ndindex(kh, kw, channels):
        row, column = top + r, left + s
        if 0 <= row < H and 0 <= column < W:
            yield (o, r, s, c), (n, row, column, group * channels + c)


def starts(n, size, stride, ceil=False):
    """Where the windows over n pixels begin: while they fit; with ceil one more if pixels are left.

    The one more has to begin inside.
    """
    found = list(range(0, n - size + 1, stride))
    following, covered = len(found) * stride, found[-1] + size if found else 0
    if ceil and covered < n and following < n:
        found.append(following)
    return found


def relu(x):
    y = np.zeros(x.shape)
    for i in np.ndindex(x.shape):
        y[i] = 0 if x[i] <= 0 else x[i]
    return y, x


def relu_backward(dy, cache):
    dx = np.zeros(dy.shape)
    for i in np.ndindex(dx.shape):
        dx[i] = dy[i] if cache[i] > 0 else 0
    return dx


def tanh(x):
    y = np.zeros(x.shape)
    for i in np.ndindex(x.shape):
        y[i] = math.tanh(x[i])
    return y, x


def tanh_backward(dy, cache):
    dx = np.zeros(dy.shape)
    for i in np.ndindex(dx.shape):
        dx[i] = dy[i] / math.cosh(cache[i]) ** 2
    return dx


def lrn(x, n, k, alpha, beta, groups):
    channels = x.shape[3] // groups

    def window(index):
        image, row, column, i = index
        tower = i // channels
        for j in range(i - n // 2, i - n // 2 + n):
            if j // channels == tower:
                yield image, row, column, j

    return _normalised(x, window, k, alpha, beta)


def lrn_map(x, n, k, alpha, beta):
    _, H, W, _ = x.shape

    def window(index):
        image, i, j, c = index
        for row in range(max(0, i - n // 2), min(H, i - n // 2 + n)):
            for column in range(max(0, j - n // 2), min(W, j - n // 2 + n)):
                yield image, row, column, c

    return _normalised(x, window, k, alpha, beta)


def _normalised(x, window, k, alpha, beta):
    """y_i = x_i scale_i^-beta, scale_i = k + alpha * sum of x_j^2 over the window of i."""
    y, scale = np.zeros(x.shape), np.zeros(x.shape)
    for i in np.ndindex(x.shape):
        scale[i] = k + alpha * sum(x[j] ** 2 for j in window(i))
        y[i] = x[i] * scale[i] ** -beta
    return y, (x, scale, window, alpha, beta)


def lrn_backward(dy, cache):
    """By the chain rule: y_i depends on x_i, and through scale_i on every x_j in its window."""
    x, scale, window, alpha, beta = cache
    dx = np.zeros(x.shape)
    for i in np.ndindex(x.shape):
        dx[i] += dy[i] * scale[i] ** -beta
        dscale = dy[i] * x[i] * -beta * scale[i] ** (-beta - 1)
        for j in window(i):
            dx[j] += dscale * alpha * 2 * x[j]
    return dx


lrn_map_backward = lrn_backward


def max_pool(x, size, stride, ceil):
    y = np.zeros(_pool_shape(x, size, stride, ceil))
    for i in np.ndindex(y.shape):
        y[i] = x[_first_maximum(x, i, size, stride)]
    return y, (x, size, stride)


def max_pool_backward(dy, cache):
    x, size, stride = cache
    dx = np.zeros(x.shape)
    for i in np.ndindex(dy.shape):
        dx[_first_maximum(x, i, size, stride)] += dy[i]
    return dx


def _first_maximum(x, i, size, stride):
    """The index of the first maximum in row-major order; a NaN is greater than any number."""
    best, *others = pool_window(x, i, size, stride)
    for j in others:
        if x[j] > x[best] or (np.isnan(x[j]) and not np.isnan(x[best])):
            best = j
    return best


def avg_pool(x, size, stride, ceil):
    y = np.zeros(_pool_shape(x, size, stride, ceil))
    for i in np.ndindex(y.shape):
        pixels = list(pool_window(x, i, size, stride))
        y[i] = sum(x[j] for j in pixels) / len(pixels)
    return y, (x, size, stride)


def avg_pool_backward(dy, cache):
    x, size, stride = cache
    dx = np.zeros(x.shape)
    for i in np.ndindex(dy.shape):
        pixels = list(pool_window(x, i, size, stride))
        for j in pixels:
            dx[j] += dy[i] / len(pixels)
    return dx


def _pool_shape(x, size, stride, ceil):
    N, H, W, C = x.shape
    return N, len(starts(H, size, stride, ceil)), len(starts(W, size, stride, ceil)), C


def pool_window(x, i, size, stride):
    """The indices in x of the window of output i, in row-major order."""
    n, row, column, c = i
    for r, s in np.ndindex(size, size):
        if row * stride + r < x.shape[1] and column * stride + s < x.shape[2]:
            yield n, row * stride + r, column * stride + s, c


def linear(x, w, b):
    flat = x.reshape(len(x), -1)
    y = np.zeros((len(x), len(w)))
    for n, o in np.ndindex(y.shape):
        y[n, o] = b[o] + sum(w[o, i] * flat[n, i] for i in range(flat.shape[1]))
    return y, (x, w)


def linear_backward(dy, cache):
    x, w = cache
    flat = x.reshape(len(x), -1)
    dx, dw, db = np.zeros(flat.shape), np.zeros(w.shape), np.zeros(len(w))
    for n, o in np.ndindex(dy.shape):
        db[o] += dy[n, o]
        for i in range(flat.shape[1]):
            dx[n, i] += dy[n, o] * w[o, i]
            dw[o, i] += dy[n, o] * flat[n, i]
    return dx.reshape(x.shape), dw, db


def dropout(x, keep, scale):
    return dropout_backward(x, (keep, scale)), (keep, scale)


def dropout_backward(dy, cache):
    keep, scale = cache
    keep = np.ones(dy.shape) if keep is None else keep.reshape(dy.shape)
    dx = np.zeros(dy.shape)
    for i in np.ndindex(dx.shape):
        dx[i] = scale * dy[i] if keep[i] else 0
    return dx


def softmax_cross_entropy(logits, labels):
    probs, losses = np.zeros(logits.shape), []
    for n, row in enumerate(logits.tolist()):
        top = max(row)
        total = sum(math.exp(logit - top) for logit in row)
        probs[n] = [math.exp(logit - top) / total for logit in row]
        losses.append(math.log(total) + top - row[labels[n]])
    return np.array(sum(losses) / len(losses)), (probs, labels)


def softmax_cross_entropy_backward(cache):
    probs, labels = cache
    dlogits = np.zeros(probs.shape)
    for n, c in np.ndindex(probs.shape):
        dlogits[n, c] = (probs[n, c] - (c == labels[n])) / len(probs)
    return dlogits


def sgd_update(weights, gradients, velocities, rates, momentum, decays):
    for w, dw, v, rate, decay in zip(weights, gradients, velocities, rates, decays, strict=True):
        for i in np.ndindex(w.shape):
            v[i] = momentum * v[i] - decay * rate * w[i] - rate * dw[i]
            w[i] += v[i]
