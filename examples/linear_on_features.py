"""Is training needed, or is a linear classifier on the features enough?

    python examples/linear_on_features.py RUN DATA [--epochs 10]

fits a linear classifier on the last hidden layer that the weights of RUN give for the images of
DATA (a folder per class), and fine-tunes the whole network on the same images; both are measured on
the same validation images. RUN is a run of tinyalex; for weights of another program: tinyalex
import, first.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

import tinyalex
from tinyalex.data.batches import batches

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("run", help="folder of a run")
parser.add_argument("data", help="folder, .zip or .tar of images, a folder per class")
parser.add_argument("--epochs", type=int, default=10, help="of fine-tuning (default: 10)")
parser.add_argument("--batch-size", type=int, default=32)
parser.add_argument("--lr", type=float, default=0.001, help="of fine-tuning (default: .001)")
arguments = parser.parse_args()

pretrained = tinyalex.load(arguments.run)
architecture = pretrained.network.architecture
layer = architecture.rows[-2].name  # what the last layer reads, as in evaluation
data = tinyalex.open_data(arguments.data, architecture.data.image_size, seed=0)
val = data.require_val()


def features(split):
    """The last hidden layer, float64 (N, F), with a column of ones for the bias."""
    parts = [
        pretrained.features(batch.images, layer)
        for batch in batches(split, np.arange(len(split.labels)), 64, workers=2)
    ]
    rows = np.concatenate(parts).reshape(len(split.labels), -1).astype(np.float64)
    return np.hstack([rows, np.ones((len(rows), 1))])


def ridge(x, labels, strength):
    """The weights (F, classes) with the least squared error, plus strength |w|^2.

    By the smaller of two systems: with fewer images than features the one of the images.
    """
    targets = np.eye(len(data.classes))[labels]
    if len(x) < x.shape[1]:
        return x.T @ np.linalg.solve(x @ x.T + strength * np.eye(len(x)), targets)
    return np.linalg.solve(x.T @ x + strength * np.eye(x.shape[1]), x.T @ targets)


def error(weights, x, labels):
    return float(((x @ weights).argmax(1) != labels).mean())


seen, unseen = features(data.train), features(val)
scale = np.square(seen).sum(1).mean()
labels, fit = data.train.labels, np.arange(len(seen)) % 5 > 0  # a fifth chooses the strength
strengths = [scale * 10.0**power for power in range(-4, 3)]
held = [error(ridge(seen[fit], labels[fit], s), seen[~fit], labels[~fit]) for s in strengths]
linear = ridge(seen, labels, strengths[int(np.argmin(held))])
wrong = 100 * error(linear, unseen, val.labels)
print(f"linear classifier on {layer}: validation error {wrong:.2f} %")

with tempfile.TemporaryDirectory() as folder:
    config = tinyalex.Config(
        data=arguments.data,
        weights=arguments.run,
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        lr=arguments.lr,
        output_dir=str(Path(folder) / "run"),
    )
    tuned = tinyalex.train(config, say=lambda line: None)
images = np.stack([val.read(i) for i in range(len(val.labels))])
wrong = 100 * float((tuned.probabilities(images).argmax(1) != val.labels).mean())
print(f"the whole network, {arguments.epochs} epochs: validation error {wrong:.2f} %")
