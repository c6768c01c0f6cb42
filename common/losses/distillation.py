"""Distances between a student's and a teacher's logits. All logits are (B, K), B samples, K classes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

PROBABILITY_FLOOR = 0.01
"""Probabilities are clamped to [0.01, 0.99] in `clamped_jensen_shannon` by default."""


def temperature_kl(student: Tensor, teacher: Tensor, temperature: float = 1.0, reduction: str = "batchmean") -> Tensor:
    """T^2 KL(teacher || student) of the softmax at temperature T.

    Source: zju-vipa/CMI@9e79fa9 datafree/criterions.py `kldiv`.

    Args:
        student, teacher: (B, K) logits; the gradient reaches both.
        temperature: T > 0.
        reduction: "batchmean" (sum over classes, mean over samples), "mean" (over all B K elements), "sum" or "none".

    Returns:
        () scalar, or (B, K) for "none".
    """
    # why this form: p log p - p log q in two products is what was recorded; at T = 20 every other one cancels otherwise
    log_q = F.log_softmax(student / temperature, dim=1)
    p = F.softmax(teacher / temperature, dim=1)
    return _divergence(log_q, p, reduction) * temperature**2


def sample_kl(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """(B,) T^2 KL(teacher || student) of every sample."""
    return temperature_kl(student, teacher, temperature, reduction="none").sum(dim=1)


def clamped_jensen_shannon(
    student: Tensor, teacher: Tensor, temperature: float = 1.0, reduction: str = "batchmean",
    floor: float = PROBABILITY_FLOOR,
) -> Tensor:
    """Jensen-Shannon divergence of clamped probabilities, KL(M || P) / 2 + KL(M || Q) / 2.

    P, Q and their mean M are clamped to [floor, 1 - floor] after M was formed and not normalised again, so the value
    can exceed 1. No factor T^2.

    Source: zju-vipa/CMI@9e79fa9 datafree/criterions.py `jsdiv`, reduction "batchmean"; gaurav104/LRA@40a8941, "mean".

    Args:
        student, teacher: (B, K) logits; the gradient reaches both.
        temperature: T > 0.
        reduction: "batchmean" or "mean", see `temperature_kl`.
        floor: 0: no clamp (but logarithms stay finite).
    """
    low, high = max(floor, torch.finfo(student.dtype).tiny), 1 - floor
    p = F.softmax(student / temperature, dim=1)
    q = F.softmax(teacher / temperature, dim=1)
    middle = (p + q) / 2
    p, q, middle = p.clamp(low, high), q.clamp(low, high), middle.clamp(low, high)
    return (_divergence(p.log(), middle, reduction) + _divergence(q.log(), middle, reduction)) / 2


def jensen_shannon_agreement(
    student: Tensor, teacher: Tensor, temperature: float = 3.0, reduction: str = "batchmean",
    floor: float = PROBABILITY_FLOOR,
) -> Tensor:
    """1 - min(JS, 1): a generator minimises it to find images on which the two networks disagree."""
    return 1 - clamped_jensen_shannon(student, teacher, temperature, reduction, floor).clamp(0, 1)


def _divergence(log_q: Tensor, p: Tensor, reduction: str) -> Tensor:
    """sum p (log p - log q) from log q and p. why not kl_div's own "mean": it warns at every call"""
    if reduction == "mean":
        return F.kl_div(log_q, p, reduction="none").mean()
    return F.kl_div(log_q, p, reduction=reduction)
