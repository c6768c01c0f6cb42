"""What the audit desk knows of a paper: cells, metrics, references to published values, released logs."""

from __future__ import annotations

from dataclasses import dataclass, field

SELECTIONS = ("last", "best")


@dataclass(frozen=True)
class PublishedRef:
    """Rows of one CSV file below repro/paper/<paper>/ that state a metric.

    Attributes:
        file: name of the CSV file.
        where: column -> value; every one must match exactly, as text.
        column: column that holds the number.
    """

    file: str
    where: dict[str, str]
    column: str = "value"

    def __str__(self) -> str:
        return f"{self.file} where " + ", ".join(f"{key}={value!r}" for key, value in self.where.items())


@dataclass(frozen=True)
class Metric:
    """One number of a cell.

    Attributes:
        key: name in a run record's `metrics`.
        name: heading in tables.
        definition: how it is computed, with its unit.
        select: "last" (value after the last step) or "best" (best value seen; its key starts with `best_`).
        published: where its published values stand; empty where none is known.
        logged: where the authors' released log states it; empty where there is none.
    """

    key: str
    name: str
    definition: str
    select: str
    published: tuple[PublishedRef, ...] = ()
    logged: tuple[PublishedRef, ...] = ()


@dataclass(frozen=True)
class Cell:
    """One cell of a published table (or a demonstration), and the script row that computes it.

    Attributes:
        id: "<paper>/<name>".
        directory: folder of the script, relative to the repository root.
        script, row: `sh <script> <row>` runs it, in `directory`.
        title: one line for people.
        metrics: the numbers that it gives.
        cost_hours, cost_hardware: estimate for one full run; None where unknown.
        memory_gib: main memory that a run needs; None where unknown.
        distributed: whether `--launcher torchrun` may give it several processes.
        demo: a demonstration; it has no published value.
        status: a note such as "not yet"; empty for a cell that can be run.
    """

    id: str
    directory: str
    script: str
    row: str
    title: str
    metrics: tuple[Metric, ...]
    cost_hours: float | None = None
    cost_hardware: str = ""
    memory_gib: float | None = None
    distributed: bool = False
    demo: bool = False
    status: str = ""

    @property
    def command(self) -> str:
        """What a person types to run it, from the repository root."""
        return f"cd {self.directory} && sh {self.script} {self.row}"


@dataclass(frozen=True)
class AuthorsLog:
    """The log that the authors released of a cell's run, and which series of ours answers which of its columns.

    Attributes:
        cell: id of the cell.
        epochs: CSV file below repro/paper/<paper>/, one row per "task" (from 1) and "epoch" (from 0).
        series: column of that file -> name of our series.
        iterations: its column with the optimiser steps of each epoch; empty where there is none.
        exact: columns that must agree entry by entry; "epoch" stands for the number of epochs of each task.
        matrix: CSV file with "after_task", "eval_task", "acc" (percent); empty where there is none.
        average: CSV file with "after_task", "avg_acc_seen_classes" (percent); empty where there is none.
    """

    cell: str
    epochs: str
    series: dict[str, str]
    iterations: str = ""
    exact: tuple[str, ...] = ()
    matrix: str = ""
    average: str = ""


@dataclass(frozen=True)
class Subproject:
    """A paper's folder, as far as the audit desk knows it.

    Attributes:
        paper: short name; cells are "<paper>/<name>".
        title: one line for people.
        parity: module with its parity adapters.
        fixtures: folder of its recorded numbers, relative to the repository root.
        cells: rows of its tables.
        logs: logs that its authors released, in the common form.
        aliases: other names of the paper on the command line.
        log_view: "module:function" that sets logs of another form beside our runs; empty where there is none.
        folder: its folder, relative to the repository root.
        finding: what a reader of its tables has to know about the released code, with the test that shows it.
    """

    paper: str
    title: str
    parity: str
    fixtures: str
    cells: tuple[Cell, ...] = field(default=())
    logs: tuple[AuthorsLog, ...] = ()
    aliases: tuple[str, ...] = ()
    log_view: str = ""
    folder: str = ""
    finding: str = ""
