"""The curriculum: which difficulty is let through when.

A threshold lambda grows with the student's updates; a self-paced weight v(l, lambda) in [0, 1] lets easy losses pass.

Source: ljrprocc/DataFree@bf3096b datafree/datasets/utils.py, datafree_kd.py `train`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from common.losses.distillation import temperature_kl

PACE = {"cifar10": 1e-4}
"""Data set -> growth of lambda per student update."""

PACE_ELSEWHERE = 2e-5

KINDS = ("none", "curr_hard", "curr_soft", "curr_log")
"""Values of `--curr_option`."""


class Pace:
    """lambda(i) = lambda_0 + alpha i after i student updates.

    Args:
        lambda_0: threshold at the start.
        alpha: growth per update.

    Attributes:
        iteration: student updates so far over the whole run.
    """

    def __init__(self, lambda_0: float, alpha: float) -> None:
        self.lambda_0, self.alpha = lambda_0, alpha
        self.iteration = 0

    def threshold(self) -> float:
        """lambda now."""
        return self.at(self.iteration)

    def at(self, iteration: int) -> float:
        """lambda after so many student updates."""
        return self.lambda_0 + self.alpha * iteration


def pace_of(dataset: str) -> float:
    """Growth of lambda per student update for a data set, as released."""
    return PACE.get(dataset, PACE_ELSEWHERE)


class Weighted(NamedTuple):
    """A self-paced weight and its regulariser.

    Attributes:
        v: weight, shape of the loss, in [0, 1].
        g: regulariser; summed for the hard and the soft weight, element by element for the log weight, as released.
    """

    v: Tensor
    g: Tensor


def self_paced_weight(kind: str, loss: Tensor, threshold: float) -> Weighted:
    """v and g of a loss of any shape; differentiable in the loss where v is.

    hard: v = [l < lambda], g = -lambda sum v.  soft: v = [l < lambda] (1 - l / lambda), g = lambda/2 sum(v^2 - 2 v).
    log: v = (1 + e^-lambda) / (1 + e^(l - lambda)), g = mu log mu + v log(v + 1e-8) - lambda v, mu = 1 + e^-lambda - v.

    Args:
        kind: "curr_hard", "curr_soft" or "curr_log".
        loss: l >= 0.
        threshold: lambda > 0.

    Raises:
        ValueError: for another kind.
    """
    is_easy = (loss < threshold).to(loss.dtype)
    if kind == "curr_hard":
        return Weighted(is_easy, -threshold * is_easy.sum())
    if kind == "curr_soft":
        v = is_easy * (1 - loss / threshold)
        return Weighted(v, 0.5 * threshold * (v.square() - 2 * v).sum())
    if kind == "curr_log":
        top = 1 + math.exp(-threshold)
        v = top / (1 + torch.exp(loss - threshold))
        mu = top - v
        return Weighted(v, mu * torch.log(mu) + v * torch.log(v + 1e-8) - threshold * v)
    raise ValueError(f"no curriculum {kind!r}; known: {', '.join(KINDS[1:])}")


def student_losses(kind: str, student: Tensor, teacher: Tensor, temperature: float, per_sample: bool) -> Tensor:
    """The student's loss before it is weighted.

    Args:
        kind: "l1" (mean over classes and samples of |s - t|), "kl" (temperature KL, mean over samples) or "l2"
            (squared differences, not reduced).
        student, teacher: (B, K) logits.
        temperature: of "kl".
        per_sample: one loss per sample (mean over classes for l1 and l2, sum for kl) instead of the batch's.

    Returns:
        (); (B,) per sample; (B, K) for "l2" of a batch.
    """
    if kind == "kl":
        if per_sample:
            return temperature_kl(student, teacher, temperature, reduction="none").sum(dim=1)
        return temperature_kl(student, teacher, temperature)
    difference = student - teacher
    if kind == "l1":
        return difference.abs().mean(dim=1) if per_sample else F.l1_loss(student, teacher)
    squared = difference.square()
    return squared.mean(dim=1) if per_sample else squared


@dataclass(frozen=True)
class WeightedLoss:
    """What a student step minimises under a curriculum.

    Attributes:
        loss: () minimised value.
        v: mean weight, ().
        difficulty: () sum v l / sum v, logged only; 0 / 0 (everything too difficult) counts as 0.
    """

    loss: Tensor
    v: Tensor
    difficulty: Tensor


def weighted_loss(kind: str, losses: Tensor, threshold: float) -> WeightedLoss:
    """The weighted loss; no gradient passes through the weight.

    A () batch loss gives v l; (B,) losses give the mean of v_i l_i; a (B, K) table gives the sum (as released for l2).
    """
    values = losses.detach()
    v = self_paced_weight(kind, values, threshold).v
    weighted = v * losses
    loss = weighted.sum() if losses.dim() == 2 else weighted.mean()
    total = v.sum()
    difficulty = torch.where(total > 0, (v * values).sum() / total, torch.zeros_like(total))
    return WeightedLoss(loss, v.mean(), difficulty)


def adversarial_weight(initial: float, growth: float, epochs: int, begin: float, end: float, epoch: int) -> float:
    """Weight of the adversarial term after `epoch` epochs (0: at the start) of a run.

    It grows by `growth` at the end of every epoch e with int(epochs begin) < e < int(epochs end), counted from 0.
    """
    first, last = int(epochs * begin) + 1, int(epochs * end) - 1
    return initial + growth * max(0, min(epoch - 1, last) - first + 1)
