"""Our per-epoch series beside the logs that the authors released.

Columns that the setting fixes (learning rates, optimiser steps per epoch, epochs per task) must agree entry by entry;
losses and accuracies depend on random numbers, so they are shown and never judged.
"""

from __future__ import annotations

import csv
import math
import statistics
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.training.errors import UserError
from common.training.files import write_atomically
from repro.formats import Sheet
from repro.records import Record, load_record, load_records, read_series
from repro.registry import AuthorsLog, Cell, Subproject

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOT_RUN = "not run"
NOT_COMPARABLE = ("smoke", "sub-sampled", "desk-scale")
"""Labels of runs on other data; they are compared on request only."""

EPOCH_ENDS = ("val/accuracy", "train/accuracy")
"""Series with one point at the end of every epoch; their steps count an epoch's optimiser steps."""

VALIDATION, AVERAGE, TEST = "val/accuracy", "test/avg", "test/task_"
LAST_EPOCHS = 10
EXACT_RTOL = 1e-9
"""Relative difference of two exact numbers that is due to writing them in decimals."""

LINEAR_BELOW = 0.1
"""Losses that turn negative are drawn on a logarithmic axis that is linear up to this distance from 0."""

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


def check_logs(subprojects: Iterable[Subproject], root: Path) -> int:
    """Read every released log that is described; returns their number, or raises as `read_authors` does."""
    return sum(len([read_authors(log, one.paper, root) for log in one.logs]) for one in subprojects)


def compare_paper(
    subproject: Subproject, root: Path, paths: Sequence[Path] = (), folders: Sequence[Path] = (), any_run: bool = False
) -> tuple[list[RunComparison], list[Sheet], list[str]]:
    """Compare our runs of the cells that have a released log; by default all below <root>/results/<paper>.

    Args:
        subproject: the paper.
        root: repository root.
        paths: records, or folders of runs, instead of all that there are.
        folders: more folders to look for records in.
        any_run: also compare runs on other data (`NOT_COMPARABLE`).

    Returns:
        The comparisons, all tables (the authors' log in short for a cell without a run), and one warning per run that
        was left out.

    Raises:
        UserError: if the paper has no released log, one cannot be read, or a run in `paths` cannot be compared.
    """
    logs = {log.cell: log for log in subproject.logs}
    if not logs:
        raise UserError(f"{subproject.paper}: no released log; one is described by [[log]] in its experiments.toml")
    if paths:
        records, warnings = [load_record(path) for path in paths], []
        _check_given(records, logs)
    else:
        records, warnings = load_records([root / "results" / subproject.paper, *folders])
        records = [record for record in records if record.cell in logs]
    authors = {cell: read_authors(log, subproject.paper, root) for cell, log in logs.items()}
    runs: list[RunComparison] = []
    for record in records:
        try:
            _check_data(record, any_run)
            runs.append(compare_run(record, logs[record.cell], authors[record.cell]))
        except UserError as error:
            if paths:
                raise
            warnings.append(f"left out: {error}")
    sheets: list[Sheet] = []
    for cell in [cell for cell in subproject.cells if cell.id in logs]:
        found = [sheet for run in runs if run.log.cell == cell.id for sheet in run_sheets(run, cell)]
        left_out = sum(record.cell == cell.id for record in records)
        sheets += found or ([] if paths else [authors_sheet(cell, logs[cell.id], authors[cell.id], left_out)])
    return runs, sheets, warnings


def _check_given(records: Sequence[Record], cells: Iterable[str]) -> None:
    for position, record in enumerate(records):
        if record.cell not in cells:
            found = f"a run of {record.cell or 'no cell'}, which has no released log"
            raise UserError(f"{record.path}: {found}; expected one of {', '.join(cells)}")
        if any(record.run_id == other.run_id for other in records[:position]):
            raise UserError(f"{record.path}: the run {record.run_id} is named twice; name one of its copies")


def _check_data(record: Record, any_run: bool) -> None:
    other = [label for label in record.labels if label in NOT_COMPARABLE]
    if other and not any_run:
        raise UserError(f"{record.path}: a {other[0]} run does not answer the released log; --any compares it still")


# --- reading both sides -----------------------------------------------------------------------------------------------


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


# --- comparing --------------------------------------------------------------------------------------------------------


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
    result = {**_identity(run), "task": task.task, "series": run.log.series[column], "epochs": len(apart)}
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


def _identity(run: RunComparison) -> dict[str, Any]:
    return {"cell": run.log.cell, "run": run.record.run_id, "labels": list(run.record.labels)}


# --- sheets -----------------------------------------------------------------------------------------------------------

