"""Mistakes that the agreement of the layers without products has to notice."""

from kernels import Mutation

MUTATIONS = [
    Mutation("relu", "activation", "y[i] = rectified(x[i])", "y[i] = x[i]"),
    Mutation("relu", "activation", "= rectified(x[i])", "= rectified(x[i] - float32(1))"),
    Mutation("relu", "activation", "if y[i] > float32(0)", "if y[i] >= float32(0)"),
    Mutation("relu", "activation", "dx[i] = dy[i] if y[i]", "dx[i] = dy[i] if dy[i]"),
    Mutation("tanh", "activation", "math.tanh(x[i])", "math.sinh(x[i])"),
    Mutation("tanh", "activation", "math.tanh(x[i])", "math.tanh(float32(1.0001) * x[i])"),
    Mutation("tanh", "activation", "- y[i] * y[i]", "- y[i]"),
    Mutation("tanh", "activation", "(float32(1) - y[i]", "(float32(1) + y[i]"),
    Mutation(
        "dropout",
        "activation",
        "x: Floats, y: Floats, scale: float) -> None:\n    y[i] = scale",
        "x: Floats, y: Floats, scale: float) -> None:\n    y[i] = float32(1)",
    ),
    Mutation(
        "dropout",
        "activation",
        "x: Floats, y: Floats, scale: float) -> None:\n    y[i]",
        "x: Floats, y: Floats, scale: float) -> None:\n    y[0]",
    ),
    Mutation("dropout", "activation", "scale * x[i] if keep[i] else float32(0)", "scale * x[i]"),
    Mutation("dropout", "activation", "= scale * x[i] if keep[i]", "= x[i] if keep[i]"),
    # lrn
    Mutation(
        "lrn",
        "lrn",
        "-min(c, n // 2), min(length - c, n - n // 2)",
        "-min(c, n // 2), min(length - c, n - n // 2 - 1)",
    ),
    Mutation("lrn", "lrn", "-min(c, n // 2), min", "-min(c, (n - 1) // 2), min"),
    Mutation("lrn", "lrn", "min(length - c, n // 2 + 1)", "min(length - c, n // 2)"),
    Mutation(
        "lrn", "lrn", "-min(c, n - 1 - n // 2), min(length - c, n // 2 + 1)", "window(c, length, n)"
    ),
    Mutation("lrn", "lrn", "return k + alpha * total", "return k + alpha * total / float32(n)"),
    Mutation(
        "lrn", "lrn", "c = split(i, tower)[1]\n    scale", "c = split(i, 2 * tower)[1]\n    scale"
    ),
    Mutation(
        "lrn",
        "lrn",
        "lrn_scale(x, i, c, tower, n, k, alpha, 0)\n    y",
        "lrn_scale(x, i, c, tower, n + 1, k, alpha, 0)\n    y",
    ),
    Mutation(
        "lrn",
        "lrn",
        "mirrored(split(i, tower)[1], tower, n)",
        "window(split(i, tower)[1], tower, n)",
    ),
    Mutation(
        "lrn",
        "lrn",
        "span(i + first, i + last):\n        total += dy[j]",
        "span(i + first, i + last - 1):\n        total += dy[j]",
    ),
    # lrn_map
    Mutation(
        "lrn_map", "lrn", "top, bottom = window(row, H, n)", "top, bottom = window(row, W, n)"
    ),
    Mutation(
        "lrn_map",
        "lrn",
        "left, right = window(column, W, n)",
        "left, right = window(column, W, n - 1)",
    ),
    Mutation(
        "lrn_map", "lrn", "top, bottom = mirrored(row, H, n)", "top, bottom = window(row, H, n)"
    ),
    Mutation(
        "lrn_map",
        "lrn",
        "left, right = mirrored(column, W, n)",
        "left, right = window(column, W, n)",
    ),
    # max_pool
    Mutation(
        "max_pool",
        "pool",
        "* C + c, relu)\n                if value > best",
        "* C + c, relu)\n                if value >= best",
    ),
    Mutation(
        "max_pool",
        "pool",
        "((n * H + h) * W + v) * C + c, relu)",
        "((n * W + h) * H + v) * C + c, relu)",
    ),
    Mutation(
        "max_pool",
        "pool",
        "dx[i] = pooled(dy, winner, n, h, v, c, sizes)\n",
        "dx[i] = pooled(dy, winner, n, v, h, c, sizes)\n",
    ),
    Mutation(
        "max_pool",
        "pool",
        "dx[i] = pooled(dy, winner, n, h, v, c, sizes)\n",
        "dx[i] = pooled(dy, winner, n, h, v, c, (*sizes[:5], sizes[5] - 1, sizes[6]))\n",
    ),
    Mutation(
        "max_pool",
        "pool",
        "(h - row * stride) * size + v - column * stride",
        "(v - column * stride) * size + h - row * stride",
    ),
    Mutation("max_pool", "pool", "total += dy[output]", "total = dy[output]"),
    Mutation("max_pool", "pool", "if winner[output] == (", "if winner[output] >= ("),
    # avg_pool
    Mutation("avg_pool", "pool", "min(size, H - row * stride)", "size"),
    Mutation(
        "avg_pool", "pool", "min(size, W - column * stride)", "min(size, H - column * stride)"
    ),
    Mutation("avg_pool", "pool", "total / pixels(row, column", "total / pixels(column, row"),
    Mutation(
        "avg_pool",
        "pool",
        "total += x[((n * H + h) * W + v) * C + c]",
        "total = x[((n * H + h) * W + v) * C + c]",
    ),
    Mutation(
        "avg_pool", "pool", "total += share / pixels(row, column", "total += share / pixels(0, 0"
    ),
    Mutation(
        "avg_pool",
        "pool",
        "share = dy[((n * Ho + row) * Wo + column) * C + c]",
        "share = dy[((n * Wo + row) * Ho + column) * C + c]",
    ),
    # relu and max_pool in one
    Mutation("relu_max_pool", "pool", "stride, ceil, relu=True)", "stride, ceil, relu=False)"),
    Mutation("max_pool", "pool", "stride, ceil, relu=False)", "stride, ceil, relu=True)"),
    Mutation("relu_max_pool", "pool", "v, c, sizes) if x[i]", "v, c, sizes) if dy[0]"),
    Mutation("relu_max_pool", "pool", "if x[i] > float32(0) else", "if x[i] >= float32(0) else"),
    Mutation("relu_max_pool", "lrn", "rectified(x[i]) if relu", "x[i] if relu"),
    # lrn and max_pool in one, with a relu and without
    Mutation("relu_lrn_max_pool", "pool", "groups), n, 1), size", "groups), n, 0), size"),
    Mutation("lrn_max_pool", "pool", "groups), n, 0), size", "groups), n, 1), size"),
    Mutation("relu_lrn_max_pool", "pool", "if not relu or x[i] >", "if relu or x[i] >"),
    Mutation("relu_lrn_max_pool", "pool", "relu or x[i] > float32(0)", "relu or True"),
    Mutation("relu_lrn_max_pool", "lrn", "value = loaded(x, j, relu)", "value = x[j]"),
    Mutation("relu_lrn_max_pool", "pool", "value = loaded(x, at, relu)", "value = x[at]"),
    Mutation("relu_lrn_max_pool", "pool", "part * loaded(x, i + o, relu)", "part * x[i]"),
    Mutation(
        "lrn_max_pool",
        "pool",
        "power(scale, -beta)\n                if value > best",
        "power(scale, -beta)\n                if value >= best",
    ),
    Mutation(
        "lrn_max_pool",
        "pool",
        "lrn_scale(x, at, split(c, tower)[1], tower",
        "lrn_scale(x, at, c, C",
    ),
    Mutation("lrn_max_pool", "pool", "if o == 0:\n", "if o == first:\n"),
    Mutation("lrn_max_pool", "pool", "mirrored(in_tower, tower, n)", "mirrored(c, C, n)"),
    Mutation(
        "lrn_max_pool", "pool", "lrn_scale(x, i + o, in_tower + o", "lrn_scale(x, i + o, in_tower"
    ),
    Mutation("lrn_max_pool", "pool", "h, v, c + o, sizes", "h, v, c, sizes"),
    Mutation("lrn_max_pool", "pool", "own = part * scale", "own = part"),
    # loss
    Mutation(
        "softmax_cross_entropy",
        "loss",
        "top = max(top, logits[j])",
        "top = float32(0)",
    ),
    Mutation(
        "softmax_cross_entropy",
        "loss",
        "range(first + lane, last, LANES):\n        total",
        "range(first + lane, last, 2 * LANES):\n        total",
    ),
    Mutation(
        "softmax_cross_entropy",
        "loss",
        "top = max(top, lane_tops[i * LANES + lane])",
        "top = float32(0)",
    ),
    Mutation(
        "softmax_cross_entropy",
        "loss",
        "lane_totals[j] * math.exp(lane_tops[j] - top)",
        "lane_totals[j]",
    ),
    Mutation("softmax_cross_entropy", "loss", "logits[i * classes + label]", "logits[label]"),
    Mutation("softmax_cross_entropy", "loss", "total / float32(count)", "total"),
    Mutation("softmax_cross_entropy", "loss", "for j in range(count)", "for j in range(1, count)"),
    Mutation(
        "softmax_cross_entropy", "loss", "if c == labels[image] else", "if i == labels[image] else"
    ),
    Mutation("softmax_cross_entropy", "loss", "(p - onehot) / float32(images)", "p - onehot"),
    Mutation("softmax_cross_entropy", "loss", "/ totals[image]", "/ totals[0]"),
    # update
    Mutation("sgd_update", "sgd", "- decay[0] * rate[0] * old", "- decay[0] * old"),
    Mutation("sgd_update", "sgd", "momentum * v[i]", "v[i]"),
    Mutation("sgd_update", "sgd", "w[i] = old + move", "w[i] = old + momentum * move"),
    Mutation(
        "sgd_update",
        "sgd",
        "zip(weights, gradients, velocities, rate, decay, strict=True)",
        "zip(weights, gradients, velocities, decay, rate, strict=True)",
    ),
]
