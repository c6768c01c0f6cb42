"""Parameter groups, optimisers, and the learning-rate schedule with the originals' lag.

Source: XiaorongLi-95/VDFD@2c0dfce agents/vdfd.py `init_model_optimizer`, agents/agent.py `train_model`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from common.training.errors import UserError

HEAD_PREFIX = "last"
DECAY = 0.5


def backbone_names(model: nn.Module) -> list[str]:
    """Names of the parameters outside the heads: all that do not start with "last"."""
    return [name for name, _ in model.named_parameters() if not name.startswith(HEAD_PREFIX)]


def parameter_groups(
    model: nn.Module, head: str, *, head_lr: float, model_lr: float, head_weight_decay: float, model_weight_decay: float
) -> list[dict[str, Any]]:
    """Group 0: the head in use; group 1: everything that is no head, batch norms included. Other heads stay out.

    Returns:
        Dictionaries with "names", "params", "lr", "weight_decay".
    """
    parameters = dict(model.named_parameters())
    head_names = [name for name in parameters if name.startswith(f"{HEAD_PREFIX}.{head}.")]
    other_names = backbone_names(model)
    return [
        {"names": head_names, "params": [parameters[n] for n in head_names], "lr": head_lr, "weight_decay": head_weight_decay},
        {"names": other_names, "params": [parameters[n] for n in other_names], "lr": model_lr, "weight_decay": model_weight_decay},
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
        self.base_rates = [group["lr"] for group in optimizer.param_groups]

    def step(self, epoch: int) -> None:
        """Set the rates for the steps after one of epoch `epoch`."""
        factor = self.gamma ** sum(milestone <= epoch for milestone in self.milestones)
        for group, base in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = base * factor

    def rates(self) -> list[float]:
        """The rates in force, one per group."""
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Base rates (the current ones are in the optimiser's state)."""
        return {"base_rates": list(self.base_rates)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the base rates."""
        self.base_rates = list(state["base_rates"])


def clear_gradients(*optimizers: torch.optim.Optimizer) -> None:
    """Drop the gradients of everything these optimisers move."""
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)


