"""Tables of a comparison with the authors' log."""

from __future__ import annotations

import statistics
from typing import Any

from repro.formats import Sheet
from repro.logs.comparing import LAST_EPOCHS, RunComparison, TaskComparison, compare_values, run_identity
from repro.logs.reading import VALIDATION, Log
from repro.records import Record
from repro.registry import AuthorsLog, Cell

NOT_RUN = "not run"

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
    _add_row(sheet, row, {**run_identity(run), **data})


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
    data = {**run_identity(run), "after_task": after, "ours": ours, "authors": authors, "difference": ours - authors}
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
