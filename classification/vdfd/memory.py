"""What VDFD keeps of finished tasks: factors, the functional's values, and nothing of their images.

Per task and parameter rank-q factors are stored; for the regulariser they are multiplied out and stacked once per
task, so that a training step costs one matrix product whatever the number of tasks and parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from classification.vdfd.compression import Factors, functional, row_sums


@dataclass
class TaskMemory:
    """One finished task.

    Attributes:
        factors: parameter name -> rank-q factors of its importance.
        gw_star: (C,) functional at the end of the task.
    """

    factors: dict[str, Factors]
    gw_star: Tensor

    def basis(self, names: Sequence[str]) -> Tensor:
        """(R, C) products of all factors, stacked in the order of `names`."""
        return torch.cat([self.factors[name].product() for name in names])

    def storage(self) -> int:
        """Numbers stored as factors (the original's count: without the functional and the classifier rows)."""
        return sum(factors.count() for factors in self.factors.values())


class Memory:
    """All finished tasks, and the regularised parameters they refer to.

    Args:
        model: the network; its parameters are read at every call of `current`.
        names: regularised parameters, in the model's order.
    """

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        parameters = dict(model.named_parameters())
        self.names = list(names)
        self.parameters = [parameters[name] for name in names]
        self.tasks: list[TaskMemory] = []

    def add(self, factors: Mapping[str, Factors]) -> TaskMemory:
        """Store a finished task; the functional is taken at the weights as they are now."""
        task = TaskMemory(dict(factors), torch.empty(0))
        with torch.no_grad():
            task.gw_star = functional(row_sums(self.parameters), task.basis(self.names))
        self.tasks.append(task)
        return task

    def stacked(self, tasks: Sequence[int]) -> tuple[Tensor, Tensor]:
        """(R, T, C) bases and (T, C) stored functionals of the tasks with these positions (equal class counts)."""
        chosen = [self.tasks[position] for position in tasks]
        return torch.stack([t.basis(self.names) for t in chosen], dim=1), torch.stack([t.gw_star for t in chosen])

    def state_dict(self) -> dict[str, Any]:
        """Factors and functionals of every task."""
        return {
            "tasks": [
                {"gw_star": task.gw_star, "factors": {name: list(factors) for name, factors in task.factors.items()}}
                for task in self.tasks
            ]
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace all tasks; tensors go to the device of the network."""
        device = self.parameters[0].device
        self.tasks = [
            TaskMemory(
                {name: Factors(*(part.to(device) for part in parts)) for name, parts in task["factors"].items()},
                task["gw_star"].to(device),
            )
            for task in state["tasks"]
        ]
