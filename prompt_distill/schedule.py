"""Learning rates per epoch, and the optimisers.

Source: IRVLUTD/CDL@d980577 utils/schedulers.py `CosineSchedule`, learners/default.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from common.training.errors import UserError

DECAY = 0.1


def cosine_rates(base: float, epochs: int) -> list[float]:
    """lr cos(99 pi n / (200 (E - 1))) with n = 0, 0, 1, 2, ..., E - 2.

    # original: (D2) the first two epochs share a rate, and the last one is a step early.
    """
    if epochs == 1:
        return [base]
    steps = [max(0, epoch - 1) for epoch in range(epochs)]
    return [base * math.cos(99 * math.pi * step / (200 * (epochs - 1))) for step in steps]


def epoch_rates(kind: str, base: float, schedule: Sequence[int]) -> list[float]:
    """The rate of every epoch of a task.

    Args:
        kind: "cosine"; "decay": a factor 0.1 at every milestone; "constant".
        base: initial rate.
        schedule: milestones; the last one is the number of epochs.

    Raises:
        UserError: if there is no epoch.
    """
    epochs = schedule[-1] if schedule else 0
    if epochs < 1:
        raise UserError(f"--schedule: the last number is the number of epochs, at least 1; found {list(schedule)}")
    if kind == "cosine":
        return cosine_rates(base, epochs)
    if kind == "decay":
        return [base * DECAY ** sum(epoch >= milestone for milestone in schedule) for epoch in range(epochs)]
    return [base] * epochs


def make_optimizer(
    name: str, parameters: Iterable[nn.Parameter], rate: float, momentum: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Adam with betas (momentum, 0.999), or one of the others that the original's code base knows."""
    parameters = list(parameters)
    if name == "SGD":
        return torch.optim.SGD(parameters, lr=rate, momentum=momentum, weight_decay=weight_decay)
    if name == "RMSprop":
        return torch.optim.RMSprop(parameters, lr=rate, momentum=momentum, weight_decay=weight_decay)
    return torch.optim.Adam(
        parameters, lr=rate, betas=(momentum, 0.999), weight_decay=weight_decay, amsgrad=name == "amsgrad", fused=True
    )


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """One rate for all groups."""
    for group in optimizer.param_groups:
        group["lr"] = rate
