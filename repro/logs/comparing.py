"""One of our runs set beside the released log: what the setting fixes is judged, what is random is measured."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Any

from repro.logs.reading import VALIDATION, Log, read_ours
from repro.records import Record
from repro.registry import AuthorsLog

LAST_EPOCHS = 10
EXACT_RTOL = 1e-9
"""Relative difference of two exact numbers that is due to writing them in decimals."""


@dataclass(frozen=True)
class TaskComparison:
    """One task: how far our run went, and where an exact column disagrees.

    Attributes:
        task: counted from 1.
        compared: epochs that both sides have.
        of: epochs of the authors.
        missing: epochs that our series lacks before its last one.
        is_over: whether our run completed the task, so that its number of epochs can be judged.
        checked: exact column -> entries compared.
        disagreements: one line each, in the order of the epochs.
    """

    task: int
    compared: list[int]
    of: int
    missing: list[int]
    is_over: bool
    checked: dict[str, int]
    disagreements: list[str]

    @property
    def verdict(self) -> str:
        """Whether the exact columns agree ("yes", "NO"), or which of them could not be compared at all."""
        if self.disagreements:
            return "NO"
        unchecked = [column for column, count in self.checked.items() if not count]
        return f"not logged: {', '.join(unchecked)}" if unchecked else "yes"


@dataclass(frozen=True)
class RunComparison:
    """One of our runs beside the authors' log of its cell."""

    record: Record
    log: AuthorsLog
    ours: Log
    authors: Log
    tasks: list[TaskComparison]

    @property
    def agrees(self) -> bool:
        """Whether no exact column disagrees."""
        return not any(task.disagreements for task in self.tasks)


def compare_run(record: Record, log: AuthorsLog, authors: Log) -> RunComparison:
    """Set a run beside the released log, task by task as far as it went; raises as `read_ours` does."""
    ours = read_ours(log, record)
    last = max(ours.tasks, default=0)
    is_over = {task: record.finished or task < last or (task, task) in ours.tests for task in range(1, last + 1)}
    tasks = [_compare_task(task, ours, authors, log, is_over[task]) for task in is_over]
    return RunComparison(record, log, ours, authors, tasks)


def _compare_task(task: int, ours: Log, authors: Log, log: AuthorsLog, is_over: bool) -> TaskComparison:
    own, theirs = ours.epochs_of(task), authors.epochs_of(task)
    compared = [epoch for epoch in own if epoch in theirs]
    columns = [column for column in log.exact if column != "epoch"]
    checked, problems = dict.fromkeys(columns, 0), []
    for epoch in compared:
        for column in columns:
            a, b = (side.epochs[task, epoch].get(column) for side in (ours, authors))
            if a is not None and b is not None:
                checked[column] += 1
                if not math.isclose(a, b, rel_tol=EXACT_RTOL):
                    problems.append(f"epoch {epoch}: {column} {a:.10g}, authors {b:.10g}")
    length = max(own, default=-1) + 1
    if "epoch" in log.exact and (length > len(theirs) or (is_over and length != len(theirs))):
        problems.append(f"epochs of the task: {length}, authors {len(theirs)}")
    missing = sorted(set(range(length)) - set(own))
    return TaskComparison(task, compared, len(theirs), missing, is_over, checked, problems)


def compare_values(run: RunComparison, task: TaskComparison, column: str) -> dict[str, Any]:
    """One loss or accuracy of one task: the last common epoch, and how far the sides are apart (ours - authors)."""
    ours, authors = (side.curve(task.task, column) for side in (run.ours, run.authors))
    apart = {epoch: ours[epoch] - authors[epoch] for epoch in ours if epoch in authors}
    result = {**run_identity(run), "task": task.task, "series": run.log.series[column], "epochs": len(apart)}
    if not apart:
        return result
    last, worst = max(apart), max(apart, key=lambda epoch: abs(apart[epoch]))
    result |= {"epoch": last, "ours": ours[last], "authors": authors[last], "difference": apart[last]}
    mean = statistics.fmean(map(abs, apart.values()))
    result |= {"mean_abs": mean, "max_abs": abs(apart[worst]), "max_abs_epoch": worst}
    if run.log.series[column] == VALIDATION:
        end = list(apart.values())[-LAST_EPOCHS:]
        result |= {"last_epochs": len(end), "last_difference": statistics.fmean(end)}
    return result


def run_identity(run: RunComparison) -> dict[str, Any]:
    """What names a run in every row of data."""
    return {"cell": run.log.cell, "run": run.record.run_id, "labels": list(run.record.labels)}
