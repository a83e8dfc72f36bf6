"""Layers and costs of a network, as a table beside the paper's own figures."""

import dataclasses
import math
from typing import Any

from tinyalex.net.layers import Conv2d
from tinyalex.net.presets import Architecture
from tinyalex.net.shapes import layers

# Where the paper's text is at odds with its own network or with the code that won.
SLIPS = """\
The paper gives conv1 253,440 neurons, which is 55 x 48 x 96; 55 x 55 x 96 = 290,400, and only with
that the sum is the abstract's 650,000.
It says that each convolution has at most 1 % of the parameters; conv3 has 1.45 % and conv4 1.09 %.
It takes 224-pixel inputs; 55 x 55 maps need 227, or the code's 3 zero pixels right and below.
It counts 2048 crops and flips; offsets 0 to 32 give 33 x 33 x 2 = 2178.
It initialises all weights with .01; the code has .03 on conv3 to conv5, without which the loss
stays at ln(classes).
It has equal rates for weights and biases; the code doubles that of biases.
It adds alpha_i lambda_i to the colours with lambda an eigenvalue; its square root is meant."""


def summary(architecture: Architecture) -> dict[str, Any]:
    """Counts per layer and in all. Memory is float32: parameters with gradient and momentum."""
    rows: list[dict[str, Any]] = [
        {
            "name": layer.row.name,
            "kind": layer.row.kind,
            "output": layer.output,
            "parameters": layer.parameters,
            "macs": layer.macs,
            "neurons": layer.neurons,
        }
        for layer in layers(architecture.rows)
    ]
    totals = {what: sum(row[what] for row in rows) for what in ("parameters", "macs", "neurons")}
    return {
        "architecture": architecture.name,
        "source": architecture.source,
        **totals,
        "training_state_bytes": 3 * 4 * totals["parameters"],
        "activation_bytes_per_image": 4 * sum(math.prod(row["output"]) for row in rows),
        "recipe": dataclasses.asdict(architecture.recipe),
        "layers": rows,
    }


def gpu_bytes(architecture: Architecture) -> tuple[int, int]:
    """Estimate what training takes of a GPU's memory: once, and for each image of a batch.

    An image has the columns of its convolutions, the largest of them twice, for their gradient;
    and each output, with its gradient.
    """
    found = summary(architecture)
    columns = [
        4 * layer.macs // row.channels * row.groups
        for layer in layers(architecture.rows)
        if isinstance(row := layer.row, Conv2d)
    ]
    image = 2 * found["activation_bytes_per_image"] + sum(columns) + max(columns)
    return found["training_state_bytes"], image


def table(architecture: Architecture) -> str:
    """The summary for people."""
    s = summary(architecture)
    lines = [
        f"{s['architecture']}: {s['source']}",
        "",
        f"{'layer':<8} {'kind':<9} {'output':>13} {'parameters':>12} {'share':>7} "
        f"{'multiply-adds':>14} {'neurons':>9}",
    ]
    for row in s["layers"]:
        share = f"{100 * row['parameters'] / s['parameters']:6.2f}%" if row["parameters"] else ""
        counts = [
            f"{row[what]:,}" if row[what] else "" for what in ("parameters", "macs", "neurons")
        ]
        shape = " x ".join(map(str, row["output"]))
        lines.append(
            f"{row['name']:<8} {row['kind']:<9} {shape:>13} {counts[0]:>12} {share:>7} "
            f"{counts[1]:>14} {counts[2]:>9}"
        )
    lines += [
        f"{'sum':<32} {s['parameters']:>12,} {'':>7} {s['macs']:>14,} {s['neurons']:>9,}",
        "",
        f"parameters, gradients and momentum: {s['training_state_bytes'] / 2**20:,.0f} MiB; "
        f"activations: {s['activation_bytes_per_image'] / 2**20:.2f} MiB an image (float32)",
    ]
    if architecture.name == "alexnet":
        lines += ["", "Where the paper's figures differ:", *(f"  {t}" for t in SLIPS.splitlines())]
    return "\n".join(lines)
