"""Mistakes that the agreement of augment, convolution and linear has to notice."""

from kernels import Mutation

MUTATIONS = [
    Mutation("augment", "augment", "if flip[n]:", "if not flip[n]:"),
    Mutation("augment", "augment", "size - 1 - column", "size - 2 - column"),
    Mutation("augment", "augment", "corner[2 * n + 1] + column", "corner[2 * n] + column"),
    Mutation("augment", "augment", "- mean[at]", "- mean[(row * side + column) * 3 + c]"),
    Mutation("augment", "augment", "images[n * side * side * 3 + at]", "images[at]"),
    Mutation("augment", "augment", "+ shift[3 * n + c]) * scale", ") * scale + shift[3 * n + c]"),
    Mutation("augment", "augment", "n, row, column, c, side", "n, column, row, c, side"),
    Mutation("augment", "augment", "t, c = split(i, 3)", "t, c = split(i, 3)\n    c = 2 - c"),
    # im2col
    Mutation("conv2d", "conv", "span(left, left + kw)", "span(left, left + kw - 1)"),
    Mutation(
        "conv2d",
        "conv",
        "(output * G + g) * kh * kw * Cg",
        "(output * G + G - 1 - g) * kh * kw * Cg",
    ),
    Mutation("conv2d", "conv", "    " * 3 + "inside = 0 <= h", "    " * 3 + "inside = 0 < h"),
    # im2col of images
    Mutation(
        "conv2d",
        "conv",
        "    inside = 0 <= h < H and 0 <= v < W\n        col[to]",
        "    inside = 0 <= h < H and 0 <= v < W - 1\n        col[to]",
    ),
    Mutation(
        "conv2d",
        "conv",
        "s, channel = split(element, G * Cg)\n    g, c = split(channel, Cg)",
        "s, channel = split(element, G * Cg)\n    g, c = G - 1 - channel // Cg, channel % Cg",
    ),
    # col2im
    Mutation("conv2d", "conv", "* kh + r) * kw + s)", "* kh + s) * kw + r)"),
    Mutation("conv2d", "conv", "r = h + pad - row * stride", "r = h - row * stride"),
    Mutation("conv2d", "conv", "covering(v + pad, kw, stride, Wo)", "covering(v, kw, stride, Wo)"),
    Mutation("conv2d", "conv", "0 if p < size else", "0 if p <= size else"),
    Mutation("conv2d", "conv", "split(p, stride)[0] + 1)", "split(p, stride)[0])"),
    # conv2d and its fusion
    Mutation("conv2d", "conv", "    add_bias(y, b)\n", ""),
    Mutation(
        "conv2d",
        "conv",
        "dy, w.reshape(len(w), -1), dcol, sizes.G",
        "dy, w.reshape(len(w), -1), dcol, 1",
    ),
    Mutation("conv2d_relu", "conv", "    add_bias_relu(y, b)\n", "    add_bias(y, b)\n"),
    Mutation("conv2d_relu", "conv", "_gradients(dz, conv_cache", "_gradients(dy, conv_cache"),
    # augment, conv2d and relu in one
    Mutation("augment_conv2d_relu", "conv", "if 0 <= h < H and 0 <= v < W:", "if v < W and h < H:"),
    Mutation("augment_conv2d_relu", "conv", "n, h, v, channel, side", "n, h, v, c, side"),
    Mutation("augment_conv2d_relu", "conv", "channel, side, W)", "channel, side, side)"),
    # what follows a product
    Mutation("conv2d", "bias", "y[i] += b[split(i, channels)[1]]", "y[i] += b[0]"),
    Mutation(
        "linear", "bias", "y[i] += b[split(i, channels)[1]]", "y[i] = b[split(i, channels)[1]]"
    ),
    Mutation("conv2d_relu", "bias", "scale * rectified(y[i] + b", "scale * (y[i] + b"),
    Mutation("linear_relu_dropout", "bias", "scale * rectified(y[i] + b", "rectified(y[i] + b"),
    Mutation("conv2d", "bias", "total += x[row", "total = x[row"),
    Mutation("conv2d", "bias", "RUN + RUN)):\n        total", "RUN + RUN - 1)):\n        total"),
    Mutation("conv2d_relu", "bias", "y[at] > float32(0)", "y[at] >= float32(0)"),
    Mutation("linear_relu_dropout", "bias", "d = scale * dy[at]", "d = dy[at]"),
    Mutation("conv2d_relu", "bias", "total += d\n", "total += dy[at]\n"),
    # linear and its fusion
    Mutation("linear", "linear", "column_gradient(dy, w, dx", "column_gradient(dy, w + w, dx"),
    Mutation("linear_relu_dropout", "linear", "v if keep[i] else float32(0)", "v"),
    Mutation("linear_relu_dropout", "linear", "v = scale * rectified", "v = rectified"),
    Mutation("linear_relu_dropout", "linear", "b[split(i, outputs)[1]]", "b[0]"),
    Mutation("linear_relu_dropout", "linear", "_gradients(dz", "_gradients(dy"),
]
