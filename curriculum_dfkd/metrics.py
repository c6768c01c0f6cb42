"""Test metrics: accuracies and cross-entropy, and how faithfully the student copies the teacher.

Sums stay on the device until they are read.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from common.losses.distillation import temperature_kl

TOP = 5
EPSILON = 1e-8
"""Added to probabilities before the Jensen-Shannon distance."""


class ClassificationMeter:
    """Top-1 and top-5 accuracy in percent, and mean cross-entropy."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._sums = torch.zeros(3, dtype=torch.float64, device=device)
        self.count = 0

    def add(self, logits: Tensor, target: Tensor) -> None:
        """Add a batch: (B, K) logits and (B,) labels."""
        top = logits.topk(min(TOP, logits.shape[1]), dim=1).indices == target[:, None]
        parts = (top[:, 0].sum(), top.any(dim=1).sum(), F.cross_entropy(logits, target, reduction="sum"))
        self._sums += torch.stack([part.double() for part in parts])
        self.count += len(target)

    def values(self) -> dict[str, float]:
        """acc1, acc5 (percent) and ce."""
        right, among, cross_entropy = (self._sums / max(1, self.count)).tolist()
        return {"acc1": 100 * right, "acc5": 100 * among, "ce": cross_entropy}


class FidelityMeter:
    """Agreement (percent of equal decisions), probability loyalty and mean KL (T = 1) of student and teacher.

    Loyalty is the mean over images of 1 - sqrt(d), d the Jensen-Shannon distance (natural logarithm) between the
    softmax outputs, each plus 1e-8 and normalised again; images whose d is not a number are left out.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._sums = torch.zeros(4, dtype=torch.float64, device=device)
        self.count = 0

    def add(self, student: Tensor, teacher: Tensor) -> None:
        """Add a batch of (B, K) logits."""
        agreed = (student.argmax(dim=1) == teacher.argmax(dim=1)).sum()
        loyalty = 1 - jensen_shannon_distance(student, teacher).sqrt()
        known = ~loyalty.isnan()
        divergence = temperature_kl(student, teacher, reduction="sum")
        parts = (agreed, loyalty.nan_to_num(0.0).sum(), known.sum(), divergence)
        self._sums += torch.stack([part.double() for part in parts])
        self.count += len(student)

    def values(self) -> dict[str, float]:
        """agreement (percent), loyalty (0 to 1) and kl."""
        agreed, loyalty, known, divergence = self._sums.tolist()
        count = max(1, self.count)
        return {"agreement": 100 * agreed / count, "loyalty": loyalty / max(1.0, known), "kl": divergence / count}


def jensen_shannon_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """(B,) root of the Jensen-Shannon divergence of two softmax outputs; float64."""
    p, q = (F.softmax(logits.double(), dim=1) + EPSILON for logits in (student, teacher))
    p, q = p / p.sum(dim=1, keepdim=True), q / q.sum(dim=1, keepdim=True)
    middle = (p + q) / 2
    divergence = (p * (p / middle).log() + q * (q / middle).log()).sum(dim=1) / 2
    return divergence.sqrt()
