"""The tables that people see: every cell with its published values and runs, from what `repro.tables` gathered."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from repro.formats import Link, Sheet
from repro.published import Published
from repro.registry import Cell, Metric
from repro.status import RULE, status_of
from repro.tables import Ours, PaperRuns, count_runs, full_runs, other_runs, published_text

NOT_PUBLISHED = "not found"

FULL_COLUMNS = {
    "cell": "cell",
    "metric": "metric",
    "published": "published",
    "logged": "authors' log",
    "ours": "ours: mean ± std (n)",
    "select": "last/best",
    "difference": "difference",
    "hours": "hours/run, hardware",
    "records": "records",
    "status": "status",
}
OTHER_COLUMNS = {
    "cell": "cell",
    "metric": "metric",
    "labels": "labels",
    "changed": "changed",
    "shortened": "result: mean ± std (n)",
    "select": "last/best",
    "hours": "hours/run, hardware",
    "records": "records",
}


def table_sheets(runs: PaperRuns, root: Path, cells: Sequence[Cell] | None = None) -> list[Sheet]:
    """The comparison of one paper: full runs against published values, then, apart from them, all other runs.

    Args:
        runs: what `collect` gathered.
        root: repository root; JSON names records relative to it.
        cells: the cells to show; None shows all.
    """
    subproject = runs.subproject
    title = f"{subproject.title}: published and ours, full runs"
    full = Sheet(f"{subproject.paper}-full", title, FULL_COLUMNS, data=[])
    title = f"{subproject.title}: desk-scale, shortened and other runs (not comparable)"
    note = "These runs differ from the published setting in what their labels and changes say."
    other = Sheet(f"{subproject.paper}-other", title, OTHER_COLUMNS, data=[], note=note)
    for cell in subproject.cells if cells is None else cells:
        for metric in cell.metrics:
            records = runs.records[cell.id]
            ours = full_runs(records, metric)
            if not cell.demo or ours.values:
                _add_full_row(full, runs, cell, metric, ours, root)
            for group in other_runs(records, metric):
                _add_other_row(other, cell, metric, group, root)
    full.note = RULE if any(row["ours"] != "not run" for row in full.rows) else ""
    for sheet in (full, other):
        sheet.note = " ".join(part for part in (sheet.note, subproject.finding) if part)
    return [sheet for sheet in (full, other) if sheet.rows]


def list_sheet(runs: PaperRuns, missing_only: bool = False) -> Sheet:
    """Every cell: id, title, command, published values, numbers of our runs.

    Args:
        runs: what `collect` gathered.
        missing_only: show only cells without a full run.
    """
    subproject = runs.subproject
    sheet = Sheet(
        subproject.paper,
        f"{subproject.title} ({subproject.paper})",
        {
            "cell": "cell",
            "title": "title",
            "command": "command",
            "published": "published",
            "full": "full runs",
            "other": "other runs",
            "cost": "cost of a run",
        },
        data=[],
    )
    for cell in subproject.cells:
        full, other = count_runs(runs.records[cell.id])
        if missing_only and (full or cell.demo):
            continue
        values = {metric.name: runs.published[cell.id, metric.key] for metric in cell.metrics}
        shown = "; ".join(f"{name} {published_text(found)}" for name, found in values.items() if found)
        hours = "" if cell.cost_hours is None else f"about {cell.cost_hours:g} h"
        sheet.rows.append(
            {
                "cell": cell.id,
                "title": cell.title + (f" ({cell.status})" if cell.status else ""),
                "command": cell.command,
                "published": "demonstration" if cell.demo else shown or NOT_PUBLISHED,
                "full": str(full),
                "other": str(other),
                "cost": ", ".join(part for part in (hours, cell.cost_hardware) if part),
            }
        )
        sheet.data.append(
            {
                "cell": cell.id,
                "title": cell.title,
                "command": cell.command,
                "demo": cell.demo,
                "status": cell.status,
                "published": {name: _published_data(found) for name, found in values.items()},
                "full_runs": full,
                "other_runs": other,
                "cost_hours": cell.cost_hours,
                "cost_hardware": cell.cost_hardware,
            }
        )
    return sheet


def _add_full_row(sheet: Sheet, runs: PaperRuns, cell: Cell, metric: Metric, ours: Ours, root: Path) -> None:
    published, logged = runs.published[cell.id, metric.key], runs.logged[cell.id, metric.key]
    differences = [] if ours.mean is None else [ours.mean - value.value for value in published]
    status = status_of(ours.values, published)
    sheet.rows.append(
        {
            "cell": cell.id,
            "metric": metric.name,
            "published": _with_source(published) if published else NOT_PUBLISHED,
            "logged": _with_source(logged),
            "ours": str(ours),
            "select": metric.select,
            "difference": " / ".join(f"{difference:+.2f}" for difference in differences),
            "hours": _hours(ours),
            "records": _links(ours),
            "status": status,
        }
    )
    sheet.data.append(
        {
            **_data(cell, metric, ours, root),
            "published": _published_data(published),
            "authors_log": _published_data(logged),
            "difference": differences,
            "status": status,
        }
    )


def _add_other_row(sheet: Sheet, cell: Cell, metric: Metric, ours: Ours, root: Path) -> None:
    record = ours.records[0]
    sheet.rows.append(
        {
            "cell": cell.id,
            "metric": metric.name,
            "labels": ", ".join(record.labels) or "none",
            "changed": ", ".join(f"{flag} {_change(pair)}" for flag, pair in sorted(record.changed.items())),
            "shortened": str(ours),
            "select": metric.select,
            "hours": _hours(ours),
            "records": _links(ours),
        }
    )
    sheet.data.append({**_data(cell, metric, ours, root), "labels": list(record.labels), "changed": record.changed})


def _with_source(published: Sequence[Published]) -> str:
    source = f" ({', '.join(published[0].sources)})" if len(published) == 1 else ""
    return published_text(published) + source


def _change(pair: Any) -> str:
    return f"{pair[0]} → {pair[1]}" if isinstance(pair, list) and len(pair) == 2 else str(pair)


def _hours(ours: Ours) -> str:
    if not ours.records:
        return ""
    hours = statistics.fmean(record.content["wall_seconds"] for record in ours.records) / 3600
    hardware = [record.content["hardware"] for record in ours.records]
    names = dict.fromkeys(str(one.get("name") or one.get("device", "?")) for one in hardware)
    return f"{hours:.2f}, {', '.join(names)}"


def _links(ours: Ours) -> tuple[Link, ...]:
    return tuple(
        Link(f"seed {record.content['seed']}" + (", uncommitted code" if record.content["dirty"] else ""), record.path)
        for record in ours.records
    )


def _data(cell: Cell, metric: Metric, ours: Ours, root: Path) -> dict[str, Any]:
    return {
        "cell": cell.id,
        "metric": metric.key,
        "select": metric.select,
        "mean": ours.mean,
        "std": ours.std,
        "n": len(ours.values),
        "values": list(ours.values),
        "runs": [record.run_id for record in ours.records],
        "records": [Path(os.path.relpath(record.path, root)).as_posix() for record in ours.records],
    }


def _published_data(published: Sequence[Published]) -> list[dict[str, Any]]:
    return [{"value": value.value, "text": value.text, "sources": list(value.sources)} for value in published]
