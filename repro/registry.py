"""The table cells of every paper, read from the subprojects' `experiments.toml`.

This is all that `repro` knows of a subproject: which cells it has, which script answers a cell, which published rows
belong to it, and the name of the module that holds its parity adapters.
"""

from __future__ import annotations

import fnmatch
import os
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.training.errors import UserError

ROOT_VARIABLE = "REPRO_ROOT"
"""Environment variable that replaces the repository root (tests, or an installed package outside its repository)."""

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
    """

    key: str
    name: str
    definition: str
    select: str
    published: tuple[PublishedRef, ...] = ()


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
    """A paper's folder: its cells, the module with its parity adapters, and the logs that its authors released."""

    paper: str
    title: str
    parity: str
    fixtures: str
    cells: tuple[Cell, ...] = field(default=())
    logs: tuple[AuthorsLog, ...] = ()


def repository_root() -> Path:
    """The folder that holds `repro/`, unless the environment variable REPRO_ROOT names another one."""
    given = os.environ.get(ROOT_VARIABLE)
    return Path(given).resolve() if given else Path(__file__).resolve().parent.parent


def read_registry(root: Path) -> list[Subproject]:
    """Read every `<root>/*/experiments.toml`, in the order of the folders' names.

    Raises:
        UserError: for a file that is no TOML, a missing, unknown or ill-typed key (naming file and cell), a paper or
            cell id that occurs twice.
    """
    subprojects: list[Subproject] = []
    cell_files: dict[str, Path] = {}
    for path in sorted(root.glob("*/experiments.toml")):
        subproject = _read_subproject(path, path.relative_to(root))
        if any(other.paper == subproject.paper for other in subprojects):
            raise UserError(
                f"{path.relative_to(root)}: paper {subproject.paper!r} is described twice; give it one experiments.toml"
            )
        for cell in subproject.cells:
            if cell.id in cell_files:
                raise UserError(
                    f"{path.relative_to(root)}: cell {cell.id!r} occurs twice (also in {cell_files[cell.id]}); "
                    "cell ids must differ"
                )
            cell_files[cell.id] = path.relative_to(root)
        subprojects.append(subproject)
    return subprojects


def select_papers(subprojects: Iterable[Subproject], paper: str | None) -> list[Subproject]:
    """The named paper, or all of them.

    Raises:
        UserError: if no subproject reproduces the paper, naming those that exist.
    """
    subprojects = list(subprojects)
    chosen = [subproject for subproject in subprojects if paper in (None, subproject.paper)]
    if paper is not None and not chosen:
        known = ", ".join(subproject.paper for subproject in subprojects) or "none (no */experiments.toml found)"
        raise UserError(f"unknown paper {paper!r}; known: {known}")
    return chosen


def select_cells(subprojects: Iterable[Subproject], patterns: Iterable[str]) -> list[Cell]:
    """Cells by id or shell pattern ("vdfd/ti-*"), each once, in the order of the patterns.

    "<paper>-<beginning>" stands for "<paper>/<beginning>-*": `repro run cudfkd-desk` runs a whole bench.

    Raises:
        UserError: for a pattern that matches no cell.
    """
    cells = [cell for subproject in subprojects for cell in subproject.cells]
    chosen: dict[str, Cell] = {}
    for pattern in patterns:
        matches = [cell for cell in cells if fnmatch.fnmatchcase(cell.id, pattern)]
        if not matches and "/" not in pattern:
            beginning = pattern.replace("-", "/", 1)
            matches = [cell for cell in cells if cell.id.startswith(f"{beginning}-")]
        if not matches:
            raise UserError(f"no cell matches {pattern!r}; `repro list` shows the {len(cells)} cells there are")
        chosen.update((cell.id, cell) for cell in matches)
    return list(chosen.values())


# --- reading one file -------------------------------------------------------------------------------------------------


def _read_subproject(path: Path, shown: Path) -> Subproject:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{shown}: not valid TOML ({error})") from error
    top = _Table(content, f"{shown}", {"subproject": dict, "cell": list, "log": list})
    head = _Table(
        top.get("subproject"), f"{shown} [subproject]", {"paper": str, "title": str, "parity": str, "fixtures": str}
    )
    paper = head.get("paper")
    cells = tuple(_read_cell(entry, shown, paper) for entry in top.get("cell", []))
    logs = tuple(_read_log(entry, shown, cells) for entry in top.get("log", []))
    if len({log.cell for log in logs}) < len(logs):
        raise UserError(f"{shown}: two logs name the same cell; a cell has one released log")
    return Subproject(paper, head.get("title"), head.get("parity"), head.get("fixtures"), cells, logs)


