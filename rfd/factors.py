"""What multiplies each loss, and how learning rates and class weights change: pure functions of counts and epochs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Lambdas:
    """The weights that the command line sets; see `--model.lambda_*`."""

    ce: float = 0.5
    hkd: float = 0.15
    rkd: float = 0.5
    distkd_old: float = 0.5
    distkd_new: float = 0.5
    kd: float = 0.5


def rfd_factors(weights: Lambdas, n_new: int, n_old: int) -> dict[str, float]:
    """RFD's factors of local CE, WRD on synthetic, WRD on real images, and LFD while a task is learned.

    alpha = log2(n_new / 2 + 1), b = sqrt(n_old / n_new). original: WRD has b^2 where R-DFCIL's terms have b (README,
    Deviations R7). Before any old class there is only CE, with factor 1.
    """
    if n_old == 0:
        return {"ce": 1.0}
    alpha, b = _adaptive(n_new, n_old)
    b_squared = n_old / n_new
    return {
        "ce": weights.ce * (1 + 1 / alpha) / b,
        "distkd_old": weights.distkd_old * alpha * b_squared,
        "distkd_new": weights.distkd_new * alpha * b_squared,
        "sm": weights.kd * alpha * b,
    }


def rdfcil_factors(weights: Lambdas, n_new: int, n_old: int) -> dict[str, float]:
    """R-DFCIL's factors of local CE, HKD and RKD while a task is learned."""
    if n_old == 0:
        return {"ce": 1.0}
    alpha, b = _adaptive(n_new, n_old)
    return {
        "ce": weights.ce * (1 + 1 / alpha) / b,
        "hkd": weights.hkd * alpha * b,
        "rkd": weights.rkd * alpha * b,
    }


def abd_port_factors(weights: Lambdas, n_new: int, n_old: int) -> dict[str, float]:
    """The port of ABD: local CE by the share of new classes, finetuning CE 1, feature distillation lambda_kd."""
    if n_old == 0:
        return {"ce": 1.0}
    return {"ce": 1 - n_old / (n_old + n_new), "ft": 1.0, "fkd": weights.kd}


def finetuning_factors(factors: dict[str, float], weights: Lambdas, dropped: str) -> dict[str, float]:
    """The factors of the last epochs: one term is dropped, CE has lambda_ce, the others keep theirs.

    In the first task, where nothing is learned then, they stay as they are.
    """
    if len(factors) == 1:
        return dict(factors)
    return {name: weights.ce if name == "ce" else value for name, value in factors.items() if name != dropped}


def learning_rate(
    epoch: int,
    *,
    base_lr: float,
    lr_factor: float,
    milestones: Sequence[int],
    epochs: int,
    finetuning_epochs: int,
    finetuning_lr: float,
) -> float:
    """Learning rate of an epoch (from 0): base_lr with a step at each milestone, then finetuning_lr."""
    if is_finetuning(epoch, epochs, finetuning_epochs):
        return finetuning_lr
    return base_lr * lr_factor ** sum(epoch >= milestone for milestone in milestones)


def is_finetuning(epoch: int, epochs: int, finetuning_epochs: int) -> bool:
    """Whether an epoch (from 0) belongs to the finetuning phase; after the last epoch it is over."""
    return finetuning_epochs > 0 and epochs - finetuning_epochs <= epoch < epochs


def class_weights(counts: Tensor) -> Tensor:
    """(C,) weights total / max(count, 1), divided by the smallest; counts (C,) of labels met so far."""
    weights = counts.sum() / counts.clamp(min=1)
    return weights / weights.min()


def count_labels(labels: Tensor, classes: int) -> Tensor:
    """(classes,) float counts. why not bincount: on a GPU it waits for the device to learn the largest label."""
    return (labels[:, None] == torch.arange(classes, device=labels.device)).sum(dim=0, dtype=torch.float32)


def _adaptive(n_new: int, n_old: int) -> tuple[float, float]:
    return math.log2(n_new / 2 + 1), math.sqrt(n_old / n_new)
