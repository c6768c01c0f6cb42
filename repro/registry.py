"""The table cells of every paper, read from the subprojects' `experiments.toml`.

This is all that `repro` knows of a subproject: which cells it has, which script answers a cell, which published rows
belong to it, and the names of the modules that hold its parity adapters and its view of the authors' logs.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from common.training.errors import UserError
from repro.cells import SELECTIONS, AuthorsLog, Cell, Metric, PublishedRef, Subproject
from repro.toml_tables import CheckedTable, read_toml

__all__ = ["AuthorsLog", "Cell", "Metric", "PublishedRef", "Subproject"]

ROOT_VARIABLE = "REPRO_ROOT"
"""Environment variable that replaces the repository root (tests, or an installed package outside its repository)."""


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
    chosen = [one for one in subprojects if paper is None or paper in (one.paper, *one.aliases)]
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
    content = read_toml(path, shown)
    top = CheckedTable(content, f"{shown}", {"subproject": dict, "cell": list, "log": list})
    texts = dict.fromkeys(("paper", "title", "parity", "fixtures", "logs", "finding"), str)
    types = {**texts, "aliases": list, "distributed": bool}
    head = CheckedTable(top.get("subproject"), f"{shown} [subproject]", types)
    paper = head.get("paper")
    is_distributed = head.get("distributed", False)
    cells = tuple(_read_cell(entry, shown, paper, is_distributed) for entry in top.get("cell", []))
    logs = tuple(_read_log(entry, shown, cells) for entry in top.get("log", []))
    if len({log.cell for log in logs}) < len(logs):
        raise UserError(f"{shown}: two logs name the same cell; a cell has one released log")
    return Subproject(
        paper,
        head.get("title"),
        head.get("parity"),
        head.get("fixtures"),
        cells,
        logs,
        tuple(head.get("aliases", [])),
        head.get("logs", ""),
        shown.parent.as_posix(),
        head.get("finding", ""),
    )


def _read_cell(entry: Any, shown: Path, paper: str, is_distributed: bool = False) -> Cell:
    name = entry.get("id", "without id") if isinstance(entry, dict) else "?"
    place = f"{shown}, cell {name!r}"
    number = (int, float)
    table = CheckedTable(
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
            "memory_gib": number,
            "distributed": bool,
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
        memory_gib=table.get("memory_gib", None),
        distributed=table.get("distributed", is_distributed),
        demo=table.get("demo", False),
        status=table.get("status", ""),
    )


def _read_metric(entry: Any, place: str) -> Metric:
    place = f"{place}, metric {entry.get('key', 'without key')!r}" if isinstance(entry, dict) else f"{place}, metric"
    names = dict.fromkeys(("key", "name", "definition", "select"), str)
    table = CheckedTable(entry, place, {**names, "published": list, "logged": list})
    key, select = table.get("key"), table.get("select")
    if select not in SELECTIONS:
        raise UserError(f"{place}: select is {select!r}; expected one of {', '.join(SELECTIONS)}")
    if (select == "best") != key.startswith("best_"):
        raise UserError(f"{place}: select is {select!r}; the keys of best values, and only those, start with 'best_'")
    published, logged = (_read_references(table, key, place) for key in ("published", "logged"))
    return Metric(key, table.get("name"), table.get("definition"), select, published, logged)


def _read_references(metric: CheckedTable, kind: str, place: str) -> tuple[PublishedRef, ...]:
    references = []
    for entry in metric.get(kind, []):
        reference = CheckedTable(entry, f"{place}, {kind}", {"file": str, "where": dict, "column": str})
        where = {column: str(value) for column, value in reference.get("where").items()}
        if not where:
            raise UserError(f"{place}: a {kind} value needs at least one condition in `where`")
        references.append(PublishedRef(reference.get("file"), where, reference.get("column", "value")))
    return tuple(references)


def _read_log(entry: Any, shown: Path, cells: tuple[Cell, ...]) -> AuthorsLog:
    place = f"{shown}, log of {entry.get('cell', 'no cell')!r}" if isinstance(entry, dict) else f"{shown}, log"
    names = dict.fromkeys(("cell", "epochs", "iterations", "matrix", "average"), str)
    table = CheckedTable(entry, place, {**names, "series": dict, "exact": list})
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
