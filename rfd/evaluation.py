"""Accuracies from confusion matrices, and the summary numbers of a run. Percent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from common.metrics.continual import AccuracyMatrix


def confusion_matrix(prediction: Tensor, target: Tensor, classes: int) -> Tensor:
    """(classes, classes) int64 counts on the inputs' device; row = true class, column = prediction."""
    # why a product: counting by scatter is not deterministic on a GPU; float64 counts exactly to 2^53
    rows = F.one_hot(target, classes).to(torch.float64)
    columns = F.one_hot(prediction, classes).to(torch.float64)
    return (rows.T @ columns).to(torch.int64)


@dataclass(frozen=True)
class Evaluation:
    """What a test over the classes seen so far found.

    Attributes:
        confusion: (C, C) int64 on the CPU, classes in class order.
        boundaries: cuts of the classes into tasks, 0 first, C last.
    """

    confusion: Tensor
    boundaries: tuple[int, ...]

    @property
    def per_task(self) -> list[float]:
        """Accuracy on the test images of each task; 0 for a task without test images."""
        return [self._accuracy(low, high) for low, high in zip(self.boundaries, self.boundaries[1:], strict=False)]

    @property
    def all(self) -> float:
        """Accuracy over all test images."""
        return self._accuracy(0, self.boundaries[-1])

    @property
    def new(self) -> float:
        """Accuracy over the images of the newest task."""
        return self._accuracy(self.boundaries[-2], self.boundaries[-1])

    @property
    def old(self) -> float:
        """Accuracy over the images of earlier tasks; 0 in the first."""
        return self._accuracy(0, self.boundaries[-2])

    def text(self) -> str:
        """The originals' summary: three accuracies and the confusion matrix."""
        rows = "\n".join("|".join(f"{count:3d}" for count in row) for row in self.confusion.tolist())
        three = " |  ".join(f"{value:.2f}" for value in (self.all, self.new, self.old))
        return f"Accuracy (all | new | old): {three}\nConfusion:\n{rows}"

    def _accuracy(self, low: int, high: int) -> float:
        rows = self.confusion[low:high]
        total = int(rows.sum())
        return 100.0 * int(self.confusion.diagonal()[low:high].sum()) / total if total else 0.0


class History:
    """Evaluations after each task, and what the papers derive from them."""

    def __init__(self) -> None:
        self.matrix = AccuracyMatrix()
        self.over_all_images: list[float] = []
        self.best: list[float] = []

    def add(self, evaluation: Evaluation, best: float | None = None) -> None:
        """Add the evaluation after a task; `best`: the best accuracy seen while it was learned."""
        self.matrix.add(evaluation.per_task)
        self.over_all_images.append(evaluation.all)
        self.best.append(max(evaluation.all, best if best is not None else 0.0))

    @property
    def tasks(self) -> int:
        """Tasks evaluated so far."""
        return len(self.matrix.rows)

    def metrics(self) -> dict[str, Any]:
        """Metrics of the run record.

        last: accuracy over all test images of all seen classes after the last task (A_T); average: mean of A_t over
        the tasks; global: mean of the per-task accuracies after the last task (ABD's number; equal to `last` for equal
        tasks); forgetting: mean over earlier tasks of the best accuracy before minus the one now.
        """
        rows, last = self.matrix.rows, self.over_all_images
        averages, forgetting = self.matrix.average_accuracy(), self.matrix.forgetting()
        transfer = self.matrix.backward_transfer()
        return {
            "last": last[-1] if last else None,
            "average": sum(last) / len(last) if last else None,
            "forgetting": forgetting[-1] if rows else None,
            "global": averages[-1] if rows else None,
            "acc": averages[-1] if rows else None,
            "bwt": transfer[-1] if rows else None,
            "best_last": self.best[-1] if last else None,
            "last_history": list(last),
            "global_history": averages,
            "forgetting_history": forgetting,
            "tasks_done": len(rows),
            "accuracy_matrix": [row + [None] * (len(rows) - len(row)) for row in rows],
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything, as plain lists."""
        return {"matrix": self.matrix.state_dict(), "last": list(self.over_all_images), "best": list(self.best)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved history."""
        self.matrix.load_state_dict(state["matrix"])
        self.over_all_images, self.best = list(state["last"]), list(state["best"])


def lower_triangle(accuracy: Tensor) -> tuple[Tensor, Tensor]:
    """ABD's summary of a finished run.

    Args:
        accuracy: (T, T), entry [j, i] = accuracy on task j after task i; percent.

    Returns:
        (T,) mean over j <= i of [j, i] for each i, and the matrix with the entries j > i set to 0.
    """
    seen = torch.triu(accuracy)
    history = AccuracyMatrix([seen[: i + 1, i].tolist() for i in range(len(seen))])
    return torch.tensor(history.average_accuracy(), dtype=accuracy.dtype), seen


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and population standard deviation, as ABD prints them over its repetitions."""
    tensor = torch.tensor(list(values), dtype=torch.float64)
    return float(tensor.mean()), float(tensor.std(correction=0))
