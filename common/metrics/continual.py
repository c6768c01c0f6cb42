"""The accuracy matrix of a continual run, and what the papers derive from it.

Row = after which task, column = which task was evaluated, both counted from 0 here; only the lower triangle is
filled. Accuracies in percent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class AccuracyMatrix:
    """Accuracies of every seen task after every task, filled row by row."""

    def __init__(self, rows: Sequence[Sequence[float]] = ()) -> None:
        self.rows: list[list[float]] = []
        for row in rows:
            self.add(row)

    def add(self, row: Sequence[float]) -> None:
        """Add the accuracies of tasks 1..k after task k.

        Raises:
            ValueError: if the row does not have one entry more than the one before it.
        """
        if len(row) != len(self.rows) + 1:
            raise ValueError(f"after task {len(self.rows) + 1} as many accuracies are expected, found {len(row)}")
        self.rows.append([float(value) for value in row])

    def average_accuracy(self) -> list[float]:
        """ACC after each task: the plain mean over the tasks seen so far."""
        return [sum(row) / len(row) for row in self.rows]

    def backward_transfer(self) -> list[float]:
        """BWT after each task: mean change of the earlier tasks since each was learned; 0 after the first task."""
        transfers = [0.0] if self.rows else []
        for after in range(1, len(self.rows)):
            changes = [self.rows[after][task] - self.rows[task][task] for task in range(after)]
            transfers.append(sum(changes) / after)
        return transfers

    def forgetting(self) -> list[float]:
        """Forgetting after each task: mean drop of the earlier tasks from the best value they ever had before."""
        drops = [0.0] if self.rows else []
        for after in range(1, len(self.rows)):
            best = [max(self.rows[k][task] for k in range(task, after)) for task in range(after)]
            drops.append(sum(best[task] - self.rows[after][task] for task in range(after)) / after)
        return drops

    def weighted_average(self, counts: Sequence[int]) -> list[float]:
        """Accuracy over all samples of the seen tasks, after each task.

        Args:
            counts: number of test samples of each task; entries beyond the seen tasks are not used.

        Raises:
            ValueError: if there are fewer counts than seen tasks.
        """
        return [
            sum(value * count for value, count in zip(row, counts[: len(row)], strict=True)) / sum(counts[: len(row)])
            for row in self.rows
        ]

    def state_dict(self) -> dict[str, Any]:
        """The rows."""
        return {"rows": [list(row) for row in self.rows]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace the rows."""
        self.rows = [list(row) for row in state["rows"]]
