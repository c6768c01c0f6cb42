"""Published against own numbers, from CSV files and run records only.

Full runs (no label, nothing changed) are compared with the published values. All other runs stand in a section of
their own, grouped by what makes them differ, so that they never share a column or a mean with full runs.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro.formats import Link, Sheet
from repro.published import Published, PublishedTables
from repro.records import Record, load_records, number
from repro.registry import Cell, Metric, Subproject

NOT_RUN = "not run"
NOT_PUBLISHED = "not found"


@dataclass(frozen=True)
class Ours:
    """Our runs of one metric, all in the same setting.

    Attributes:
        values: one number per run.
        records: the runs' records, in the same order.
    """

    values: tuple[float, ...]
    records: tuple[Record, ...]

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.values) if self.values else None

    @property
    def std(self) -> float | None:
        """Sample standard deviation; None for fewer than two runs."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def __str__(self) -> str:
        if not self.values:
            return NOT_RUN
        spread = "" if self.std is None else f" ± {self.std:.2f}"
        return f"{self.mean:.2f}{spread} (n={len(self.values)})"


@dataclass(frozen=True)
class PaperRuns:
    """One paper's cells, with their published values and our runs.

    Attributes:
        subproject: the paper.
        published: (cell id, metric key) -> published values; more than one = contradicting sources.
        records: cell id -> records of that cell.
        warnings: one line per record that could not be used.
    """

    subproject: Subproject
    published: dict[tuple[str, str], list[Published]]
    records: dict[str, list[Record]]
    warnings: list[str]


def collect(subproject: Subproject, root: Path, extra_folders: Iterable[Path] = ()) -> PaperRuns:
    """Look up the published values of a paper and read all of its records.

    Args:
        subproject: the paper.
        root: repository root; committed records lie in <root>/results/<paper>/.
        extra_folders: more folders with records.

    Raises:
        UserError: if a published value cannot be found.
    """
    tables = PublishedTables(root)
    published = {
        (cell.id, metric.key): tables.values(
            subproject.paper, metric.published, f"cell {cell.id!r}, metric {metric.key!r}"
        )
        for cell in subproject.cells
        for metric in cell.metrics
    }
    records, warnings = load_records([root / "results" / subproject.paper, *extra_folders])
    by_cell: dict[str, list[Record]] = {cell.id: [] for cell in subproject.cells}
    for record in records:
        if record.content["paper"] != subproject.paper:
            if record.path.parent == root / "results" / subproject.paper:
                warnings.append(f"left out: {record.path}: it belongs to the paper {record.content['paper']!r}")
        elif record.cell in by_cell:
            by_cell[record.cell].append(record)
        elif record.cell is not None:
            warnings.append(f"left out: {record.path}: it names the cell {record.cell!r}, which does not exist")
    return PaperRuns(subproject, published, by_cell, warnings)


def full_runs(records: Iterable[Record], metric: Metric) -> Ours:
    """The full runs that state the metric; they alone may be compared with a published value."""
    return _select([record for record in records if record.is_full], metric)


def other_runs(records: Iterable[Record], metric: Metric) -> list[Ours]:
    """Finished runs that differ from the published setting; each group differs in the same way."""
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        if record.finished and not record.is_full:
            groups.setdefault((record.labels, json.dumps(record.changed, sort_keys=True)), []).append(record)
    selected = [_select(group, metric) for group in groups.values()]
    return [ours for ours in selected if ours.values]


def count_runs(records: Sequence[Record]) -> tuple[int, int]:
    """Numbers of (full, other) finished runs."""
    full = sum(record.is_full for record in records)
    return full, sum(record.finished for record in records) - full


def table_sheets(runs: PaperRuns, root: Path, cells: Sequence[Cell] | None = None) -> list[Sheet]:
    """The comparison of one paper: full runs against published values, then, apart from them, all other runs.

    Args:
        runs: what `collect` gathered.
        root: repository root; JSON names records relative to it.
        cells: the cells to show; None shows all.
    """
    subproject = runs.subproject
    full = Sheet(
        f"{subproject.paper}-full",
        f"{subproject.title}: published and ours, full runs",
        {
            "cell": "cell",
            "metric": "metric (last/best)",
            "published": "published",
            "ours": "ours: mean ± std (n)",
            "difference": "difference",
            "hours": "hours/run",
            "records": "records",
        },
        data=[],
    )
    other = Sheet(
        f"{subproject.paper}-other",
        f"{subproject.title}: shortened and other runs (not comparable)",
        {
            "cell": "cell",
            "metric": "metric (last/best)",
            "labels": "labels",
            "changed": "changed",
            "shortened": "result: mean ± std (n)",
            "hours": "hours/run",
            "records": "records",
        },
        data=[],
        note="These runs differ from the published setting in what their labels and changes say.",
    )
    for cell in subproject.cells if cells is None else cells:
        for metric in cell.metrics:
            published = runs.published[cell.id, metric.key]
            records = runs.records[cell.id]
            ours = full_runs(records, metric)
            if not cell.demo or ours.values:
                _add_full_row(full, cell, metric, published, ours, root)
            for group in other_runs(records, metric):
                _add_other_row(other, cell, metric, group, root)
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


def published_text(published: Sequence[Published]) -> str:
    """The value, or all of them with their sources where the sources contradict each other."""
    if len(published) == 1:
        return published[0].text
    return " / ".join(f"{value.text} ({', '.join(value.sources)})" for value in published)


def _select(records: Sequence[Record], metric: Metric) -> Ours:
    pairs = [(number(record.metrics, metric.key), record) for record in records]
    pairs = [(value, record) for value, record in pairs if value is not None]
    return Ours(tuple(value for value, _ in pairs), tuple(record for _, record in pairs))


def _add_full_row(sheet: Sheet, cell: Cell, metric: Metric, published: list[Published], ours: Ours, root: Path) -> None:
    differences = [] if ours.mean is None else [ours.mean - value.value for value in published]
    source = "" if len(published) != 1 else f" ({', '.join(published[0].sources)})"
    sheet.rows.append(
        {
            "cell": cell.id,
            "metric": f"{metric.name} ({metric.select})",
            "published": published_text(published) + source if published else NOT_PUBLISHED,
            "ours": str(ours),
            "difference": " / ".join(f"{difference:+.2f}" for difference in differences),
            "hours": _hours(ours),
            "records": _links(ours),
        }
    )
    sheet.data.append(
        {**_data(cell, metric, ours, root), "published": _published_data(published), "difference": differences}
    )


def _add_other_row(sheet: Sheet, cell: Cell, metric: Metric, ours: Ours, root: Path) -> None:
    record = ours.records[0]
    sheet.rows.append(
        {
            "cell": cell.id,
            "metric": f"{metric.name} ({metric.select})",
            "labels": ", ".join(record.labels) or "none",
            "changed": ", ".join(f"{flag} {_change(pair)}" for flag, pair in sorted(record.changed.items())),
            "shortened": str(ours),
            "hours": _hours(ours),
            "records": _links(ours),
        }
    )
    sheet.data.append({**_data(cell, metric, ours, root), "labels": list(record.labels), "changed": record.changed})


def _change(pair: Any) -> str:
    return f"{pair[0]} → {pair[1]}" if isinstance(pair, list) and len(pair) == 2 else str(pair)


def _hours(ours: Ours) -> str:
    if not ours.records:
        return ""
    hours = statistics.fmean(record.content["wall_seconds"] for record in ours.records) / 3600
    devices = dict.fromkeys(str(record.content["hardware"].get("device", "?")) for record in ours.records)
    return f"{hours:.2f} ({', '.join(devices)})"


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
