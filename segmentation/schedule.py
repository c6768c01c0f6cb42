"""Learning rate per iteration.

Source: arthurdouillard/CVPR2021_PLOP@4b4a060 utils/scheduler.py.
"""

from __future__ import annotations

import torch
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, StepLR

from common.training.errors import UserError


def poly_factor(iteration: int, iterations: int, power: float) -> float:
    """(1 - i / n)^power; 0 after the last iteration."""
    return max(0.0, 1 - iteration / iterations) ** power


def make_schedule(
    optimizer: torch.optim.Optimizer, policy: str, iterations: int, power: float, every: int, factor: float
) -> LRScheduler:
    """Schedule that is stepped after every iteration.

    Args:
        optimizer: whose learning rates change.
        policy: poly or step.
        iterations: of the whole step; where poly reaches 0.
        power: of poly.
        every, factor: step: iterations between two cuts, factor of each.
    """
    if policy == "poly":
        if iterations < 1:
            raise UserError("no iteration in an epoch: there are fewer images than --batch_size takes")
        return LambdaLR(optimizer, lambda iteration: poly_factor(iteration, iterations, power))
    return StepLR(optimizer, every, factor)
