"""The diagnosis of a loss that does not fall.

Where the images no longer tell, all of them get the same answer. The best one answer to all is the
share of each class, and costs the entropy of the classes: ln(classes) if all are as common.
"""

import math

import numpy as np
import numpy.typing as npt

from tinyalex.measure.image_signal import image_signal
from tinyalex.net.network import Network
from tinyalex.runs.progress import Progress


class Standstill:
    """Watch over a run whose loss sits at ln(classes) because the images do not get through.

    A sound network may rest there too, at first, but its logits differ from image to image: at the
    start by 7 to 30 % of their size in the networks that learn, and by 1 % in `paper`.

    What it has seen is kept in the run's progress, so that a resumed run tells the same.
    """

    STEPS = 100
    NEAR = 0.02  # of ln(classes); dropout costs a little more than that answer
    FADED = 0.02  # the share of the last layer

    def __init__(self, network: Network, progress: Progress) -> None:
        self.network, self.progress = network, progress

    def after_step(self, loss: float, images: npt.NDArray[np.uint8]) -> str:
        """Text for the user, once: empty unless a hundred steps stood still for that reason.

        They are counted from the run's first step.

        images: some of the last batch, on which the signal is measured then.
        """
        progress = self.progress
        if progress.standing is None:
            return ""
        progress.standing += loss
        if progress.step % self.STEPS:
            return ""
        chance = math.log(self.network.architecture.classes)
        mean, progress.standing = progress.standing / self.STEPS, 0.0
        if abs(mean - chance) > self.NEAR * chance:
            return ""
        signal = image_signal(self.network, images)
        if list(signal.values())[-1].share > self.FADED:
            return ""
        progress.standing = None
        shares = ", ".join(f"{name} {100 * s.share:.2g} %" for name, s in signal.items())
        return (
            f"The loss has stood at {mean:.3f} for {self.STEPS} steps; ln(classes) = {chance:.3f} "
            "is what one answer to all images costs. So much of each layer's output depends on the "
            f"image: {shares}. Wider initial weights or smaller biases let more through: "
            "`tinyalex summary --compare` shows how the networks differ in this."
        )
