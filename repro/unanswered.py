"""Published numbers that no cell answers: counted per table, so that nobody takes the registry for more than it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from repro.formats import Sheet
from repro.published import SOURCE_COLUMNS, PublishedTables
from repro.registry import Subproject

VALUE = "value"
MOST_METHODS = 6


def coverage_sheet(subproject: Subproject, root: Path) -> Sheet:
    """Per table of a paper's CSV files: rows with a value, rows that a cell answers, methods of the others."""
    tables = PublishedTables(root)
    answered = {
        id(row)
        for cell in subproject.cells
        for metric in cell.metrics
        for reference in (*metric.published, *metric.logged)
        for row in tables.rows(subproject.paper, reference, f"cell {cell.id!r}")
    }
    columns = {"file": "file", "table": "table", "rows": "rows", "answered": "answered by cells", "others": "others"}
    sheet = Sheet(f"{subproject.paper}-coverage", f"{subproject.title}: published rows and cells", columns, data=[])
    for path in sorted((root / "repro" / "paper" / subproject.paper).glob("*.csv")):
        rows = tables.read(path, str(path.relative_to(root)))
        if not rows or VALUE not in rows[0]:
            continue  # a log, a list of keys, a map of colours
        groups: dict[str, list[dict[str, str]]] = {}
        for row in rows:
            groups.setdefault(next((row[key] for key in SOURCE_COLUMNS if row.get(key)), ""), []).append(row)
        for table, found in groups.items():
            open_ = [row for row in found if id(row) not in answered]
            methods = list(dict.fromkeys(row.get("method") or row.get("setting", "") for row in open_))
            shown = ", ".join(methods[:MOST_METHODS]) + (f" and {len(methods) - 6} more" if len(methods) > 6 else "")
            count = len(found) - len(open_)
            sheet.rows.append(
                {"file": path.name, "table": table, "rows": str(len(found)), "answered": str(count), "others": shown}
            )
            sheet.data.append(
                {"file": path.name, "table": table, "rows": len(found), "answered": count, "others": methods}
            )
    return sheet


def coverage_sheets(subprojects: Sequence[Subproject], root: Path) -> list[Sheet]:
    """One table per paper that has published values."""
    return [sheet for sheet in (coverage_sheet(one, root) for one in subprojects) if sheet.rows]
