"""The networks, each a table of rows to be held against its source.

Layer names are those of Caffe's AlexNet. Counts and differences: `tinyalex summary`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from tinyalex.errors import UsageError, nearest
from tinyalex.net import shapes
from tinyalex.net.layers import (
    KINDS,
    LRN,
    Augment,
    AvgPool,
    Conv2d,
    Dropout,
    Linear,
    LRNMap,
    MaxPool,
    ReLU,
    Row,
)
from tinyalex.net.variants import changed, paper_init, ungrouped


@dataclass(frozen=True)
class Recipe:
    """Settings with which a network is trained unless flags say otherwise.

    lr: learning rate at the start. weight_decay: on weights; on biases only in `owt`.
    bias_lr_multiplier: 2 in the 2012 code, unmentioned in the paper.
    lr_scheduler: see `tinyalex.net.schedule`; lr_step_size, lr_patience and warmup_epochs count
    epochs.
    """

    epochs: int
    lr: float = 0.01
    batch_size: int = 128
    momentum: float = 0.9
    weight_decay: float = 5e-4
    bias_lr_multiplier: float = 2.0
    lr_scheduler: str = "plateau"
    lr_step_size: float = 30
    lr_gamma: float = 0.1
    lr_patience: int = 5
    warmup_epochs: int = 0

    def falls_every(self, policy: str, epochs: int) -> float:
        """The lr_step_size with which the rate falls at the same parts of another length."""
        own = {"step": self.lr_step_size * epochs / self.epochs, "2012": epochs / 3}
        return own.get(policy, self.lr_step_size)


@dataclass(frozen=True)
class Architecture:
    """A network: its rows from the image to the logits, its recipe, and where it comes from."""

    name: str
    source: str
    rows: tuple[Row, ...]
    recipe: Recipe

    @property
    def data(self) -> Augment:
        """The first row, which says what images the network takes."""
        row = self.rows[0]
        assert isinstance(row, Augment)
        return row

    @property
    def classes(self) -> int:
        """Outputs of the last row."""
        row = self.rows[-1]
        assert isinstance(row, Linear)
        return row.features

    @property
    def has_towers(self) -> bool:
        """True if the network falls into two halves, as on the two GPUs of 2012.

        Some convolution must have two groups, and every normalisation across channels.
        """
        convs = {row.groups for row in self.rows if isinstance(row, Conv2d)}
        norms = {row.groups for row in self.rows if isinstance(row, LRN)}
        return convs in ({2}, {1, 2}) and norms <= {2}

    def rate(self, classes: int) -> float:
        """The recipe's learning rate, or for few classes a lower one at which the loss can fall.

        Hidden neurons that begin with a bias b give the last layer much the same input h for every
        image. Along it the loss bends by |h|^2 / classes, and momentum SGD overshoots where that
        times the rate exceeds 2 (1 + momentum). Here it is about 1: |h|^2 is near b^2 / 2 times
        their number (measured: 1842 of 4096 in `alexnet`).
        """
        hidden = [row for row in self.rows if isinstance(row, Linear)][-2:-1]
        bend = sum(row.features * row.bias**2 for row in hidden) / 2 / classes
        return float(f"{min(self.recipe.lr, 1 / bend):.1g}") if bend else self.recipe.lr

    def check(self) -> None:
        """Raise UsageError if the rows do not make a network from images to classes.

        Each must be of a class in KINDS, by which a checkpoint's rows are read.
        """
        try:
            shapes.layers(self.rows)
            fault = "" if isinstance(self.rows[-1], Linear) else "its last row is not Linear"
        except ValueError as error:
            fault = str(error)
        if fault:
            raise UsageError(f"The network {self.name} does not fit together: {fault}.")
        for row in self.rows:
            if KINDS.get(row.kind) is not type(row):
                raise UsageError(
                    f"The network {self.name} could not be loaded again: its layer {row.name} is a "
                    f"{type(row).__name__}, which tinyalex.net.layers.KINDS does not have as "
                    f"{row.kind!r}. Add it there before training."
                )

    def with_classes(self, classes: int) -> Self:
        """Network with the same rows but another number of outputs."""
        row = self.rows[-1]
        assert isinstance(row, Linear)
        return replace(self, rows=(*self.rows[:-1], replace(row, features=classes)))


# fmt: off

# The paper's topology, and the initial standard deviation .03 on conv3 to conv5 that its code has
# and its text omits: with .01 everywhere the loss stays at ln(classes).
ALEXNET = (
    Augment("data", size=227, image_size=256, colour=.1),
    Conv2d("conv1", 96, size=11, stride=4, init_std=.01),           ReLU("relu1"),
    LRN("norm1", groups=2),                                         MaxPool("pool1", 3, 2),
    Conv2d("conv2", 256, size=5, pad=2, groups=2, bias=1),          ReLU("relu2"),
    LRN("norm2", groups=2),                                         MaxPool("pool2", 3, 2),
    Conv2d("conv3", 384, size=3, pad=1, init_std=.03),              ReLU("relu3"),
    Conv2d("conv4", 384, size=3, pad=1, groups=2, init_std=.03, bias=1), ReLU("relu4"),
    Conv2d("conv5", 256, size=3, pad=1, groups=2, init_std=.03, bias=1), ReLU("relu5"),
    MaxPool("pool5", 3, 2),
    Linear("fc6", 4096, bias=1), ReLU("relu6"), Dropout("drop6"),
    Linear("fc7", 4096, bias=1), ReLU("relu7"), Dropout("drop7"),
    Linear("fc8", 1000),
)

# Of the released code, layers-145.cfg and layer-params-145.cfg. The last windows of conv1 reach 3
# pixels beyond the image; ReLU comes after the pools of layers 1 and 5; a second normalisation, in
# each map, follows that of conv2; alpha is divided by the size of the window, as the paper's is
# not; and training images are divided by 1.1 after the noise on their colours. Not as there: every
# image has a crop of its own, where 32 shared one, and the mean moves with it.
NETWORK_145 = (
    Augment("data", size=224, image_size=256, colour=.1, train_scale=1 / 1.1),
    Conv2d("conv1", 96, size=11, stride=4, ceil=True, init_std=.01),
    LRN("norm1", alpha=1e-4 / 5, groups=2),
    MaxPool("pool1", 3, 2),                                         ReLU("relu1"),
    Conv2d("conv2", 256, size=5, pad=2, groups=2, bias=1),          ReLU("relu2"),
    LRN("norm2", alpha=1e-4 / 5, groups=2),
    LRNMap("mapnorm2", n=5, k=1, alpha=1e-3 / 25, beta=.75),        MaxPool("pool2", 3, 2),
    Conv2d("conv3", 384, size=3, pad=1, init_std=.03),              ReLU("relu3"),
    Conv2d("conv4", 384, size=3, pad=1, groups=2, init_std=.03, bias=1), ReLU("relu4"),
    Conv2d("conv5", 256, size=3, pad=1, groups=2, init_std=.03, bias=1),
    MaxPool("pool5", 3, 2),                                         ReLU("relu5"),
    Linear("fc6", 4096, bias=1), ReLU("relu6"), Dropout("drop6"),
    Linear("fc7", 4096, bias=1), ReLU("relu7"), Dropout("drop7"),
    Linear("fc8", 1000),
)

# models/bvlc_alexnet/train_val.prototxt: normalisation across both towers, with k 1 and alpha
# divided by the window; biases of .1, because with 1 the loss stayed flat; no noise on colours.
CAFFE = (
    Augment("data", size=227, image_size=256),
    Conv2d("conv1", 96, size=11, stride=4, init_std=.01),           ReLU("relu1"),
    LRN("norm1", k=1, alpha=1e-4 / 5),                              MaxPool("pool1", 3, 2),
    Conv2d("conv2", 256, size=5, pad=2, groups=2, bias=.1),         ReLU("relu2"),
    LRN("norm2", k=1, alpha=1e-4 / 5),                              MaxPool("pool2", 3, 2),
    Conv2d("conv3", 384, size=3, pad=1),                            ReLU("relu3"),
    Conv2d("conv4", 384, size=3, pad=1, groups=2, bias=.1),         ReLU("relu4"),
    Conv2d("conv5", 256, size=3, pad=1, groups=2, bias=.1),         ReLU("relu5"),
    MaxPool("pool5", 3, 2),
    Linear("fc6", 4096, init_std=.005, bias=.1), ReLU("relu6"), Dropout("drop6", scale_at="train"),
    Linear("fc7", 4096, init_std=.005, bias=.1), ReLU("relu7"), Dropout("drop7", scale_at="train"),
    Linear("fc8", 1000),
)

# models/bvlc_reference_caffenet/train_val.prototxt: each pool before its normalisation, and the
# biases of 1 that the paper has.
CAFFENET = (
    Augment("data", size=227, image_size=256),
    Conv2d("conv1", 96, size=11, stride=4, init_std=.01),           ReLU("relu1"),
    MaxPool("pool1", 3, 2),                                       LRN("norm1", k=1, alpha=1e-4 / 5),
    Conv2d("conv2", 256, size=5, pad=2, groups=2, bias=1),          ReLU("relu2"),
    MaxPool("pool2", 3, 2),                                       LRN("norm2", k=1, alpha=1e-4 / 5),
    Conv2d("conv3", 384, size=3, pad=1),                            ReLU("relu3"),
    Conv2d("conv4", 384, size=3, pad=1, groups=2, bias=1),          ReLU("relu4"),
    Conv2d("conv5", 256, size=3, pad=1, groups=2, bias=1),          ReLU("relu5"),
    MaxPool("pool5", 3, 2),
    Linear("fc6", 4096, init_std=.005, bias=1), ReLU("relu6"), Dropout("drop6", scale_at="train"),
    Linear("fc7", 4096, init_std=.005, bias=1), ReLU("relu7"), Dropout("drop7", scale_at="train"),
    Linear("fc8", 1000),
)

# torchvision's: the single tower of "One weird trick" without normalisation, dropout before the
# layers; weights and biases start as PyTorch's layers do, and both decay. Not as there: crops.
OWT = (
    Augment("data", size=224, image_size=256, scale=1 / 58.4),  # torchvision's .229 of 255 levels
    Conv2d("conv1", 64, size=11, stride=4, pad=2, init_std=None),   ReLU("relu1"),
    MaxPool("pool1", 3, 2),
    Conv2d("conv2", 192, size=5, pad=2, init_std=None),             ReLU("relu2"),
    MaxPool("pool2", 3, 2),
    Conv2d("conv3", 384, size=3, pad=1, init_std=None),             ReLU("relu3"),
    Conv2d("conv4", 256, size=3, pad=1, init_std=None),             ReLU("relu4"),
    Conv2d("conv5", 256, size=3, pad=1, init_std=None),             ReLU("relu5"),
    MaxPool("pool5", 3, 2),
    Dropout("drop6", scale_at="train"), Linear("fc6", 4096, init_std=None), ReLU("relu6"),
    Dropout("drop7", scale_at="train"), Linear("fc7", 4096, init_std=None), ReLU("relu7"),
    Linear("fc8", 1000, init_std=None),
)

# cuda-convnet2's layers-imagenet-1gpu.cfg, the one tower of "One weird trick" as its author had it:
# what torchvision left out is here, normalisation (in layer 1 before the pool, and ReLU behind it),
# biases of 1 and of -7, and dropout behind the layers. Noise on colours as in `2012`, of which
# convdata.py has the scale.
OWT_2014 = (
    Augment("data", size=224, image_size=256, colour=.1, train_scale=1 / 1.1),
    Conv2d("conv1", 64, size=11, stride=4, ceil=True, init_std=.01),
    LRN("norm1", alpha=1e-4 / 5),
    MaxPool("pool1", 3, 2),                                         ReLU("relu1"),
    Conv2d("conv2", 192, size=5, pad=2, bias=1),                    ReLU("relu2"),
    LRN("norm2", alpha=1e-4 / 5),                                   MaxPool("pool2", 3, 2),
    Conv2d("conv3", 384, size=3, pad=1, init_std=.03),              ReLU("relu3"),
    Conv2d("conv4", 256, size=3, pad=1, init_std=.03, bias=1),      ReLU("relu4"),
    Conv2d("conv5", 256, size=3, pad=1, init_std=.03, bias=1),
    MaxPool("pool5", 3, 2),                                         ReLU("relu5"),
    Linear("fc6", 4096, bias=1), ReLU("relu6"), Dropout("drop6"),
    Linear("fc7", 4096, bias=1), ReLU("relu7"), Dropout("drop7"),
    Linear("fc8", 1000, bias=-7),
)

# Wide initial weights and no bias of 1: with so few inputs to a neuron the signal would fade.
MINI = (
    Augment("data", size=28, image_size=32),
    Conv2d("conv1", 24, size=5, pad=2, init_std=.1),                ReLU("relu1"),
    LRN("norm1", groups=2),                                         MaxPool("pool1", 3, 2),
    Conv2d("conv2", 32, size=5, pad=2, groups=2, init_std=.06),     ReLU("relu2"),
    LRN("norm2", groups=2),                                         MaxPool("pool2", 3, 2),
    Conv2d("conv3", 48, size=3, pad=1, init_std=.06),               ReLU("relu3"),
    Conv2d("conv4", 48, size=3, pad=1, groups=2, init_std=.06),     ReLU("relu4"),
    Conv2d("conv5", 32, size=3, pad=1, groups=2, init_std=.06),     ReLU("relu5"),
    MaxPool("pool5", 3, 2),
    Linear("fc6", 128, init_std=.06), ReLU("relu6"), Dropout("drop6"),
    Linear("fc7", 128, init_std=.06), ReLU("relu7"), Dropout("drop7"),
    Linear("fc8", 10, init_std=.02),
)

# cuda-convnet's nets for CIFAR-10; 19 % and 18 % are their test errors. As there the first ReLU is
# behind the pool: the same function, and a quarter of the pixels to go through.
CIFAR_19 = (
    Augment("data", size=32, image_size=32, flip=False),
    Conv2d("conv1", 32, size=5, pad=2, init_std=1e-4),
    MaxPool("pool1", 3, 2, ceil=True),                              ReLU("relu1"),
    Conv2d("conv2", 32, size=5, pad=2),                             ReLU("relu2"),
    AvgPool("pool2", 3, 2, ceil=True),
    Conv2d("conv3", 64, size=5, pad=2),                             ReLU("relu3"),
    AvgPool("pool3", 3, 2, ceil=True),
    Linear("fc10", 10, init_std=.01, weight_decay=3),
)

CIFAR_18 = (
    *CIFAR_19[:4],  LRNMap("norm1", n=3, k=1, alpha=5e-5 / 9, beta=.75),
    *CIFAR_19[4:7], LRNMap("norm2", n=3, k=1, alpha=5e-5 / 9, beta=.75),
    *CIFAR_19[7:10],
    Linear("fc10", 10, init_std=.01, weight_decay=1),
)
# fmt: on


# The rate falls to a tenth after 120 epochs. The original lowered it once more for 10 epochs.
_CIFAR = Recipe(epochs=130, lr=0.001, weight_decay=0.004, lr_scheduler="step", lr_step_size=120)

ARCHITECTURES = {
    a.name: a
    for a in (
        Architecture(
            "alexnet",
            "Krizhevsky, Sutskever, Hinton 2012: two towers as two groups; initial weights as in "
            "the released code",
            ALEXNET,
            Recipe(epochs=90),
        ),
        Architecture(
            "paper",
            "the paper's text taken literally: alexnet with all weights initially of std .01, and "
            "biases at the same rate; input 227, as 224 does not give the paper's 55 x 55 maps",
            paper_init(ALEXNET),
            Recipe(epochs=90, bias_lr_multiplier=1),
        ),
        Architecture(
            "2012",
            "network 145 of the released code, layer by layer: 40.7 % top-1 and 18.2 % top-5 error "
            "in 2012, over ten views",
            NETWORK_145,
            Recipe(epochs=90, lr_scheduler="2012"),
        ),
        Architecture(
            "caffe",
            "Caffe's bvlc_alexnet: normalisation across the towers, biases of .1",
            CAFFE,
            # 100,000 iterations of 256 images are 20 epochs.
            Recipe(epochs=90, batch_size=256, lr_scheduler="step", lr_step_size=20),
        ),
        Architecture(
            "caffenet",
            "Caffe's bvlc_reference_caffenet: caffe with each pool before its normalisation",
            CAFFENET,
            Recipe(epochs=90, batch_size=256, lr_scheduler="step", lr_step_size=20),
        ),
        Architecture(
            "owt",
            "torchvision's alexnet, after the network of Krizhevsky 2014, 'One weird trick', "
            "without its normalisation: one tower",
            OWT,
            Recipe(
                epochs=90,
                batch_size=256,
                weight_decay=1e-4,
                bias_lr_multiplier=1,
                lr_scheduler="step",
            ),
        ),
        Architecture(
            "owt-2014",
            "the one tower of 'One weird trick' as Krizhevsky's own cuda-convnet2 has it, with "
            "normalisation",
            OWT_2014,
            # layer-params-imagenet-1gpu.cfg: to a 250th in four steps of 22.5 epochs each; its
            # biases, which fall once, to a tenth, fall with the weights here.
            Recipe(epochs=90, lr_scheduler="step", lr_step_size=23, lr_gamma=250 ** (-1 / 3)),
        ),
        Architecture(
            "ungrouped",
            "alexnet without towers: every filter sees every channel. Chainer's example has these "
            "layers, with inverted dropout and other initial values",
            ungrouped(ALEXNET),
            Recipe(epochs=90),
        ),
        Architecture(
            "mini",
            "alexnet's shape, towers included, for 32-pixel images and a laptop",
            MINI,
            Recipe(epochs=6, batch_size=32, lr=0.0035, lr_scheduler="step", lr_step_size=5),
        ),
        Architecture("cifar-19pct", "cuda-convnet's layers-19pct for CIFAR-10", CIFAR_19, _CIFAR),
        Architecture(
            "cifar-18pct",
            "cuda-convnet's layers-18pct: cifar-19pct with normalisation in each map",
            CIFAR_18,
            _CIFAR,
        ),
    )
}


def get_architecture(name: str) -> Architecture:
    """The preset of that name, or one with changes, as in `mini+tanh`: see `tinyalex.net.variants`.

    Raises UsageError, with the nearest name, if there is no such network or change.
    """
    base, *changes = name.split("+")
    if base not in ARCHITECTURES:
        raise UsageError(
            f"There is no architecture {base!r}.{nearest(base, ARCHITECTURES)} "
            f"Known: {', '.join(ARCHITECTURES)}."
        )
    network = ARCHITECTURES[base]
    for change in changes:
        rows, help = changed(network.rows, change)
        network = Architecture(
            f"{network.name}+{change}", f"{network.source}; {help}", rows, network.recipe
        )
    return network


def check_towers(architecture: Architecture, gpus: Sequence[int]) -> None:
    """Raise UsageError if a network without two towers is to run on two GPUs."""
    if len(gpus) == 2 and not architecture.has_towers:
        known = ", ".join(a.name for a in ARCHITECTURES.values() if a.has_towers)
        raise UsageError(
            f"{architecture.name} has no two towers, one for each GPU. Networks that have them: "
            f"{known}. Or give one GPU: --gpus {gpus[0]}."
        )
