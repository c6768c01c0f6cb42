"""Run records side by side: accuracy matrices, averages, learning curves, and checks of their differences."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.columns import Columns
from rich.console import Console
from rich.table import Table

from common.training.errors import UserError
from common.training.files import write_atomically
from repro.records import Record, derive_averages, number, read_series

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AVERAGES = {"acc": "ACC (%)", "bwt": "BWT (points)"}
LOSS_SERIES = "train/loss"
_EXPECTATION = re.compile(r"(?P<metric>[A-Za-z_]\w*)=(?P<points>[+-]?\d+(\.\d+)?)")


def record_names(records: Sequence[Record]) -> list[str]:
    """A short, unambiguous name per record: the method, with seed or run id where methods repeat."""
    methods = Counter(record.method for record in records)
    with_seed = Counter((record.method, record.content["seed"]) for record in records)
    names = []
    for record in records:
        seed = record.content["seed"]
        if methods[record.method] == 1:
            names.append(record.method)
        elif with_seed[record.method, seed] == 1:
            names.append(f"{record.method}, seed {seed}")
        else:
            names.append(f"{record.method}, {record.run_id}")
    return names


def print_comparison(records: Sequence[Record], console: Console) -> None:
    """Accuracy matrices side by side, then the averages and the first record's lead over each other one."""
    names = record_names(records)
    matrices = [_matrix_table(record, name) for record, name in zip(records, names, strict=True)]
    console.print(Columns(matrices, padding=(0, 4)))
    table = Table(title="Averages after the last task", title_justify="left")
    table.add_column("run")
    for heading in AVERAGES.values():
        table.add_column(heading, justify="right")
        table.add_column(f"{names[0]} leads by", justify="right")
    table.add_column("labels")
    for position, (record, name) in enumerate(zip(records, names, strict=True)):
        cells = [name]
        for metric in AVERAGES:
            first, own = number(records[0].metrics, metric), number(record.metrics, metric)
            cells.append("" if own is None else f"{own:.2f}")
            cells.append("" if position == 0 or own is None or first is None else f"{first - own:+.2f}")
        table.add_row(*cells, ", ".join(record.labels))
    console.print(table)


def check_expectations(records: Sequence[Record], expectations: Sequence[str]) -> list[tuple[str, bool]]:
    """Check "METRIC=POINTS": the first record's metric exceeds the second's by at least so many points.

    Returns:
        One sentence per expectation, and whether it holds.

    Raises:
        UserError: for an expectation that cannot be read, fewer than two records, or a metric that a record lacks.
    """
    results = []
    for text in expectations:
        match = _EXPECTATION.fullmatch(text.strip())
        if match is None:
            raise UserError(f"cannot read the expectation {text!r}; write METRIC=POINTS, e.g. acc=8")
        if len(records) < 2:
            raise UserError("an expectation compares the first record with the second; give two records")
        metric, points = match["metric"], float(match["points"])
        values = [number(record.metrics, metric) for record in records[:2]]
        for record, value in zip(records, values, strict=False):
            if value is None:
                raise UserError(f"{record.path}: no number called {metric!r}; it has {', '.join(record.metrics)}")
        lead = values[0] - values[1]
        first, second = record_names(records)[:2]
        holds = lead >= points
        verdict = "as expected" if holds else "NOT as expected"
        results.append(
            (f"{metric}: {first} leads {second} by {lead:+.2f} points, {verdict} (at least {points:g})", holds)
        )
    return results


def write_plots(records: Sequence[Record], folder: Path) -> list[Path]:
    """Write the learning curves as PNG files.

    Args:
        records: runs to draw together.
        folder: is made if need be.

    Returns:
        The files: average accuracy over tasks, accuracy of every task, training loss; without the last one if no
        run has a series of it.
    """
    names = record_names(records)
    figures = {
        "accuracy_over_tasks.png": _average_figure(records, names),
        "accuracy_per_task.png": _task_figure(records, names),
        "training_loss.png": _loss_figure(records, names),
    }
    files = []
    for name, figure in figures.items():
        if figure is not None:
            write_atomically(folder / name, partial(figure.savefig, format="png", dpi=120))
            files.append(folder / name)
    return files


def _matrix(record: Record) -> list[list[float | None]]:
    matrix = record.metrics.get("accuracy_matrix")
    if not matrix:
        raise UserError(f"{record.path}: it has no accuracy_matrix, so it cannot be compared task by task")
    return matrix


def _matrix_table(record: Record, name: str) -> Table:
    matrix = _matrix(record)
    table = Table(title=f"{name}: test accuracy (%)", title_justify="left")
    table.add_column("after task", justify="right")
    for task in range(1, len(matrix) + 1):
        table.add_column(f"task {task}", justify="right")
    for task, row in enumerate(matrix, start=1):
        table.add_row(str(task), *("" if value is None else f"{value:.1f}" for value in row))
    return table


def _average_figure(records: Sequence[Record], names: Sequence[str]) -> Figure:
    figure = _new_figure(6.4, 4.2)
    axes = figure.add_subplot()
    for record, name in zip(records, names, strict=True):
        matrix = _matrix(record)
        history = [derive_averages(matrix[:task])["acc"] for task in range(1, len(matrix) + 1)]
        axes.plot(range(1, len(history) + 1), history, marker="o", label=name)
    axes.set_title("Average test accuracy over the tasks learned so far")
    _label_axes(axes, "tasks learned", "average accuracy (%)")
    _integer_ticks(axes)
    axes.legend()
    return figure


def _task_figure(records: Sequence[Record], names: Sequence[str]) -> Figure:
    figure = _new_figure(4.8 * len(records), 4.2)
    shared = None
    for position, (record, name) in enumerate(zip(records, names, strict=True), start=1):
        axes = shared = figure.add_subplot(1, len(records), position, sharey=shared)
        matrix = _matrix(record)
        for task in range(len(matrix)):
            rows = range(task, len(matrix))
            axes.plot(
                [row + 1 for row in rows], [matrix[row][task] for row in rows], marker="o", label=f"task {task + 1}"
            )
        axes.set_title(name)
        _label_axes(axes, "tasks learned", "test accuracy (%)")
        _integer_ticks(axes)
        axes.legend(fontsize="small", ncols=1 + len(matrix) // 6)
    figure.suptitle("Test accuracy of every task after each further task")
    return figure


def _loss_figure(records: Sequence[Record], names: Sequence[str]) -> Figure | None:
    figure = _new_figure(7.2, 4.2)
    axes = figure.add_subplot()
    for record, name in zip(records, names, strict=True):
        try:
            entries = [entry for entry in read_series(record) if entry["name"] == LOSS_SERIES]
            points = [(float(entry["step"]), float(entry["value"])) for entry in entries]
        except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{record.series_path}: not a readable series ({type(error).__name__}: {error})") from error
        if points:
            axes.plot(*zip(*points, strict=True), linewidth=1, alpha=0.8, label=name)
    if not axes.lines:
        return None
    axes.set_title("Training loss")
    _label_axes(axes, "optimiser steps over the whole run", "loss (no unit)")
    if all(min(line.get_ydata()) > 0 for line in axes.lines):
        axes.set_yscale("log")
    axes.legend()
    return figure


def _new_figure(width: float, height: float) -> Figure:
    """A figure that needs no screen and no global plotting state (sizes in inches)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _label_axes(axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)


def _integer_ticks(axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
