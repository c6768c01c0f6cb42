"""Confusion matrix of pixels, and the scores that follow from it.

Source: the usual definitions, with the details of arthurdouillard/CVPR2021_PLOP@4b4a060 metrics/stream_metrics.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

FLOOR = 1e-6
"""Added to divisors."""


@dataclass(frozen=True)
class SegmentationScores:
    """Scores as fractions; None for a class that never occurs in the ground truth.

    Attributes:
        class_iou, class_accuracy: per class.
        mean_iou, mean_accuracy: over the classes that occur.
        overall_accuracy: share of right pixels.
        frequency_weighted_iou: classes weighted by their share of the ground truth.
        images: how many were scored.
    """

    class_iou: list[float | None]
    class_accuracy: list[float | None]
    mean_iou: float
    mean_accuracy: float
    overall_accuracy: float
    frequency_weighted_iou: float
    images: int


class SegmentationConfusion:
    """Confusion matrix that is filled batch by batch, on the device.

    Args:
        classes: pixels with another true label (255) do not count.
        device: where the predictions are.

    Attributes:
        matrix: (classes, classes) int64; row = truth, column = prediction.
        images: how many were counted.
    """

    def __init__(self, classes: int, device: torch.device | str = "cpu") -> None:
        self.classes = classes
        self.matrix = torch.zeros(classes, classes, dtype=torch.int64, device=device)
        self.images = 0

    def add(self, truth: Tensor, predictions: Tensor) -> None:
        """Count a batch of (B, H, W) integer maps; predictions lie in 0 ... classes - 1."""
        truth = truth.long()
        valid = (truth >= 0) & (truth < self.classes)
        # why: invalid pixels go to one more bin, because a mask of them would make the host wait, as bincount does
        pairs = torch.where(valid, self.classes * truth + predictions.long(), self.classes**2).flatten()
        counts = pairs.new_zeros(self.classes**2 + 1).scatter_add_(0, pairs, torch.ones_like(pairs))
        self.matrix += counts[:-1].view(self.classes, self.classes)
        self.images += len(truth)

    def scores(self) -> SegmentationScores:
        """Scores of everything counted so far."""
        matrix = self.matrix.double().cpu()
        truth, predicted, right = matrix.sum(dim=1), matrix.sum(dim=0), matrix.diagonal()
        occurs = truth != 0
        accuracy = right / (truth + FLOOR)
        iou = right / (truth + predicted - right + FLOOR)
        share = truth / matrix.sum().clamp_min(1)

        def per_class(values: Tensor) -> list[float | None]:
            return [value if there else None for value, there in zip(values.tolist(), occurs.tolist(), strict=True)]

        def mean(values: Tensor) -> float:
            return values[occurs].mean().item() if occurs.any() else 0.0

        return SegmentationScores(
            class_iou=per_class(iou),
            class_accuracy=per_class(accuracy),
            mean_iou=mean(iou),
            mean_accuracy=mean(accuracy),
            overall_accuracy=(right.sum() / matrix.sum().clamp_min(1)).item(),
            frequency_weighted_iou=(share * iou).sum().item(),
            images=self.images,
        )
