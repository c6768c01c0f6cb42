"""What VDFD keeps of finished tasks: factors, the functional's values, and nothing of their images.

Per task and parameter rank-q factors are stored. For the regulariser they are arranged once per task: multiplied out
and stacked where they are small (one number per row of a parameter), left as factors where a matrix is kept whole. A
training step then costs a few matrix products whatever the number of tasks and parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from common.continual.compression import Factors, MatrixFactors, functional, matrix_functional, row_sums
from common.continual.summary import ROW_MEANS, Summary


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
        """(R, C) products of the factors of parameters summarised by rows, stacked in the order of `names`."""
        return torch.cat([self.factors[name].product() for name in names])

    def storage(self) -> int:
        """Numbers stored as factors (the original's count: without the functional and the classifier rows)."""
        return sum(factors.count() for factors in self.factors.values())


class Weights(NamedTuple):
    """The part of the current weights that the functional meets.

    Attributes:
        sums: (R,) row sums of the parameters summarised by rows, stacked.
        matrices: the matrices that are kept whole.
    """

    sums: Tensor
    matrices: list[Tensor]


class Basis(NamedTuple):
    """The factors of T tasks with C classes each, arranged for one product per step.

    Attributes:
        rows: (R, T, C) products, multiplied out.
        matrices: of every matrix that is kept whole.
    """

    rows: Tensor
    matrices: list[MatrixFactors]

    def functional(self, weights: Weights) -> Tensor:
        """(T, C) GW of every task at these weights; differentiable in them."""
        gw = functional(weights.sums, self.rows)
        return gw + matrix_functional(weights.matrices, self.matrices) if self.matrices else gw


class Memory:
    """All finished tasks, and the regularised parameters they refer to.

    Args:
        model: the network; its parameters are read at every call of `weights`.
        names: regularised parameters, in the model's order.
        summary: what is kept of a gradient.
    """

    def __init__(self, model: nn.Module, names: Sequence[str], summary: Summary = ROW_MEANS) -> None:
        parameters = dict(model.named_parameters())
        self.summary = summary
        self.names = list(names)
        self.parameters = [parameters[name] for name in names]
        self.tasks: list[TaskMemory] = []
        self._whole = [name for name in names if summary.keeps_whole(parameters[name])]
        self._by_rows = [name for name in names if name not in set(self._whole)]
        self._of_name = parameters

    def shapes(self) -> list[tuple[int, ...]]:
        """Shape of the summary of each parameter's gradient, in the order of `names`."""
        return [self.summary.shape(parameter) for parameter in self.parameters]

    def weights(self) -> Weights:
        """The current weights as the functional meets them; differentiable."""
        return Weights(row_sums(self._of_name[name] for name in self._by_rows), [self._of_name[n] for n in self._whole])

    def add(self, factors: Mapping[str, Factors]) -> TaskMemory:
        """Store a finished task; the functional is taken at the weights as they are now."""
        task = TaskMemory(dict(factors), torch.empty(0))
        with torch.no_grad():
            task.gw_star = self._arrange([task]).functional(self.weights())[0]
        self.tasks.append(task)
        return task

    def stacked(self, tasks: Sequence[int]) -> tuple[Basis, Tensor]:
        """The basis and the (T, C) stored functionals of the tasks with these positions (equal class counts)."""
        chosen = [self.tasks[position] for position in tasks]
        return self._arrange(chosen), torch.stack([task.gw_star for task in chosen])

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

    def _arrange(self, tasks: Sequence[TaskMemory]) -> Basis:
        rows = torch.stack([task.basis(self._by_rows) for task in tasks], dim=1)
        return Basis(rows, [MatrixFactors.stack([task.factors[name] for task in tasks]) for name in self._whole])
