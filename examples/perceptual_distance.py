"""How different do two pictures look? By how far apart they are in the layers of a network.

    python examples/perceptual_distance.py RUN PICTURE OTHER

After every ReLU of a convolution the channels of each place are scaled to length 1; the squared
differences are averaged over the places, and summed over the layers. This is the distance of Zhang,
Isola, Efros, Shechtman, Wang 2018 (arXiv:1801.03924, equation 1) with all weights 1.
"""

import argparse

import numpy as np

import tinyalex

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("run", help="folder of a run, or weights of another program")
parser.add_argument("pictures", nargs=2, metavar="PICTURE", help="the two to compare")
arguments = parser.parse_args()

network = tinyalex.load(arguments.run)
rows = network.network.architecture.rows
names = [row.name for row in rows]
last = max(i for i, row in enumerate(rows) if row.kind == "conv2d")
layers = [row.name for row in rows if row.kind == "relu" and names.index(row.name) <= last + 2]

total = 0.0
for layer in layers:
    maps = network.features(arguments.pictures, layer).astype(np.float64)  # (2, H, W, C)
    maps /= np.maximum(np.linalg.norm(maps, axis=3, keepdims=True), 1e-10)
    distance = np.square(maps[0] - maps[1]).sum(2).mean()
    print(f"{layer:<8} {distance:.4f}")
    total += distance
print(f"{'sum':<8} {total:.4f}")