RUN_COLUMNS = {"run": "run", "labels": "labels"}
EXACT_COLUMNS = RUN_COLUMNS | {
    "task": "task",
    "epochs": "epochs compared",
    "missing": "missing in ours",
    "exact": "exact columns agree",
    "checked": "entries compared",
    "first": "first disagreement",
}
APART_COLUMNS = {
    "ours": "ours",
    "authors": "authors",
    "difference": "difference",
    "mean_abs": "mean |difference|",
    "max_abs": "max |difference| (epoch or task)",
}
VALUE_COLUMNS = RUN_COLUMNS | {"task": "task", "series": "series", "epoch": "last epoch"} | APART_COLUMNS
VALUE_COLUMNS |= {"last_difference": f"difference of means, last {LAST_EPOCHS} epochs"}
TEST_COLUMNS = RUN_COLUMNS | {"after_task": "after task"} | APART_COLUMNS


def run_sheets(run: RunComparison, cell: Cell) -> list[Sheet]:
    """Three tables of one run: exact columns, losses and accuracies, test accuracies after each task."""
    paper, title = cell.id.partition("/")[0], f"{cell.title} ({describe_run(run.record)})"
    done, of = sum(len(task.compared) for task in run.tasks), len(run.authors.epochs)
    extent = f"{done} of {of} epochs, {len(run.tasks)} of {len(run.authors.tasks)} tasks begun"
    exact = Sheet(f"{paper}-logs-exact", f"{title}: what must agree; {extent}", EXACT_COLUMNS, data=[])
    exact.note = "" if run.agrees else "Exact columns disagree: this run is not the experiment of the released log."
    values = Sheet(f"{paper}-logs-values", f"{title}: losses and accuracies (%)", VALUE_COLUMNS, data=[])
    values.note = "Shown, not judged: they depend on random numbers. Differences are ours - authors."
    tests = Sheet(f"{paper}-logs-test", f"{title}: test accuracy over the classes seen (%)", TEST_COLUMNS, data=[])
    tests.note = "Mean and max |difference| are those of the single tasks' test accuracies."
    for task in run.tasks:
        _add_exact_row(exact, run, task)
        for column in shown_columns(run.log):
            _add_value_row(values, compare_values(run, task, column))
    for after in sorted(run.ours.averages.keys() & run.authors.averages.keys()):
        _add_test_row(tests, run, after)
    return [sheet for sheet in (exact, values, tests) if sheet.rows or sheet is exact]


def authors_sheet(cell: Cell, log: AuthorsLog, authors: Log, left_out: int = 0) -> Sheet:
    """The authors' log in short, for a cell without a run of ours; `left_out` ones cannot be compared."""
    state = f"no run to compare ({left_out} left out)" if left_out else NOT_RUN
    shown, exact = shown_columns(log), [name for name in log.exact if name != "epoch"]
    validation = next((name for name in shown if log.series[name] == VALIDATION), None)
    columns = {"ours": "ours", "task": "task", "length": "epochs", **dict(zip(exact, exact, strict=True))}
    columns |= {name: f"{name}, last epoch" for name in shown}
    columns |= {"end": f"{validation}, mean of the last {LAST_EPOCHS} epochs"} if validation else {}
    columns |= {"average": "test Avg after the task (%)"} if authors.averages else {}
    title = f"{cell.title} ({cell.id}): {state}; the authors' log in short"
    sheet = Sheet(f"{cell.id.partition('/')[0]}-logs-authors", title, columns)
    for task in authors.tasks:
        row = {"ours": state, "task": str(task), "length": str(len(authors.epochs_of(task)))}
        curves = {name: list(authors.curve(task, name).values()) for name in (*exact, *shown)}
        for name, curve in curves.items():
            values = dict.fromkeys(curve) if name in exact else curve[-1:]
            row[name] = " → ".join(f"{value:g}" for value in values)
        if validation and curves[validation]:
            row["end"] = f"{statistics.fmean(curves[validation][-LAST_EPOCHS:]):.2f}"
        if task in authors.averages:
            row["average"] = f"{authors.averages[task]:.2f}"
        sheet.rows.append(row)
    return sheet


def shown_columns(log: AuthorsLog) -> list[str]:
    """Columns that are shown and not judged."""
    return [column for column in log.series if column not in log.exact]


def describe_run(record: Record) -> str:
    """Run id, seed, status, labels and changes: what a reader must know before looking at a number."""
    pairs = {flag: pair if isinstance(pair, list) else [pair] for flag, pair in sorted(record.changed.items())}
    changes = [f"{flag} {' → '.join(map(str, pair))}" for flag, pair in pairs.items()]
    shown = f"{record.run_id}; seed {record.content['seed']}; {record.content['status']}"
    return f"{shown}; labels: {', '.join(record.labels) or 'none'}; changed: {', '.join(changes) or 'nothing'}"


