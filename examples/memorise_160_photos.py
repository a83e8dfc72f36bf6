"""Can the full AlexNet learn 160 photos by heart? If not, a gradient is wrong somewhere.

    python examples/memorise_160_photos.py PHOTOS.zip

trains `alexnet`, all 61 million parameters at 227 pixels, on a few full-size photos, one or more a
class, without dropout and always on the centre crop, until it names every one of them. With the
initial weights of the 2012 code this takes some 40 epochs; with the paper's .01 everywhere
(--literal) the loss stays at ln(classes).
"""

import argparse
import math
import time

import numpy as np

from tinyalex.data import open_data
from tinyalex.data.batches import batches, epoch_order, keep_in_memory, mean_and_colour
from tinyalex.errors import TinyalexError
from tinyalex.measure.evaluate import evaluate
from tinyalex.net.draws import centre_draws, initial_parameters
from tinyalex.net.network import Network
from tinyalex.net.optimizer import SGD
from tinyalex.net.presets import get_architecture
from tinyalex.net.step import train_step
from tinyalex.system.backends import get_backend

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("photos", help="folder, .zip or .tar with a folder of photos per class")
parser.add_argument("--epochs", type=int, default=60, help="give up after so many (default: 60)")
parser.add_argument("--batch-size", type=int, default=32)
parser.add_argument("--lr", type=float, default=0.01)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--literal", action="store_true", help="initial weights as the paper's text")
arguments = parser.parse_args()

ops = get_backend("reference")
changes = "+no-dropout+paper-init" if arguments.literal else "+no-dropout"
alexnet = get_architecture(f"alexnet{changes}")
size = alexnet.data.image_size
try:
    data = open_data(arguments.photos, size, arguments.seed)
except TinyalexError as error:
    parser.error(str(error))
alexnet = alexnet.with_classes(len(data.classes))
photos = keep_in_memory(data.train, size)
mean, _ = mean_and_colour(photos, size, seed=arguments.seed, workers=2)
parameters = initial_parameters(alexnet, arguments.seed)
network = Network(alexnet, ops, parameters, mean)
sgd = SGD(network, alexnet.recipe, {name: np.zeros_like(w) for name, w in parameters.items()})
print(f"{len(photos.labels)} photos of {len(data.classes)} classes; ln(classes) =", end=" ")
print(f"{math.log(len(data.classes)):.3f}")

began = time.monotonic()
for epoch in range(arguments.epochs):
    order = epoch_order(arguments.seed, epoch, len(photos.labels))
    for batch in batches(photos, order, arguments.batch_size, workers=2):
        draws = centre_draws(alexnet.data, len(batch.labels))
        train_step(sgd, batch.images, batch.labels, draws, arguments.lr)
    scores = evaluate([network], photos, arguments.batch_size, workers=2)
    print(
        f"epoch {epoch + 1:2d}  loss {scores.loss:7.4f}  training top-1 error "
        f"{100 * scores.top1_error:6.2f} %  {time.monotonic() - began:5.0f} s",
        flush=True,
    )
    if scores.top1_error == 0:
        print("Every photo is known by heart.")
        break
else:
    raise SystemExit(f"Not memorised within {arguments.epochs} epochs.")
