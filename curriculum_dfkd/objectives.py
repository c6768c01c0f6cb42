"""What a student step minimises, given the student's and the teacher's logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from common.losses.distillation import temperature_kl
from curriculum_dfkd.curriculum import Pace, self_paced_weight, student_losses, weighted_loss

Terms = dict[str, Tensor]


class Distillation:
    """A plain criterion, as all baselines have it.

    Args:
        criterion: (student logits, teacher logits) -> ().
    """

    def __init__(self, criterion: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.criterion = criterion

    def __call__(self, student: Tensor, teacher: Tensor) -> Terms:
        """{"loss"}: the minimised value."""
        return {"loss": self.criterion(student, teacher)}

    def state_dict(self) -> dict[str, Any]:
        """Nothing to keep."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


class CurriculumDistillation:
    """CuDFKD's student loss: weighted by how easy it is, measured by a threshold that grows.

    Source: ljrprocc/DataFree@bf3096b datafree_kd.py `train`.

    Args:
        option: `--curr_option`; with "none" the threshold advances and nothing is weighted.
        pace: the threshold.
        loss: "l1", "kl" or "l2".
        temperature: of "kl".
        per_sample: weigh samples instead of the batch (the paper's wording, and the code of some commits).
    """

    def __init__(self, option: str, pace: Pace, loss: str, temperature: float, per_sample: bool = False) -> None:
        self.option, self.pace, self.loss = option, pace, loss
        self.temperature, self.per_sample = temperature, per_sample

    def __call__(self, student: Tensor, teacher: Tensor) -> Terms:
        """{"loss", "difficulty"} and with a curriculum the weight {"v"}; advances the threshold."""
        threshold = self.pace.threshold()
        self.pace.iteration += 1
        is_weighted = self.option != "none"
        losses = student_losses(self.loss, student, teacher, self.temperature, self.per_sample and is_weighted)
        if not is_weighted:
            return {"loss": losses, "difficulty": torch.zeros_like(losses)}
        weighted = weighted_loss(self.option, losses, threshold)
        return {"loss": weighted.loss, "v": weighted.v, "difficulty": weighted.difficulty}

    def state_dict(self) -> dict[str, Any]:
        """Updates so far."""
        return {"iteration": self.pace.iteration}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved threshold."""
        self.pace.iteration = state["iteration"]


class CrossEntropy:
    """Supervised training."""

    def __call__(self, logits: Tensor, target: Tensor, teacher: Tensor | None, iteration: int) -> Terms:
        """{"loss"}."""
        return {"loss": F.cross_entropy(logits, target)}


class RealDataDistillation:
    """Distillation on real images: alpha KL + beta cross-entropy, with a curriculum on samples if asked for.

    With a curriculum a sample's loss is the *mean* over classes of its KL, plus beta times its cross-entropy, and the
    minimised value is sum(v l) + g; gradients pass through v and g too, as released.

    Source: ljrprocc/DataFree@bf3096b vanilla_kd.py `train`.

    Args:
        temperature: of the KL.
        alpha, beta: weights.
        option: `--curr_option`.
        lambda_0: threshold at the start; it grows by 1e-4 per iteration (counted epoch by epoch).
    """

    def __init__(self, temperature: float, alpha: float, beta: float, option: str, lambda_0: float) -> None:
        self.temperature, self.alpha, self.beta = temperature, alpha, beta
        self.option, self.lambda_0 = option, lambda_0

    def __call__(self, logits: Tensor, target: Tensor, teacher: Tensor, iteration: int) -> Terms:
        """{"loss"}; `iteration` counts all batches since the start."""
        if self.option == "none":
            loss = self.alpha * temperature_kl(logits, teacher, self.temperature)
            if self.beta:
                loss = loss + self.beta * F.cross_entropy(logits, target)
            return {"loss": loss}
        losses = self.alpha * temperature_kl(logits, teacher, self.temperature, reduction="none").mean(dim=1)
        if self.beta:
            losses = losses + self.beta * F.cross_entropy(logits, target, reduction="none")
        v, g = self_paced_weight(self.option, losses, Pace(self.lambda_0, 1e-4).at(iteration))
        return {"loss": (v * losses).sum() + g.sum(), "v": v.mean()}
