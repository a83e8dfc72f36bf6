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
        "to = (output * G + g) * width + c\n",
        "to = (output * G + G - 1 - g) * width + c\n",
    ),
    Mutation("conv2d", "conv", "    " * 3 + "inside = 0 <= h", "    " * 3 + "inside = 0 < h"),
    Mutation(
        "relu_conv2d",
        "conv",
        "                value = rectified(value)\n",
        "                pass\n",
    ),
    Mutation("conv2d", "conv", "            if relu:\n", "            if True:\n"),
    # im2col of images
    Mutation(
        "conv2d",
        "conv",
        "\n        inside = 0 <= h < H and 0 <= v < W\n",
        "\n        inside = 0 <= h < H and 0 <= v < W - 1\n",
    ),
    Mutation(
        "conv2d",
        "conv",
        "s, channel = split(element, G * Cg)\n    g, c = split(channel, Cg)",
        "s, channel = split(element, G * Cg)\n    g, c = G - 1 - channel // Cg, channel % Cg",
    ),
    # bias as a part of the product
    Mutation("conv2d", "conv", "float32(1) if e == taps else", "float32(1) if e > taps else"),
    Mutation("conv2d", "conv", "    e = taps + c\n", "    e = taps + c + 1\n"),
    Mutation("conv2d", "conv", "    while e < width:", "    while e < width - 1:"),
    Mutation("conv2d", "conv", "        e += Cg\n", "        e += Cg + 1\n"),
    Mutation("conv2d", "conv", "wide[i] = w[o * taps + e]", "wide[i] = w[o * taps]"),
    Mutation(
        "conv2d", "conv", "wide[i] = b[o] if e == taps else", "wide[i] = b[0] if e == taps else"
    ),
    Mutation("conv2d", "conv", "value = wide[o * width + e]", "value = wide[o * taps + e]"),
    Mutation("conv2d", "conv", "        db[o] = value", "        db[0] = value"),
    Mutation("conv2d", "conv", "dw[o * taps + e] = value", "dw[o * taps + e] = -value"),
    # col2im
    Mutation("conv2d", "conv", "+ g) * kh + r) * kw + s)", "+ g) * kh + s) * kw + r)"),
    Mutation("conv2d", "conv", "r = h + pad - row * stride", "r = h - row * stride"),
    Mutation("conv2d", "conv", "covering(v + pad, kw, stride, Wo)", "covering(v, kw, stride, Wo)"),
    Mutation("conv2d", "conv", "0 if p < size else", "0 if p <= size else"),
    Mutation("conv2d", "conv", "split(p, stride)[0] + 1)", "split(p, stride)[0])"),
    Mutation("relu_conv2d", "conv", "if x[i] > float32(0) else", "if x[i] >= float32(0) else"),
    Mutation("relu_conv2d", "conv", "    if x is None:", "    if True:"),
    Mutation(
        "conv2d",
        "conv",
        "dy, w.reshape(len(w), -1), dcol, sizes.G",
        "dy, w.reshape(len(w), -1), dcol, 1",
    ),
    # augment and conv2d in one, by strips
    Mutation("augment_conv2d", "conv", "elif 0 <= h < size and", "elif h < size and"),
    Mutation("augment_conv2d", "conv", "and 0 <= v < size:", "and 0 <= v < size - 1:"),
    Mutation("augment_conv2d", "conv", "n, h, v, c, side, size)", "n, v, h, c, side, size)"),
    Mutation("augment_conv2d", "conv", "c, side, size)", "c, side, side)"),
    Mutation("augment_conv2d", "conv", "h, v = row * stride - pad", "h, v = row * stride"),
    Mutation("augment_conv2d", "conv", "+ r, column - pad", "+ r, column"),
    Mutation("augment_conv2d", "conv", "    if r == kh:", "    if r > kh:"),
    Mutation("augment_conv2d", "conv", "(kw * unit + 3) // 4 * 4", "(kw * unit - 1) // 4 * 4"),
    Mutation("augment_conv2d", "conv", "    if s < kw and r < kh:", "    if s < kw and r <= kh:"),
    Mutation("augment_conv2d", "conv", "w[((o * kh + r) * kw + s)", "w[((o * kw + s) * kh + r)"),
    Mutation("augment_conv2d", "conv", "if at == 3 * kh else", "if r == kh else"),
    Mutation("augment_conv2d", "conv", "s * (3 * kh + 1) + r * 3 + c", "(s * kh + r) * 3 + c"),
    Mutation("augment_conv2d", "conv", "    r, s = split(t, kw)", "    s, r = split(t, kh)"),
    Mutation("augment_conv2d", "conv", "for part in span(0, count)", "for part in span(1, count)"),
    Mutation("augment_conv2d", "conv", "(part * filters + o) * width", "(part * filters) * width"),
    Mutation("augment_conv2d", "conv", "        db[o] = total", "        db[o] = -total"),
    Mutation(
        "augment_conv2d",
        "conv",
        "windows_by_filters(strips, wide, y, stride * (3 * kh + 1))",
        "windows_by_filters(strips, wide, y, 3 * kh + 1)",
    ),
    Mutation(
        "augment_conv2d",
        "conv",
        "window_weight_gradients(strips, dy, parts, stride * (3 * kh + 1))",
        "window_weight_gradients(strips, dy, parts, stride * 3 * kh)",
    ),
    Mutation("augment_conv2d", "conv", "    if groups > 1:", "    if groups > 9:"),
    # what follows the product of a linear layer
    Mutation(
        "linear", "bias", "y[i] += b[split(i, channels)[1]]", "y[i] = b[split(i, channels)[1]]"
    ),
    Mutation("linear", "bias", "y[i] += b[split(i, channels)[1]]", "y[i] += b[0]"),
    Mutation("linear_relu_dropout", "bias", "scale * rectified(y[i] + b", "scale * (y[i] + b"),
    Mutation("linear_relu_dropout", "bias", "scale * rectified(y[i] + b", "rectified(y[i] + b"),
    Mutation("linear", "bias", "total += x[row", "total = x[row"),
    Mutation("linear", "bias", "RUN + RUN)):\n        total", "RUN + 1)):\n        total"),
    Mutation("linear_relu_dropout", "bias", "y[at] > float32(0)", "y[at] >= float32(0)"),
    Mutation("linear_relu_dropout", "bias", "d = scale * dy[at]", "d = dy[at]"),
    Mutation("linear_relu_dropout", "bias", "total += d\n", "total += dy[at]\n"),
    # linear and its fusion
    Mutation("linear", "linear", "column_gradient(dy, w, dx", "column_gradient(dy, w + w, dx"),
    Mutation("linear_relu_dropout", "linear", "v if keep[i] else float32(0)", "v"),
    Mutation("linear_relu_dropout", "linear", "v = scale * rectified", "v = rectified"),
    Mutation("linear_relu_dropout", "linear", "b[split(i, outputs)[1]]", "b[0]"),
    Mutation("linear_relu_dropout", "linear", "_gradients(dz", "_gradients(dy"),
]