def _add_exact_row(sheet: Sheet, run: RunComparison, task: TaskComparison) -> None:
    more = f" (and {len(task.disagreements) - 1} more)" if len(task.disagreements) > 1 else ""
    counts = [f"{column} {count}" for column, count in task.checked.items()]
    row = {"task": str(task.task), "epochs": f"{len(task.compared)} of {task.of}", "exact": task.verdict}
    row["missing"] = ", ".join(map(str, task.missing))
    row["checked"] = ", ".join([*counts, "number of epochs" if task.is_over else "task not over"])
    row["first"] = task.disagreements[0] + more if task.disagreements else ""
    data = {"status": run.record.content["status"], "changed": run.record.changed, "task": task.task}
    data |= {"epochs": len(task.compared), "epochs_authors": task.of, "missing": task.missing, "is_over": task.is_over}
    data |= {"checked": task.checked, "exact": task.verdict, "disagreements": task.disagreements}
    _add_row(sheet, row, {**_identity(run), **data})


def _add_value_row(sheet: Sheet, data: dict[str, Any]) -> None:
    unit = " (%)" if data["series"].endswith("accuracy") else ""
    row = {"task": str(data["task"]), "series": data["series"] + unit}
    if data["epochs"]:
        style = ".2f" if unit else ".4g"
        row |= {name: format(data[name], style) for name in ("ours", "authors", "mean_abs")}
        row |= {"epoch": str(data["epoch"]), "difference": format(data["difference"], f"+{style}")}
        row["max_abs"] = f"{data['max_abs']:{style}} ({data['max_abs_epoch']})"
    else:
        row["ours"] = "not logged"
    if "last_difference" in data:
        few = "" if data["last_epochs"] == LAST_EPOCHS else f" ({data['last_epochs']} epochs)"
        row["last_difference"] = f"{data['last_difference']:+.2f}{few}"
    _add_row(sheet, row, data)


def _add_test_row(sheet: Sheet, run: RunComparison, after: int) -> None:
    ours, authors = run.ours.averages[after], run.authors.averages[after]
    data = {**_identity(run), "after_task": after, "ours": ours, "authors": authors, "difference": ours - authors}
    row = {"after_task": f"{after}", "ours": f"{ours:.2f}", "authors": f"{authors:.2f}"}
    row |= {"difference": f"{ours - authors:+.2f}"}
    common = sorted(place for place in run.ours.tests.keys() & run.authors.tests.keys() if place[0] == after)
    if common:
        apart = {place[1]: abs(run.ours.tests[place] - run.authors.tests[place]) for place in common}
        worst = max(apart, key=apart.__getitem__)
        data |= {"mean_abs": statistics.fmean(apart.values()), "max_abs": apart[worst], "max_abs_task": worst}
        row |= {"mean_abs": f"{data['mean_abs']:.2f}", "max_abs": f"{data['max_abs']:.2f} ({worst})"}
    _add_row(sheet, row, data)


def _add_row(sheet: Sheet, row: dict[str, str], data: dict[str, Any]) -> None:
    sheet.rows.append({"run": data["run"], "labels": ", ".join(data["labels"]) or "none", **row})
    sheet.data.append(data)


# --- plots ------------------------------------------------------------------------------------------------------------


def write_plots(run: RunComparison, folder: Path) -> list[Path]:
    """One PNG per task that our run began, ours drawn over the authors'; returns the files."""
    files = {folder / f"{run.record.run_id}_task_{task.task:02d}.png": task.task for task in run.tasks}
    for path, task in files.items():
        write_atomically(path, partial(draw_task(run, task).savefig, format="png", dpi=120))
    return list(files)


def draw_task(run: RunComparison, task: int) -> Figure:
    """Accuracies (percent) and losses (logarithmic) of one task over its epochs, a panel for each that we logged."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    by_name = {run.log.series[name]: name for name in shown_columns(run.log) if run.ours.curve(task, name)}
    names = sorted(by_name, key=lambda name: (name != VALIDATION, not name.endswith("accuracy")))
    figure = Figure(figsize=(5.2 * max(1, len(names)), 4.4), layout="constrained")
    FigureCanvasAgg(figure)  # why: no screen, no global plotting state
    figure.suptitle(f"{run.log.cell}, task {task}\n{describe_run(run.record)}", fontsize="medium")
    for position, name in enumerate(names, start=1):
        axes = figure.add_subplot(1, len(names), position)
        for label, side, width in (("authors' log", run.authors, 2.5), ("ours", run.ours, 1.0)):
            curve = side.curve(task, by_name[name])
            axes.plot(list(curve), list(curve.values()), linewidth=width, alpha=0.8, label=label)
        if name.endswith("accuracy"):
            axes.set_ylabel(f"{name} (%)")
        else:
            is_positive = all(value > 0 for line in axes.lines for value in line.get_ydata())
            axes.set_yscale("log") if is_positive else axes.set_yscale("symlog", linthresh=LINEAR_BELOW)
            axes.set_ylabel(f"{name} (no unit, logarithmic)")
        axes.set_xlabel("epoch of the task (from 0)")
        axes.grid(alpha=0.3)
        axes.legend()
    return figure
