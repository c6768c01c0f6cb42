"""Top-1 accuracy and count-weighted running means."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def count_correct(logits: Tensor, target: Tensor) -> Tensor:
    """Number of samples whose largest logit is the target; (B, C) and (B,) -> () float64 on the device."""
    return (logits.argmax(dim=1) == target).sum(dtype=torch.float64)


def accuracy_percent(logits: Tensor, target: Tensor) -> Tensor:
    """Top-1 accuracy of a batch in percent, a () tensor on the device."""
    return 100.0 * count_correct(logits, target) / len(target)


class RunningMean:
    """Count-weighted mean that stays on the device until it is read.

    Sums are kept in float64, so that a mean over an epoch does not depend on how often it was read.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._sum = torch.zeros((), dtype=torch.float64, device=device)
        self.count = 0

    def add(self, mean: Tensor, count: int) -> None:
        """Add the mean over `count` samples."""
        self.add_sum(mean.detach() * count, count)

    def add_sum(self, total: Tensor, count: int) -> None:
        """Add the sum over `count` samples."""
        self._sum += total.detach()
        self.count += count

    def value(self) -> float:
        """The mean so far (waits for the device); 0 when nothing was added."""
        return float(self._sum) / self.count if self.count else 0.0

    def state_dict(self) -> dict[str, Any]:
        """Sum and count."""
        return {"sum": self._sum.clone(), "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved sum and count."""
        self._sum = state["sum"].to(self._sum.device).clone()
        self.count = state["count"]
