"""Parameter groups, optimisers, and the learning-rate schedules, both with the originals' lag of one step.

Source: XiaorongLi-95/VDFD@2c0dfce agents/vdfd.py, agents/vdfd_swin.py `init_model_optimizer`, agents/agent.py
`train_model`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import nn

from common.training.errors import UserError
from common.training.graph import rate_of, set_rate

HEAD_PREFIX = "last"
UNUSED = ("head.weight", "head.bias")
"""The classifier that SwinTransformer registers and never uses."""
DECAY = 0.5


class Schedule(Protocol):
    """Sets an optimiser's learning rates after every step."""

    base_rates: list[float]

    def step(self, epoch: int) -> None: ...

    def rates(self) -> list[float]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def used_names(model: nn.Module) -> list[str]:
    """Names of the parameters that the network's outputs depend on, heads included."""
    return [name for name, _ in model.named_parameters() if name not in UNUSED]


def backbone_names(model: nn.Module) -> list[str]:
    """Names of the parameters outside the heads: all in use that do not start with "last"."""
    return [name for name in used_names(model) if not name.startswith(HEAD_PREFIX)]


def head_names(model: nn.Module, heads: Sequence[str]) -> list[str]:
    """Names of the parameters of some heads."""
    prefixes = tuple(f"{HEAD_PREFIX}.{head}." for head in heads)
    return [name for name, _ in model.named_parameters() if name.startswith(prefixes)]


def make_group(model: nn.Module, names: Sequence[str], lr: float, weight_decay: float) -> dict[str, Any]:
    """A parameter group with its "names", "params", "lr", "weight_decay"."""
    parameters = dict(model.named_parameters())
    return {"names": list(names), "params": [parameters[n] for n in names], "lr": lr, "weight_decay": weight_decay}


def parameter_groups(
    model: nn.Module,
    heads: str | Sequence[str],
    *,
    head_lr: float,
    model_lr: float,
    head_weight_decay: float,
    model_weight_decay: float,
) -> list[dict[str, Any]]:
    """Group 0: the head (or heads) in training; group 1: everything that is no head, batch norms included.

    Other heads stay out.
    """
    wanted = [heads] if isinstance(heads, str) else heads
    return [
        make_group(model, head_names(model, wanted), head_lr, head_weight_decay),
        make_group(model, backbone_names(model), model_lr, model_weight_decay),
    ]


def make_optimizer(name: str, groups: list[dict[str, Any]], momentum: float = 0.9) -> torch.optim.Optimizer:
    """The optimiser that `--model_optimizer` or `--hypermodel_optimizer` names.

    Weight decay is added to the gradient (L2), for Adam too. "amsgrad" is Adam with that flag, which the original
    meant to set and never did (D18).

    Raises:
        UserError: for a name that is not offered.
    """
    groups = [{key: value for key, value in group.items() if key != "names"} for group in groups]
    if name == "Adam":
        return torch.optim.Adam(groups, fused=True)
    if name == "amsgrad":
        return torch.optim.Adam(groups, amsgrad=True, fused=True)
    if name == "SGD":
        return torch.optim.SGD(groups, momentum=momentum, fused=True)
    if name == "RMSprop":
        return torch.optim.RMSprop(groups, momentum=momentum)
    raise UserError(f"unknown optimiser {name}; expected Adam, amsgrad, SGD or RMSprop")


class LaggedMultiStep:
    """Learning rates halved at milestones, one mini-batch late.

    The original calls its scheduler after every optimiser step with the number of the epoch. The rate therefore drops
    after the first step of a milestone epoch (D8), in closed form: base * gamma^(milestones <= epoch).

    Args:
        optimizer: its current rates are the base rates.
        milestones: epochs, counted from 0; the last one is the number of epochs and never takes effect.
        gamma: factor at each milestone.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, milestones: Sequence[int], gamma: float = DECAY) -> None:
        self.optimizer, self.milestones, self.gamma = optimizer, list(milestones), gamma
        self.base_rates = [rate_of(group) for group in optimizer.param_groups]

    def step(self, epoch: int) -> None:
        """Set the rates for the steps after one of epoch `epoch`."""
        factor = self.gamma ** sum(milestone <= epoch for milestone in self.milestones)
        for group, base in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            set_rate(group, base * factor)

    def rates(self) -> list[float]:
        """The rates in force, one per group."""
        return [rate_of(group) for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Base rates (the current ones are in the optimiser's state)."""
        return {"base_rates": list(self.base_rates)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the base rates."""
        self.base_rates = list(state["base_rates"])


class WarmupCosine:
    """Learning rates that rise linearly over the first updates and fall along a cosine over all of them.

    After update u (counted from 0 in every task) the rates are set for the updates after it:

        u < warmup_updates:  warmup_lr + (base - warmup_lr) u / warmup_updates
        u < total_updates:   min_lr + (base - min_lr) (1 + cos(pi u / total_updates)) / 2
        afterwards:          min_lr

    The first two updates therefore both use warmup_lr, and the cosine does not start from the base rate: its clock
    has been running since update 0. The original calls timm 0.4's `CosineLRScheduler`, which does this.

    Args:
        optimizer: its current rates are the base rates, group by group; they are set to warmup_lr at once.
        total_updates: updates of one task.
        warmup_updates: updates of the linear rise.
        min_lr, warmup_lr: rates at the end and at the beginning, of every group.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        total_updates: int,
        warmup_updates: int,
        min_lr: float,
        warmup_lr: float,
    ) -> None:
        self.optimizer = optimizer
        self.total_updates, self.warmup_updates = total_updates, warmup_updates
        self.min_lr, self.warmup_lr = min_lr, warmup_lr
        self.base_rates = [rate_of(group) for group in optimizer.param_groups]
        self.updates = 0
        if warmup_updates > 0:
            for group in optimizer.param_groups:
                set_rate(group, warmup_lr)

    def restart(self) -> None:
        """Count the updates from 0 again: a new task under the same optimiser."""
        self.updates = 0

    def step(self, epoch: int) -> None:
        """Set the rates for the updates after this one; the epoch plays no part."""
        for group, base in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            set_rate(group, self._rate(base, self.updates))
        self.updates += 1

    def _rate(self, base: float, update: int) -> float:
        if update < self.warmup_updates:
            return self.warmup_lr + (base - self.warmup_lr) * update / self.warmup_updates
        if update >= self.total_updates:
            return self.min_lr
        return self.min_lr + 0.5 * (base - self.min_lr) * (1 + math.cos(math.pi * update / self.total_updates))

    def rates(self) -> list[float]:
        """The rates in force, one per group."""
        return [rate_of(group) for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Base rates and updates so far (the current rates are in the optimiser's state)."""
        return {"base_rates": list(self.base_rates), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved count."""
        self.base_rates, self.updates = list(state["base_rates"]), state["updates"]


def clear_gradients(*optimizers: torch.optim.Optimizer) -> None:
    """Drop the gradients of everything these optimisers move."""
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
