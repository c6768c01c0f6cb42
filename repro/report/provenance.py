"""Where every number of the page comes from: cells with their sources, runs with their commands, accuracy matrices."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.training.errors import UserError
from repro.logs.reading import read_authors
from repro.records import Record
from repro.tables import PaperRuns


def anchor(kind: str, name: str) -> str:
    """Name of a place on the page."""
    return f"{kind}-{re.sub(r'[^A-Za-z0-9_-]+', '-', name)}"


def target_of(record: Record) -> str:
    """What links to a run are named by: its kept record, or the folder of the run."""
    return record.path.stem if record.path.name != "record.json" else record.path.parent.as_posix()


def cell_entries(runs: PaperRuns, root: Path) -> list[dict[str, Any]]:
    """Per cell: command, metrics with their definitions, published values with the places where they stand."""
    entries = []
    for cell in runs.subproject.cells:
        metrics = []
        for metric in cell.metrics:
            sources = [
                {"kind": kind, "tables": ", ".join(one.sources), "value": one}
                for kind, found in (("published", runs.published), ("authors' log", runs.logged))
                for one in found[cell.id, metric.key]
            ]
            metrics.append(
                {"name": metric.name, "definition": metric.definition, "select": metric.select, "sources": sources}
            )
        hours = "" if cell.cost_hours is None else f"about {cell.cost_hours:g} h"
        entries.append(
            {
                "anchor": anchor("cell", cell.id),
                "id": cell.id,
                "title": cell.title,
                "command": cell.command,
                "cost": ", ".join(part for part in (hours, cell.cost_hardware) if part) or "not estimated",
                "status": cell.status,
                "metrics": metrics,
            }
        )
    return entries


def run_entries(records: Sequence[Record], root: Path) -> list[dict[str, Any]]:
    """Per run: everything that its record says about where its numbers come from."""
    entries = []
    for record in records:
        content = record.content
        changed = [f"{flag}: {_shown(pair)}" for flag, pair in sorted(record.changed.items())]
        data, peak = content["data"], content.get("peak_memory_gib")
        dirty = ", with uncommitted changes" if content["dirty"] else ""
        facts = {
            "cell": content["cell"],
            "command": shlex.join(map(str, content["command"])),
            "changed from the published row": "; ".join(changed) or "nothing",
            "labels": ", ".join(record.labels) or "none: the full published setting",
            "seed": content["seed"],
            "code": f"commit {content['commit'] or 'unknown'}{dirty}",
            "data": f"{data.get('name', '?')}, {data.get('copy', '?')} copy, sha256 {data.get('sha256', '?')}",
            "hardware": ", ".join(f"{key} {value}" for key, value in content["hardware"].items()),
            "software": ", ".join(f"{key} {value}" for key, value in content["versions"].items()),
            "numerics": ", ".join(f"{key} {value}" for key, value in content["numerics"].items()),
            "started": content["started"],
            "wall time": f"{content['wall_seconds'] / 3600:.2f} h",
            "peak memory": f"{peak:.2f} GiB" if isinstance(peak, (int, float)) else "not recorded",
            "metrics": ", ".join(
                f"{key} {value:.4g}" for key, value in record.metrics.items() if isinstance(value, (int, float))
            ),
            **{name.replace("_", " "): text for name, text in sorted(content.get("facts", {}).items())},
            "record": Path(os.path.relpath(record.path, root)).as_posix(),
        }
        entries.append({"anchor": anchor("run", target_of(record)), "id": record.run_id, "facts": facts})
    return entries


def matrices(runs: PaperRuns, root: Path) -> list[dict[str, Any]]:
    """Accuracy matrices of our runs and of the authors' released logs, as rows of numbers or None."""
    found = []
    for cell in runs.subproject.cells:
        for record in runs.records[cell.id]:
            matrix = record.metrics.get("accuracy_matrix")
            if record.finished and matrix and len(matrix) > 1:
                labels = f", {', '.join(record.labels)}" if record.labels else ""
                title = f"{cell.id}: ours, seed {record.content['seed']}{labels}"
                found.append({"title": title, "rows": _padded(matrix), "run": anchor("run", target_of(record))})
    for log in runs.subproject.logs:
        try:
            tests = read_authors(log, runs.subproject.paper, root).tests
        except UserError:
            continue  # `repro check` names it
        if tests:
            tasks = max(after for after, _ in tests)
            rows = [[tests.get((after, task)) for task in range(1, tasks + 1)] for after in range(1, tasks + 1)]
            found.append({"title": f"{log.cell}: the authors' log", "rows": rows, "run": anchor("cell", log.cell)})
    return found


def _padded(matrix: Sequence[Sequence[float | None]]) -> list[list[float | None]]:
    width = max(len(row) for row in matrix)
    return [[*row, *[None] * (width - len(row))] for row in matrix]


def _shown(pair: Any) -> str:
    return f"{pair[0]} → {pair[1]}" if isinstance(pair, list) and len(pair) == 2 else str(pair)
