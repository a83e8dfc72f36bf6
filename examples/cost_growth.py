"""How time and memory grow with the batch, the side of the images and the number of classes.

    python examples/cost_growth.py

times training steps of `alexnet` on the reference backend, 3 of each after one to begin with, each
size in a process of its own, and prints a table: milliseconds of the median step, and the most
memory that the process had. Takes 3 minutes on two cores, and 4 GiB.
"""

import json
import statistics
import subprocess
import sys
import timeit
from dataclasses import replace

from tinyalex.bench.workload import Work, peak_bytes, reference_calls
from tinyalex.net.presets import get_architecture
from tinyalex.system.backends import get_backend

# Images a step, side of a crop, classes: each line of the table varies one of them.
GROWTH = {
    "images a step": [(8, 227, 1000), (32, 227, 1000), (128, 227, 1000)],
    "side of an image": [(32, 131, 1000), (32, 227, 1000), (32, 451, 1000)],
    "classes": [(32, 227, 10), (32, 227, 1000), (32, 227, 20000)],
}
STEPS = 3


def measure(images, side, classes):
    """Milliseconds of a step, median, and the process's peak in MiB."""
    network = get_architecture("alexnet").with_classes(classes)
    first, *rest = network.rows
    first = replace(first, size=side, image_size=side + 29)
    network = replace(network, rows=(first, *rest))
    step = reference_calls(Work.of(network, images), get_backend("reference"))["training"]
    step()
    times = timeit.repeat(step, number=1, repeat=STEPS)
    return {"ms": 1e3 * statistics.median(times), "MiB": peak_bytes() / 2**20}


def main():
    print(f"{'varied':<18} {'images':>6} {'side':>5} {'classes':>8} {'ms a step':>10} {'MiB':>6}")
    found = {}
    for what, rows in GROWTH.items():
        for sizes in rows:
            if sizes not in found:
                command = [sys.executable, __file__, *map(str, sizes)]
                child = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                found[sizes] = json.loads(child.stdout)
            images, side, classes = sizes
            ms, mib = found[sizes]["ms"], found[sizes]["MiB"]
            print(
                f"{what:<18} {images:>6} {side:>5} {classes:>8} {ms:>10.0f} {mib:>6.0f}", flush=True
            )


if __name__ == "__main__":
    if sys.argv[1:]:
        print(json.dumps(measure(*map(int, sys.argv[1:]))))
    else:
        main()
