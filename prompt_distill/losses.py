"""Losses: plain tensors in, () tensors out.

Source: IRVLUTD/CDL@d980577 learners/prompt.py, models/zoo.py `ViTZoo.hcl`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from common.losses.distillation import temperature_kl

DKD_TEMPERATURE, DKD_TARGET_WEIGHT, DKD_OTHER_WEIGHT = 4.0, 1.0, 4.0
DKD_MASK = 1000.0
FITNETS_WEIGHT, REVIEW_WEIGHT = 0.1, 0.2


def current_cross_entropy(logits: Tensor, target: Tensor, old: int, seen: int) -> Tensor:
    """Cross-entropy in which only the current task's classes compete.

    The original sets the columns of old classes to minus infinity and cuts off later ones; leaving both out is the
    same.

    Args:
        logits: (B, classes).
        target: (B,) labels, old <= label < seen.
        old, seen: number of classes before the current task, and including it.
    """
    return F.cross_entropy(logits[:, old:seen], target - old)


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float, alpha: float) -> Tensor:
    """alpha T^2 KL(softmax(teacher / T) || softmax(student / T)), mean over the batch; (B, C) each, current columns."""
    return alpha * temperature_kl(student, teacher, temperature)


def decoupled_distillation_loss(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    target_weight: float = DKD_TARGET_WEIGHT,
    other_weight: float = DKD_OTHER_WEIGHT,
    temperature: float = DKD_TEMPERATURE,
) -> Tensor:
    """DKD: target against the rest, and the rest among themselves, weighted apart.

    Args:
        student, teacher: (B, C) logits of the current classes.
        target: (B,) labels counted among them.
        target_weight, other_weight: of the two parts.
        temperature: T; both parts are multiplied by T^2.
    """
    hot = F.one_hot(target, student.shape[1]).to(student.dtype)
    scale = temperature**2 / len(student)
    binary = [_against_the_rest(F.softmax(logits / temperature, dim=1), hot) for logits in (student, teacher)]
    target_part = F.kl_div(binary[0].log(), binary[1], reduction="sum")
    student_rest = F.log_softmax(student / temperature - DKD_MASK * hot, dim=1)
    teacher_rest = F.softmax(teacher / temperature - DKD_MASK * hot, dim=1)
    other_part = F.kl_div(student_rest, teacher_rest, reduction="sum")
    return scale * (target_weight * target_part + other_weight * other_part)


def hierarchical_loss(ours: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """ReviewKD: mean of the squared errors of the fused maps against as many of the teacher's last blocks.

    Args:
        ours: one (B, ..., dim of the teacher) map per student block, first to last.
        teacher: maps of the teacher's blocks, first to last; the last len(ours) of them count.
    """
    errors = [F.mse_loss(a, b) for a, b in zip(ours, list(teacher)[-len(ours) :], strict=True)]
    return torch.stack(errors).mean()


def _against_the_rest(probabilities: Tensor, hot: Tensor) -> Tensor:
    """(B, 2): probability of the target, and of all other classes together."""
    return torch.stack([(probabilities * hot).sum(dim=1), (probabilities * (1 - hot)).sum(dim=1)], dim=1)
