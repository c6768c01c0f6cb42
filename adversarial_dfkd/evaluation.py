"""Testing the student on real images, which is all that real images are used for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.training.precision import Precision

DECIMALS = 4
"""Of an accuracy as a fraction, to which the original rounds."""


@dataclass(frozen=True)
class Score:
    """Result of one test.

    Attributes:
        accuracy: correct / images, rounded to 4 decimals as in the original.
        exact_accuracy: the same, not rounded.
        loss: mean cross-entropy over the images.
        printed_loss: what the original prints: the sum of the batches' mean losses divided by the number of images,
            about batch-size times too small (D8).
    """

    accuracy: float
    exact_accuracy: float
    loss: float
    printed_loss: float


class TestImages:
    """Normalised test images, kept on the device.

    Args:
        images: (N, C, H, W) float.
        labels: (N,) int64.
        batch_size: images per forward pass; the printed loss depends on it.
        precision: number format of the forward pass; None: that of the images.
    """

    __test__ = False  # not for pytest

    def __init__(self, images: Tensor, labels: Tensor, batch_size: int, precision: Precision | None = None) -> None:
        self.images, self.labels, self.batch_size, self.precision = images, labels, batch_size, precision

    def score(self, network: nn.Module) -> Score:
        """Test a network, which is left in evaluation mode."""
        network.eval()
        found, sizes = [], []
        with torch.no_grad():
            pairs = zip(self.images.split(self.batch_size), self.labels.split(self.batch_size), strict=True)
            for images, labels in pairs:
                logits = self._logits(network, images)
                correct = (logits.argmax(dim=1) == labels).sum()
                found.append(torch.stack([F.cross_entropy(logits, labels).double(), correct.double()]))
                sizes.append(len(labels))
        count = len(self.labels)
        values = torch.stack(found).tolist()  # why here: the device is waited for once per test
        exact = sum(correct for _, correct in values) / count
        total = sum(mean * size for (mean, _), size in zip(values, sizes, strict=True))
        printed = sum(mean for mean, _ in values) / count
        return Score(round(exact, DECIMALS), exact, total / count, printed)

    def _logits(self, network: nn.Module, images: Tensor) -> Tensor:
        if self.precision is None:
            return network(images)
        with self.precision.autocast():
            return network(images).float()


def running_means(values: list[float]) -> list[float]:
    """Mean of the first 1, 2, ... values: the original's cumulative accuracy."""
    means, total = [], 0.0
    for count, value in enumerate(values, start=1):
        total += value
        means.append(total / count)
    return means
