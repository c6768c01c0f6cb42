"""Short generated tables: a paper in numbers, what its runs cost, and all papers in one table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from repro.claim import judge_paper
from repro.discrepancy import count_measured, fixture_ids, read_register
from repro.formats import Link, Sheet
from repro.records import Record
from repro.registry import Subproject
from repro.status import NOT_PUBLISHED, status_of
from repro.tables import PaperRuns, collect, full_runs

STATUSES = ("within", "outside", "too few runs", "not run")


def count_statuses(runs: PaperRuns) -> dict[str, int]:
    """How many published numbers our full runs agree with, or not, or were not run."""
    counts = dict.fromkeys(STATUSES, 0)
    for cell in runs.subproject.cells:
        for metric in cell.metrics:
            published = runs.published[cell.id, metric.key]
            values = full_runs(runs.records[cell.id], metric).values
            statuses = status_of(values, published).split(" / ")
            if published and statuses[0] != NOT_PUBLISHED:
                # sources that contradict each other: agreeing with one of them is enough to be counted as within
                status = "within" if "within" in statuses else statuses[0]
                counts[next(known for known in STATUSES if status.startswith(known))] += 1
    return counts


def scope_sheet(subproject: Subproject, runs: PaperRuns, root: Path) -> Sheet:
    """One paper in numbers."""
    counts, records = count_statuses(runs), _finished(runs)
    register = read_register(root, subproject.paper)
    entries = register.entries if register else ()
    verdicts = Counter(verdict.status for verdict in judge_paper(subproject, root)[0])
    claims = ", ".join(f"{count} {status}" for status, count in verdicts.items()) or "none declared"
    rows = {
        "cells of published tables that have a command": sum(not cell.demo for cell in subproject.cells),
        "further cells: desk rows, demonstrations, settings without a published value": sum(
            cell.demo for cell in subproject.cells
        ),
        "published numbers that they answer": sum(counts.values()),
        "of these within / outside / too few runs / not run": " / ".join(str(counts[status]) for status in STATUSES),
        "kept runs: full / desk-scale, shortened or other": (
            f"{sum(record.is_full for record in records)} / {sum(not record.is_full for record in records)}"
        ),
        "fixtures recorded from the originals": len(fixture_ids(subproject, root)),
        "registered discrepancies, of these with a measured effect": f"{len(entries)}, {count_measured(entries)}",
        "claims": claims,
    }
    sheet = Sheet(f"{subproject.paper}-scope", "", {"what": "what", "count": "count"})
    sheet.rows = [{"what": what, "count": str(count)} for what, count in rows.items()]
    return sheet


def cost_sheet(subproject: Subproject, runs: PaperRuns) -> Sheet:
    """Estimated hours of one run of every published cell, by hardware, and measured hours of kept runs."""
    columns = {"what": "what", "hardware": "hardware", "runs": "runs", "hours": "hours"}
    sheet = Sheet(f"{subproject.paper}-cost", "", columns)
    for kind, is_demo in (("estimate: every published cell once", False), ("estimate: desk rows once", True)):
        hours: dict[str, list[float]] = {}
        for cell in subproject.cells:
            if cell.cost_hours is not None and cell.demo == is_demo:
                hours.setdefault(cell.cost_hardware or "not stated", []).append(cell.cost_hours)
        for hardware, values in hours.items():
            row = {"what": kind, "hardware": hardware, "runs": str(len(values)), "hours": f"{sum(values):.1f}"}
            sheet.rows.append(row)
    measured: dict[str, list[float]] = {}
    for record in _finished(runs):
        hardware = record.content["hardware"]
        name = str(hardware.get("name") or hardware.get("device", "?"))
        measured.setdefault(name, []).append(record.content["wall_seconds"] / 3600)
    for name, values in measured.items():
        row = {"what": "measured: kept runs", "hardware": name, "runs": str(len(values)), "hours": f"{sum(values):.1f}"}
        sheet.rows.append(row)
    if not measured:
        sheet.rows.append({"what": "measured: kept runs", "hardware": "", "runs": "0", "hours": ""})
    return sheet


def papers_sheet(subprojects: Sequence[Subproject], root: Path) -> tuple[Sheet, list[str]]:
    """All papers in one table, and warnings about records."""
    columns = {
        "paper": "paper",
        "folder": "folder",
        "fixtures": "recorded fixtures",
        "cells": "cells",
        "published": "published numbers",
        "within": "within / outside / too few runs",
        "runs": "runs: full / other",
        "deviations": "deviations",
        "claims": "claims",
    }
    sheet, warnings = Sheet("papers", "", columns), []
    for subproject in subprojects:
        runs = collect(subproject, root)
        warnings += runs.warnings
        counts, records = count_statuses(runs), _finished(runs)
        register = read_register(root, subproject.paper)
        verdicts = Counter(verdict.status for verdict in judge_paper(subproject, root)[0])
        full = sum(record.is_full for record in records)
        sheet.rows.append(
            {
                "paper": subproject.title,
                "folder": (Link(f"`{subproject.folder}/`", root / subproject.folder / "README.md"),),
                "fixtures": str(len(fixture_ids(subproject, root))),
                "cells": str(sum(not cell.demo for cell in subproject.cells)),
                "published": str(sum(counts.values())),
                "within": " / ".join(str(counts[status]) for status in STATUSES[:3]),
                "runs": f"{full} / {len(records) - full}",
                "deviations": str(len(register.entries)) if register else "none yet",
                "claims": ", ".join(f"{count} {status}" for status, count in verdicts.items()) or "none yet",
            }
        )
    return sheet, warnings


def _finished(runs: PaperRuns) -> list[Record]:
    found: Iterable[Record] = (record for records in runs.records.values() for record in records)
    return [record for record in found if record.finished]
