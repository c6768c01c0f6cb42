"""Learning curves of a paper's cells, ours over the authors', with a short table of the same numbers."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.training.errors import UserError
from repro.logs.reading import VALIDATION, Log, read_authors, read_ours
from repro.records import Record, read_series
from repro.registry import AuthorsLog, Cell
from repro.report.charts import Line, draw_lines
from repro.tables import PaperRuns

ACCURACIES = ("val/accuracy", "test/accuracy", "test/acc1", "test/miou", "test/last", "test/acc")
LOSSES = ("train/loss", "train/student_loss", "train/epoch_loss", "train/ce")
ROWS = 12
"""Rows of the table beside a chart."""


@dataclass(frozen=True)
class Chart:
    """One chart of a cell.

    Attributes:
        id: unique within the page.
        title, text: what it shows; the text says it in words, for those who cannot see it.
        svg: the picture.
        columns, rows: the same numbers, thinned.
        runs: ids of the runs shown.
    """

    id: str
    title: str
    text: str
    svg: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    runs: tuple[str, ...]


def paper_charts(runs: PaperRuns, root: Path) -> tuple[list[Chart], list[str]]:
    """Charts of every cell that has a run with a series, or a released log; and a warning per unreadable series."""
    logs = {log.cell: log for log in runs.subproject.logs}
    charts: list[Chart] = []
    warnings: list[str] = []
    for cell in runs.subproject.cells:
        records = [record for record in runs.records[cell.id] if record.finished]
        log = logs.get(cell.id)
        if log is not None:
            charts.append(_beside_authors(cell, log, records, runs.subproject.paper, root, warnings))
            continue
        for number, group in enumerate(_groups(records)):
            series = {record.run_id: _points(record, warnings) for record in group}
            for kind, names, unit in (("accuracy", ACCURACIES, "percent"), ("loss", LOSSES, "no unit")):
                name = next((name for name in names if any(name in points for points in series.values())), None)
                if name is not None:
                    charts.append(_chart(cell, f"{kind}-{number}", name, unit, group, series))
    charts.sort(key=lambda chart: not chart.id.endswith("-log"))  # beside the authors' logs first
    return charts, warnings


def _groups(records: Sequence[Record]) -> list[list[Record]]:
    """Runs of the same setting; full runs never share a chart with others."""
    groups: dict[tuple[object, ...], list[Record]] = {}
    for record in records:
        groups.setdefault((record.labels, json.dumps(record.changed, sort_keys=True)), []).append(record)
    return list(groups.values())


def _points(record: Record, warnings: list[str]) -> dict[str, list[tuple[float, float]]]:
    points: dict[str, list[tuple[float, float]]] = {}
    try:
        for entry in read_series(record):
            value = float(entry["value"])
            if math.isfinite(value):
                points.setdefault(str(entry["name"]), []).append((float(entry["step"]), value))
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
        warnings.append(f"left out: {record.series_path}: not a readable series ({type(error).__name__}: {error})")
    return points


def _chart(
    cell: Cell,
    kind: str,
    name: str,
    unit: str,
    records: Sequence[Record],
    series: dict[str, dict[str, list[tuple[float, float]]]],
) -> Chart:
    shown = [record for record in records if name in series[record.run_id]]
    lines = [Line(run_label(record), *_columns(series[record.run_id][name])) for record in shown]
    id = f"chart-{cell.id.replace('/', '-')}-{kind}"
    text = f"{name} of {cell.id} over optimiser steps, {len(lines)} runs. " + " ".join(map(_in_words, lines))
    svg = draw_lines(lines, "optimiser steps", f"{name} ({unit})", id, is_loss=kind.startswith("loss"))
    table = _table("step", lines)
    setting = "full runs" if shown[0].is_full else ", ".join(shown[0].labels) or "changed runs"
    return Chart(id, f"{cell.id}: {name} ({setting})", text, svg, *table, tuple(record.run_id for record in shown))


def _beside_authors(
    cell: Cell, log: AuthorsLog, records: Sequence[Record], paper: str, root: Path, warnings: list[str]
) -> Chart:
    authors = read_authors(log, paper, root)
    column = next(column for column, series in log.series.items() if series == VALIDATION)
    lines = [_over_epochs("authors' log", authors, authors, column, is_authors=True)]
    shown = []
    for record in records:
        try:
            labels = f" ({', '.join(record.labels)})" if record.labels else ""
            lines.append(_over_epochs(run_label(record) + labels, read_ours(log, record), authors, column))
            shown.append(record.run_id)
        except UserError as error:
            warnings.append(f"left out: {error}")
    starts = [_offset(authors, task) for task in authors.tasks]
    id = f"chart-{cell.id.replace('/', '-')}-log"
    state = f"{len(shown)} runs of ours" if shown else "no run of ours yet"
    text = f"Accuracy on the current task over the epochs of all tasks of {cell.id}; the authors' log and {state}. "
    svg = draw_lines(lines, "epochs over all tasks", "accuracy on the current task (percent)", id, starts[1:])
    table = _table("epoch", lines)
    return Chart(
        id, f"{cell.id}: ours over the authors' log ({state})", text + _in_words(lines[0]), svg, *table, (*shown,)
    )


def _over_epochs(label: str, log: Log, authors: Log, column: str, is_authors: bool = False) -> Line:
    points = [
        (_offset(authors, task) + epoch, value)
        for task in log.tasks
        for epoch, value in log.curve(task, column).items()
    ]
    return Line(label, *_columns(points), is_authors)


def _offset(log: Log, task: int) -> float:
    """Epochs before a task, in the authors' count."""
    return float(sum(len(log.epochs_of(other)) for other in log.tasks if other < task))


def _columns(points: Sequence[tuple[float, float]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return tuple(point[0] for point in points), tuple(point[1] for point in points)


def run_label(record: Record) -> str:
    """What a run is called in a legend."""
    return f"seed {record.content['seed']}"


def _in_words(line: Line) -> str:
    if not line.y:
        return f"{line.label}: empty."
    return (
        f"{line.label}: from {line.y[0]:.4g} to {line.y[-1]:.4g}, lowest {min(line.y):.4g}, highest {max(line.y):.4g}."
    )


def _table(first: str, lines: Sequence[Line]) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Column headings, and rows at places of the first line, the others' values at the same place."""
    places = list(dict.fromkeys(place for line in lines for place in line.x))
    places.sort()
    if len(places) > ROWS:
        places = [places[round(n * (len(places) - 1) / (ROWS - 1))] for n in range(ROWS)]
    values = [dict(zip(line.x, line.y, strict=True)) for line in lines]
    rows = tuple((f"{place:g}", *(f"{one[place]:.4g}" if place in one else "" for one in values)) for place in places)
    return (first, *(line.label for line in lines)), rows
