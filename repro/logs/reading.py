"""Reading both sides: the authors' CSV files and our series, under the authors' column names."""

from __future__ import annotations

import csv
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.training.errors import UserError
from repro.records import Record, read_series
from repro.registry import AuthorsLog

EPOCH_ENDS = ("val/accuracy", "train/accuracy")
"""Series with one point at the end of every epoch; their steps count an epoch's optimiser steps."""

VALIDATION, AVERAGE, TEST = "val/accuracy", "test/avg", "test/task_"

Place = tuple[int, int]


@dataclass
class Log:
    """What one side recorded; the columns are the authors'.

    Attributes:
        epochs: (task from 1, epoch from 0) -> column -> value.
        tests: (after task, evaluated task) -> test accuracy, percent.
        averages: after task -> test accuracy over the classes seen, percent.
    """

    epochs: dict[Place, dict[str, float]] = field(default_factory=dict)
    tests: dict[Place, float] = field(default_factory=dict)
    averages: dict[int, float] = field(default_factory=dict)

    @property
    def tasks(self) -> list[int]:
        return sorted({task for task, _ in self.epochs})

    def epochs_of(self, task: int) -> list[int]:
        return sorted(epoch for other, epoch in self.epochs if other == task)

    def curve(self, task: int, column: str) -> dict[int, float]:
        """Epoch -> value of one task, where there is one."""
        rows = {epoch: self.epochs[task, epoch] for epoch in self.epochs_of(task)}
        return {epoch: row[column] for epoch, row in rows.items() if column in row}


def read_authors(log: AuthorsLog, paper: str, root: Path) -> Log:
    """The released log.

    Raises:
        UserError: for a missing file or column, an entry that is no number, or an epoch that occurs twice.
    """
    folder, place = root / "repro" / "paper" / paper, f"log of cell {log.cell!r}"
    columns = [*log.series, *([log.iterations] if log.iterations else [])]
    authors = Log(_read_csv(folder / log.epochs, ["task", "epoch"], columns, place))
    for column in columns:
        if not any(column in values for values in authors.epochs.values()):
            raise UserError(f"{place}: column {column!r} of {log.epochs} is empty; leave it out of experiments.toml")
    if log.matrix:
        rows = _read_csv(folder / log.matrix, ["after_task", "eval_task"], ["acc"], place)
        authors.tests = {where: row["acc"] for where, row in rows.items() if row}
    if log.average:
        rows = _read_csv(folder / log.average, ["after_task"], ["avg_acc_seen_classes"], place)
        authors.averages = {where[0]: row["avg_acc_seen_classes"] for where, row in rows.items() if row}
    return authors


def read_ours(log: AuthorsLog, record: Record) -> Log:
    """The series of one of our runs, under the authors' columns; an epoch counts once its end was logged.

    Raises:
        UserError: if there is no series, it cannot be read, or it contradicts itself.
    """
    if record.series_path is None or not record.series_path.is_file():
        raise UserError(f"{record.path}: it has no series beside it; name the record in its run's folder")
    try:
        points = _read_points(record, {*log.series.values(), *EPOCH_ENDS, AVERAGE})
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{record.series_path}: not a readable series ({type(error).__name__}: {error})") from error
    ours = Log()
    ends = {(task, epoch): step for (name, task, epoch), (step, _) in points.items() if name in EPOCH_ENDS}
    ours.averages = {task: value for (name, task, _), (_, value) in points.items() if name == AVERAGE}
    tests = {(name, task): value for (name, task, _), (_, value) in points.items() if name.startswith(TEST)}
    ours.tests = {(task, int(name.removeprefix(TEST))): value for (name, task), value in tests.items()}
    for task, epoch in sorted(ends):
        found = {column: points.get((name, task, epoch)) for column, name in log.series.items()}
        ours.epochs[task, epoch] = {column: point[1] for column, point in found.items() if point is not None}
        begin = _step_before(ends, task, epoch)
        if log.iterations and begin is not None:
            ours.epochs[task, epoch][log.iterations] = ends[task, epoch] - begin
    if record.finished and not ends:
        raise UserError(
            f"{record.path}: finished, but its series has no {' or '.join(EPOCH_ENDS)}; compare another run"
        )
    return ours


def _read_points(record: Record, wanted: set[str]) -> dict[tuple[str, int, int], tuple[int, float]]:
    """(series, task, epoch) -> (optimiser steps, value) of the wanted series and the test accuracies."""
    points: dict[tuple[str, int, int], tuple[int, float]] = {}
    for entry in read_series(record):
        name, point = entry["name"], (int(entry["step"]), float(entry["value"]))
        if name in wanted or (name.startswith(TEST) and int(name.removeprefix(TEST))):
            where = (name, int(entry["task"]), int(entry["epoch"]))
            if not math.isfinite(point[1]) or points.setdefault(where, point) != point:
                raise ValueError(f"{name}, task {where[1]}, epoch {where[2]}: two values, or one that is not finite")
    return points


def _step_before(ends: dict[Place, int], task: int, epoch: int) -> int | None:
    """Optimiser steps before an epoch; None where the point that tells is missing."""
    if (task, epoch) == (1, 0):
        return 0
    last = max((place for place in ends if place[0] == task - 1), default=None) if epoch == 0 else (task, epoch - 1)
    return ends.get(last)


def _read_csv(path: Path, keys: Sequence[str], columns: Sequence[str], place: str) -> dict[Any, dict[str, float]]:
    """Keys of each row, whole numbers -> its numbers in the wanted columns; an empty entry is absent."""
    if not path.is_file():
        raise UserError(f"{place}: there is no repro/paper/{path.parent.name}/{path.name}")
    rows: dict[Any, dict[str, float]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        known = reader.fieldnames or []
        missing = [column for column in (*keys, *columns) if column not in known]
        if missing:
            raise UserError(f"{place}: {path.name} has no column {missing[0]!r}; it has {', '.join(known)}")
        for row in reader:
            try:
                where = tuple(int(row[key]) for key in keys)
                values = {column: float(row[column]) for column in columns if row[column]}
            except (ValueError, TypeError) as error:
                raise UserError(f"{place}: line {reader.line_num} of {path.name}: not a number ({error})") from error
            if rows.setdefault(where, values) is not values:
                shown = ", ".join(f"{key} {value}" for key, value in zip(keys, where, strict=True))
                raise UserError(f"{place}: line {reader.line_num} of {path.name}: a second row for {shown}")
    return rows
