"""The training loop in plain sight: five epochs of `mini` on the built-in images, from Python."""

import numpy as np

from tinyalex.data import open_data
from tinyalex.data.batches import batches, epoch_order, mean_and_colour
from tinyalex.measure.evaluate import evaluate
from tinyalex.net.draws import initial_parameters, training_draws
from tinyalex.net.network import Network
from tinyalex.net.optimizer import SGD
from tinyalex.net.presets import get_architecture
from tinyalex.net.step import train_step
from tinyalex.system.backends import get_backend

ops, mini = get_backend("reference"), get_architecture("mini")
data = open_data(None, mini.data.image_size, seed=0)
mean, colour = mean_and_colour(data.train, mini.data.image_size, seed=0, workers=2)
parameters = initial_parameters(mini, seed=0)
network = Network(mini, ops, parameters, mean)
sgd = SGD(network, mini.recipe, {name: np.zeros_like(w) for name, w in parameters.items()})

for epoch in range(5):
    order = epoch_order(0, epoch, len(data.train.labels))
    for number, batch in enumerate(batches(data.train, order, mini.recipe.batch_size, workers=2)):
        draws = training_draws(mini, len(batch.labels), colour, 0, epoch, number)
        step = train_step(sgd, batch.images, batch.labels, draws, mini.recipe.lr)
    scores = evaluate([network], data.val, mini.recipe.batch_size, workers=2)
    print(f"epoch {epoch + 1}: loss {step.loss:.3f}, top-1 error {100 * scores.top1_error:.1f} %")
