"""Progress of a run, and the best of its epochs."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Progress:
    """Position of a run. epoch: finished epochs. batch: batches done of the current one.

    sums: over the current epoch so far: loss times images, wrong top-1, wrong top-5, images.
    history: one record per finished epoch, as in metrics.jsonl. standing: the sum of the losses
    that `training.standstill` is at, and None once it has told; 0 in a file from before that.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0, 0.0])
    history: list[dict[str, Any]] = field(default_factory=list)
    standing: float | None = 0.0

    def finish_epoch(self, record: dict[str, Any]) -> None:
        """Go over to the next epoch. record: of the one that has ended."""
        self.history.append(record)
        self.epoch, self.batch, self.sums = self.epoch + 1, 0, [0.0] * 4

    @property
    def best(self) -> dict[str, Any] | None:
        """The finished epoch with the lowest watched error, the first of equals."""
        return min(self.history, key=watched, default=None)


def watched(record: dict[str, Any]) -> float:
    """The error that decides which epoch is best: validation top-1, else the training loss."""
    return float(record.get("val_top1_error", record["loss"]))
