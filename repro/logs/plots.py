"""Pictures of a comparison with the authors' log, ours drawn over theirs."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from common.training.files import write_atomically
from repro.logs.comparing import RunComparison
from repro.logs.reading import VALIDATION
from repro.logs.sheets import describe_run, shown_columns

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINEAR_BELOW = 0.1
"""Losses that turn negative are drawn on a logarithmic axis that is linear up to this distance from 0."""


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
