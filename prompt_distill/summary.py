"""What a run's accuracies come to, and the original's result files.

Source: IRVLUTD/CDL@d980577 trainer.py, utils/calc_forgetting.py; run.py of dbe8170 for the YAML layout.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from common.metrics.continual import AccuracyMatrix
from common.training.files import write_atomically

Rows = Sequence[Sequence[float]]


class RunAccuracies:
    """Accuracies of student and teacher on every seen task after every task, percent.

    Attributes:
        student, teacher: over all classes seen so far; the teacher's stays empty where there is none.
        local: the student's among the classes of the evaluated task.
    """

    def __init__(self) -> None:
        self.student, self.teacher, self.local = AccuracyMatrix(), AccuracyMatrix(), AccuracyMatrix()

    def add(self, results: Sequence[dict[str, float]]) -> None:
        """What `PromptLearner.evaluate` gave for tasks 1 .. k after task k."""
        self.student.add([result["student"] for result in results])
        self.local.add([result["student_local"] for result in results])
        if "teacher" in results[0]:
            self.teacher.add([result["teacher"] for result in results])

    @property
    def tasks_done(self) -> int:
        """Number of rows."""
        return len(self.student.rows)

    def state_dict(self) -> dict[str, Any]:
        """All matrices."""
        return {name: getattr(self, name).state_dict() for name in ("student", "teacher", "local")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace all matrices."""
        for name, saved in state.items():
            getattr(self, name).load_state_dict(saved)


def last_forgetting(rows: Rows, divisor: int | None = None) -> float:
    """(1/N) sum over tasks of (accuracy right after the task - accuracy at the end).

    # original: (D5) the last task's zero is counted; `divisor` N - 1 leaves it out.
    """
    if not rows:
        return 0.0
    drops = [rows[task][task] - rows[-1][task] for task in range(len(rows))]
    return sum(drops) / (len(rows) if divisor is None else divisor)


def incremental_forgetting(rows: Rows) -> float:
    """(1/(T-1)) sum_{t>=1} (1/t) sum_{i<t} (y[t-1][i] - y[t][i]) of one trial, T > 1 tasks counted from 0."""
    steps = [
        sum(rows[after - 1][task] - rows[after][task] for task in range(after)) / after for after in range(1, len(rows))
    ]
    return statistics.fmean(steps)


def forgetting_over_trials(trials: Sequence[Rows]) -> tuple[float, float]:
    """Mean and population standard deviation of `incremental_forgetting`."""
    values = [incremental_forgetting(rows) for rows in trials]
    return statistics.fmean(values), statistics.pstdev(values)


def summarise(accuracies: RunAccuracies) -> dict[str, Any]:
    """Metrics of the run record."""
    metrics = _of_one(accuracies.student, "")
    if accuracies.teacher.rows:
        metrics |= _of_one(accuracies.teacher, "teacher_")
    return metrics | {"tasks_done": accuracies.tasks_done, "local_accuracy_matrix": _square(accuracies.local.rows)}


def _of_one(matrix: AccuracyMatrix, prefix: str) -> dict[str, Any]:
    acc, rows = matrix.average_accuracy(), matrix.rows
    return {
        f"{prefix}acc": acc[-1] if acc else None,
        f"{prefix}forgetting": last_forgetting(rows) if rows else None,
        f"{prefix}forgetting_without_last": last_forgetting(rows, len(rows) - 1) if len(rows) > 1 else None,
        f"{prefix}incremental_forgetting": incremental_forgetting(rows) if len(rows) > 1 else None,
        f"{prefix}acc_history": acc,
        f"{prefix}accuracy_matrix": _square(rows),
    }


def _square(rows: Rows) -> list[list[float | None]]:
    return [list(row) + [None] * (len(rows) - len(row)) for row in rows]


# --- the original's files ---------------------------------------------------------------------------------------------


def write_histories(folder: Path, accuracies: RunAccuracies, july: bool) -> None:
    """`acc.csv` (teacher) and `acc_s.csv` (student): one average accuracy per line, two decimals."""
    target = folder / ("temp" if july else "Results")
    for name, matrix in (("acc.csv", accuracies.teacher), ("acc_s.csv", accuracies.student)):
        if matrix.rows:
            _write_text(target / name, "".join(f"{value:.2f}\n" for value in matrix.average_accuracy()))


def write_result_yaml(folder: Path, metrics: Sequence[dict[str, Any]], seconds: Sequence[float]) -> None:
    """`results-acc/{global,pt,pt-local}.yaml` and `results-time/global.yaml`: mean, deviation, history over trials.

    global[i] is the average accuracy after task i, pt[j][i] the accuracy on task j after task i (0 before it was
    learned), pt-local the same among task j's classes; the last axis of a history counts trials.
    """
    tables = {
        "results-acc/global.yaml": [metric["acc_history"] for metric in metrics],
        "results-acc/pt.yaml": [_by_task(metric["accuracy_matrix"]) for metric in metrics],
        "results-acc/pt-local.yaml": [_by_task(metric["local_accuracy_matrix"]) for metric in metrics],
        "results-time/global.yaml": [[value] for value in seconds],
    }
    for name, trials in tables.items():
        content: dict[str, Any] = {"mean": _over(trials, statistics.fmean)}
        if len(trials) > 1:
            content["std"] = _over(trials, statistics.pstdev)
        content["history"] = _over(trials, list)
        _write_text(folder / name, yaml.safe_dump(content, default_flow_style=False, sort_keys=False))


def _by_task(matrix: Sequence[Sequence[float | None]]) -> list[list[float]]:
    """Rows = after task -> rows = evaluated task."""
    return [[row[task] or 0.0 for row in matrix] for task in range(len(matrix))]


def _over(trials: Sequence[Any], reduce: Any) -> Any:
    """Reduce over trials, element by element of nested lists."""
    if isinstance(trials[0], list):
        return [_over([trial[place] for trial in trials], reduce) for place in range(len(trials[0]))]
    return reduce([float(value) for value in trials])


def _write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda file: file.write(text.encode()))