def _read_cell(entry: Any, shown: Path, paper: str) -> Cell:
    name = entry.get("id", "without id") if isinstance(entry, dict) else "?"
    place = f"{shown}, cell {name!r}"
    number = (int, float)
    table = _Table(
        entry,
        place,
        {
            "id": str,
            "directory": str,
            "script": str,
            "row": str,
            "title": str,
            "cost_hours": number,
            "cost_hardware": str,
            "demo": bool,
            "status": str,
            "metric": list,
        },
    )
    if not table.get("id").startswith(f"{paper}/"):
        raise UserError(f"{place}: a cell's id starts with its paper, here {paper + '/'!r}")
    metrics = tuple(_read_metric(metric, place) for metric in table.get("metric", []))
    keys = [metric.key for metric in metrics]
    if len(set(keys)) < len(keys):
        raise UserError(f"{place}: two metrics have the same key ({', '.join(keys)})")
    if table.get("demo", False) and any(metric.published for metric in metrics):
        raise UserError(f"{place}: a demonstration (demo = true) cannot answer published values")
    return Cell(
        id=table.get("id"),
        directory=table.get("directory"),
        script=table.get("script"),
        row=table.get("row"),
        title=table.get("title"),
        metrics=metrics,
        cost_hours=table.get("cost_hours", None),
        cost_hardware=table.get("cost_hardware", ""),
        demo=table.get("demo", False),
        status=table.get("status", ""),
    )


def _read_metric(entry: Any, place: str) -> Metric:
    place = f"{place}, metric {entry.get('key', 'without key')!r}" if isinstance(entry, dict) else f"{place}, metric"
    table = _Table(entry, place, {"key": str, "name": str, "definition": str, "select": str, "published": list})
    key, select = table.get("key"), table.get("select")
    if select not in SELECTIONS:
        raise UserError(f"{place}: select is {select!r}; expected one of {', '.join(SELECTIONS)}")
    if (select == "best") != key.startswith("best_"):
        raise UserError(f"{place}: select is {select!r}; the keys of best values, and only those, start with 'best_'")
    published = []
    for ref in table.get("published", []):
        reference = _Table(ref, f"{place}, published", {"file": str, "where": dict, "column": str})
        where = {column: str(value) for column, value in reference.get("where").items()}
        if not where:
            raise UserError(f"{place}: a published value needs at least one condition in `where`")
        published.append(PublishedRef(reference.get("file"), where, reference.get("column", "value")))
    return Metric(key, table.get("name"), table.get("definition"), select, tuple(published))


def _read_log(entry: Any, shown: Path, cells: tuple[Cell, ...]) -> AuthorsLog:
    place = f"{shown}, log of {entry.get('cell', 'no cell')!r}" if isinstance(entry, dict) else f"{shown}, log"
    names = dict.fromkeys(("cell", "epochs", "iterations", "matrix", "average"), str)
    table = _Table(entry, place, {**names, "series": dict, "exact": list})
    if all(cell.id != table.get("cell") for cell in cells):
        raise UserError(f"{place}: there is no such cell; a log belongs to one of this file's cells")
    series = {column: str(name) for column, name in table.get("series").items()}
    iterations, exact = table.get("iterations", ""), tuple(table.get("exact", []))
    known = [*series, *([iterations] if iterations else []), "epoch"]
    unknown = [column for column in exact if column not in known]
    if unknown:
        raise UserError(f"{place}: exact names {unknown[0]!r}, which nothing answers; known: {', '.join(known)}")
    return AuthorsLog(
        table.get("cell"),
        table.get("epochs"),
        series,
        iterations,
        exact,
        table.get("matrix", ""),
        table.get("average", ""),
    )


_REQUIRED = object()


class _Table:
    """A TOML table with known keys: an unknown, missing or ill-typed key is an error that names its place."""

    def __init__(self, content: Any, place: str, types: dict[str, Any]):
        if not isinstance(content, dict):
            raise UserError(f"{place}: expected a table, found {type(content).__name__}")
        unknown = sorted(set(content) - set(types))
        if unknown:
            raise UserError(f"{place}: unknown key {', '.join(unknown)}; known: {', '.join(types)}")
        for key, value in content.items():
            if not isinstance(value, types[key]) or (isinstance(value, bool) and types[key] is not bool):
                raise UserError(f"{place}: {key} = {value!r} has the wrong type ({type(value).__name__})")
        self.content, self.place = content, place

    def get(self, key: str, default: Any = _REQUIRED) -> Any:
        if key not in self.content and default is _REQUIRED:
            raise UserError(f"{self.place}: {key} is missing")
        return self.content.get(key, default)
