"""Adam whose updates of some parameters are projected before they are added.

Source: Wang et al., "Training Networks in Null Space of Feature Covariance for Continual Learning" (CVPR 2021);
ShipengWang/Adam-NSCL@a2f39b4 optim/adam_svd.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor


class ProjectedAdam(torch.optim.Optimizer):
    """Adam; the update of a projected weight, as an (out, in * k * k) matrix, is multiplied by P on the right.

    Moments see the gradients as they are (L2 weight decay added), only the update is projected. `eps` is added to the
    root of the second moment before its bias is corrected, as in the original; today's `torch.optim.Adam` adds it
    afterwards, which is visible where gradients are tiny.

    Args:
        groups: parameter groups with their "lr" and "weight_decay".
        projections: parameter -> (n, n) matrix P, n = entries per row of the parameter. Not part of the state dict.
        betas, eps: of Adam.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        projections: Mapping[Tensor, Tensor],
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(groups, {"betas": betas, "eps": eps, "weight_decay": 0.0, "steps": 0})
        self.projections = projections

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not parameters:
                continue
            group["steps"] += 1
            updates = self._updates(group, parameters)
            for index, parameter in enumerate(parameters):
                if parameter in self.projections:
                    projected = updates[index].flatten(1) @ self.projections[parameter]
                    updates[index] = projected.view_as(parameter)
            torch._foreach_add_(parameters, updates)
        return loss

    def _updates(self, group: dict[str, Any], parameters: list[Tensor]) -> list[Tensor]:
        """Adam's updates of some parameters; moves their moments."""
        states = [self.state[parameter] for parameter in parameters]
        for state, parameter in zip(states, parameters, strict=True):
            if not state:
                state |= {"mean": torch.zeros_like(parameter), "square": torch.zeros_like(parameter)}
        means, squares = ([state[kind] for state in states] for kind in ("mean", "square"))
        (beta1, beta2), steps = group["betas"], group["steps"]
        rate = group["lr"] * math.sqrt(1 - beta2**steps) / (1 - beta1**steps)

        gradients = [parameter.grad for parameter in parameters]
        gradients = torch._foreach_add(gradients, parameters, alpha=group["weight_decay"])
        torch._foreach_mul_(means, beta1)
        torch._foreach_add_(means, gradients, alpha=1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)
        denominators = torch._foreach_sqrt(squares)
        torch._foreach_add_(denominators, group["eps"])
        updates = torch._foreach_div(means, denominators)
        torch._foreach_mul_(updates, -rate)
        return list(updates)
