"""Which pictures of a folder look like this one? By the last hidden layer of a trained network.

    python examples/nearest_pictures.py RUN FOLDER PICTURE

RUN is a run of tinyalex, or weights of another program (alexnet-owt.pth). Pictures are alike if
their features point the same way: the cosine of the angle between them is printed, 1 for the same.
"""

import argparse
from pathlib import Path

import numpy as np

import tinyalex
from tinyalex.data.decode import SUFFIXES

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("run", help="folder of a run, or weights of another program")
parser.add_argument("folder", help="pictures to look among, in folders too")
parser.add_argument("picture", help="picture to look for")
parser.add_argument("--layer", default="relu7", help="whose output is compared (default: relu7)")
parser.add_argument("--count", type=int, default=6, help="pictures to name (default: 6)")
arguments = parser.parse_args()

network = tinyalex.load(arguments.run)
paths = sorted(p for p in Path(arguments.folder).rglob("*") if p.suffix.lower() in SUFFIXES)
if not paths:
    raise SystemExit(f"There are no pictures in {arguments.folder}.")


def directions(pictures):
    """Features of length 1, (N, F); a map as one row."""
    rows = network.features(pictures, arguments.layer).reshape(len(pictures), -1)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


cosines = directions(paths) @ directions([arguments.picture])[0]
for i in np.argsort(-cosines, kind="stable")[: arguments.count]:
    print(f"{cosines[i]:6.3f}  {paths[i]}")
