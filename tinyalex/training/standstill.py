"""The diagnosis of a loss that does not fall, or of one answer to all images.

The best one answer to all images is the share of each class, and costs the entropy of the classes:
ln(classes) if all are as common.
"""

import numpy as np
import numpy.typing as npt

from tinyalex.measure.image_signal import image_signal
from tinyalex.net.network import Network
from tinyalex.net.presets import Recipe
from tinyalex.runs.progress import Progress
from tinyalex.runs.sharing import on_first

LOSSES = ("loss", "val_loss")


class Standstill:
    """Watch over a run that may not learn; it tells so once.

    Either the images do not get through: a sound network may rest too, at first, but its logits
    differ from image to image: at the start by 7 to 30 % of their size in the networks that learn,
    and by 1 % in `paper`. Or they do, and the loss stands all the same, for much longer.

    What it has seen is kept in the run's progress, so that a resumed run tells the same.
    """

    STEPS = 100  # on which a loss that the images do not reach is known
    LONG = 1000  # steps, or images in whole epochs, after which any loss that stands is told of
    NEAR = 0.02  # of the entropy; dropout costs a little more than that answer
    FADED = 0.02  # the share of the last layer

    def __init__(
        self, network: Network, progress: Progress, recipe: Recipe, labels: npt.NDArray[np.int32]
    ) -> None:
        """labels: of the training images."""
        self.network, self.progress, self.recipe = network, progress, recipe
        shares = np.bincount(labels) / len(labels)
        self.one_answer = float(-sum(share * np.log(share) for share in shares[shares > 0]))
        self.epochs = max(2, -(-self.LONG // len(labels)))
        self.images: npt.NDArray[np.uint8] | None = None

    def after_step(self, loss: float, images: npt.NDArray[np.uint8]) -> str:
        """Text for the user, mostly empty. Steps are counted from the run's first.

        images: some of the last batch, on which the signal is measured then, if there are two.
        """
        progress, self.images = self.progress, images
        if progress.standing is None:
            return ""
        progress.standing += loss
        if progress.step % self.STEPS:
            return ""
        mean, progress.standing = progress.standing / self.STEPS, 0.0
        if abs(mean - self.one_answer) > self.NEAR * self.one_answer:
            return ""
        return self._text(f"stood at {mean:.3f} for {self.STEPS} steps", progress.step % self.LONG)

    def after_epoch(self) -> str:
        """Text for the user, mostly empty: after epochs with one answer, or no better a loss."""
        last = self.progress.history[-self.epochs :]
        if self.progress.standing is None or len(last) < self.epochs:
            return ""
        losses = [np.mean([r[k] for r in last]) for k in LOSSES if k in last[0]]
        above = min(losses) >= (1 - self.NEAR) * self.one_answer
        if above or all(r.get("val_answers") == 1 and r["val_top1_error"] for r in last):
            return self._text(f"been {losses[0]:.3f} for {self.epochs} epochs")
        return ""

    def _text(self, loss: str, early: int = 0) -> str:
        """Text of what stands and what helps. early: too few steps to tell of a sound network."""
        images, signal = self.images, {}
        if images is not None and len(images) > 1:
            signal = on_first(self.network, lambda network: image_signal(network, images))
        faded = bool(signal) and list(signal.values())[-1].share <= self.FADED
        if early and not faded:
            return ""
        self.progress.standing = None
        history, lr = self.progress.history, self.recipe.lr
        text = f"The loss has {loss}; one answer to all images costs {self.one_answer:.3f}."
        if history and history[-1].get("val_answers") == 1:
            text += " All validation images are given the same class."
        if faded:
            shares = ", ".join(f"{name} {100 * s.share:.2g} %" for name, s in signal.items())
            return (
                f"{text} So much of each layer's output depends on the image: {shares}. Wider "
                "initial weights or smaller biases let more through: `tinyalex summary --compare` "
                "shows how the networks differ in this."
            )
        rates = f"another rate (--lr {lr / 10:g} or {lr * 10:g})"
        if history and history[0]["loss"] > 1.1 * self.one_answer:
            rates = f"a lower rate (--lr {lr / 10:g}), as the first epoch's loss was higher still"
        return (
            f"{text} The network may yet begin to learn. If not, what helps is {rates}, or to "
            "start from trained weights (--weights RUN)."
        )
