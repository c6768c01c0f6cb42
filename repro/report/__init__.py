"""The report: one static HTML file with everything that the audit desk knows, readable without a network."""

from __future__ import annotations

import datetime
import html
import re
from collections import Counter
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from common.training.errors import UserError
from common.training.files import write_atomically
from repro.claim import Verdict, judge_paper
from repro.claim_sheets import claims_sheet
from repro.discrepancy import count_measured, fixture_ids, read_register, register_sheet
from repro.formats import Link, Sheet
from repro.pictures import paper_pictures
from repro.registry import Subproject
from repro.report.curves import paper_charts
from repro.report.provenance import anchor, cell_entries, matrices, run_entries
from repro.speed import read_paper, speed_sheets
from repro.status import NOT_RUN, RULE
from repro.summary_blocks import count_statuses
from repro.table_sheets import table_sheets
from repro.tables import collect


def write_report(
    path: Path,
    root: Path,
    subprojects: Sequence[Subproject],
    folders: Sequence[Path] = (),
    parity: dict[str, tuple[int, int]] | None = None,
    verdicts: dict[str, list[Verdict]] | None = None,
) -> list[str]:
    """Write the page.

    Args:
        path: the HTML file.
        root: repository root.
        subprojects: papers to show.
        folders: more folders with records, beside results/.
        parity: paper -> (fixtures that agree, fixtures replayed); None or a missing paper says "not replayed".
        verdicts: paper -> verdicts, where claims about code were verified; others are judged from the records.

    Returns:
        One warning per record, series or picture that was left out.
    """
    papers, warnings = [], []
    for subproject in subprojects:
        paper, found = _paper(subproject, root, folders, (parity or {}).get(subproject.paper), (verdicts or {}))
        papers.append(paper)
        warnings += found
    text = render_page(papers, list(dict.fromkeys(warnings)))
    write_atomically(path, lambda file: file.write(text.encode("utf-8")))
    return list(dict.fromkeys(warnings))


def render_page(papers: Sequence[dict[str, Any]], warnings: Sequence[str], now: str = "") -> str:
    """The page's text from prepared content."""
    import jinja2

    folder = resources.files(__package__) / "templates"
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(str(folder)), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["rich"] = rich
    return environment.get_template("page.html").render(
        papers=papers,
        warnings=warnings,
        rule=RULE,
        now=now or datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        style=(folder / "style.css").read_text(encoding="utf-8"),
        script=(folder / "script.js").read_text(encoding="utf-8"),
    )


def rich(value: Any) -> Any:
    """A cell of a sheet as HTML: code in backticks, links to the provenance of runs and cells."""
    import markupsafe

    if isinstance(value, tuple):
        parts = [f'<a href="#{anchor("run", link.target)}">{html.escape(link.text)}</a>' for link in value]
        return markupsafe.Markup(", ".join(parts))
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(str(value)))
    return markupsafe.Markup(text)


def _paper(
    subproject: Subproject,
    root: Path,
    folders: Sequence[Path],
    parity: tuple[int, int] | None,
    given: dict[str, list[Verdict]],
) -> tuple[dict[str, Any], list[str]]:
    runs = collect(subproject, root, folders)
    register = read_register(root, subproject.paper)
    if subproject.paper in given:
        verdicts, claim_warnings = given[subproject.paper], []
    else:
        verdicts, claim_warnings = judge_paper(subproject, root, folders)
    charts, chart_warnings = paper_charts(runs, root)
    records = [record for found in runs.records.values() for record in found if record.finished]
    pictures, picture_warnings = paper_pictures(records)
    speeds, speed_warnings = _speeds(root, subproject.paper)
    done, open_, other = _split(table_sheets(runs, root))
    entries = register.entries if register else ()
    content = {
        "id": subproject.paper,
        "title": subproject.title,
        "folder": subproject.folder,
        "cells": len([cell for cell in subproject.cells if not cell.demo]),
        "demos": len([cell for cell in subproject.cells if cell.demo]),
        "counts": count_statuses(runs),
        "runs": len(records),
        "full_runs": sum(record.is_full for record in records),
        "fixtures": len(fixture_ids(subproject, root)),
        "parity": parity,
        "done": done,
        "open": open_,
        "other": other,
        "charts": charts,
        "matrices": matrices(runs, root),
        "pictures": pictures,
        "speeds": speeds,
        "deviations": register_sheet(register, "Deviations") if register else None,
        "measured": count_measured(entries),
        "claims": _linked(claims_sheet(subproject.paper, "Claims", verdicts, root)) if verdicts else None,
        "verdicts": dict(Counter(verdict.status for verdict in verdicts)),
        "cell_entries": cell_entries(runs, root),
        "run_entries": run_entries(records, root),
    }
    return content, [*runs.warnings, *claim_warnings, *chart_warnings, *picture_warnings, *speed_warnings]


def _speeds(root: Path, paper: str) -> tuple[list[Sheet], list[str]]:
    """Kept measurements of speed, and a warning if they cannot be read."""
    try:
        return speed_sheets(read_paper(root, paper)), []
    except UserError as error:
        return [], [f"left out: {error}"]


class _RunLink(Link):
    """A link to a run's provenance on the page."""

    @property
    def target(self) -> str:
        """The run's id: name of the kept record, or of the folder of a run."""
        return self.path.stem if self.path.name != "record.json" else self.path.parent.as_posix()


def _linked(sheet: Sheet) -> Sheet:
    for row in sheet.rows:
        for key, value in row.items():
            if isinstance(value, tuple):
                row[key] = tuple(_RunLink(link.text, link.path) for link in value)
    return sheet


def _split(sheets: Sequence[Sheet]) -> tuple[Sheet | None, Sheet | None, Sheet | None]:
    """Full runs, cells that were not run, and all other runs; a part without rows is None."""
    done = open_ = other = None
    for sheet in map(_linked, sheets):
        if sheet.key.endswith("-other"):
            other = sheet
            continue
        run = [row for row in sheet.rows if row["status"] != NOT_RUN]
        missing = [row for row in sheet.rows if row["status"] == NOT_RUN]
        done = Sheet(sheet.key, sheet.title, sheet.columns, run) if run else None
        columns = {key: sheet.columns[key] for key in ("cell", "metric", "published", "logged", "select", "status")}
        open_ = Sheet(sheet.key, sheet.title, columns, missing) if missing else None
    return done, open_, other
