"""What `repro parity` prints: one row per fixture, the summary as the last line, or JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from repro.formats import Sheet, print_table
from repro.parity import FAILED, MISSING, PASSED, WAITING, Outcome
from repro.self_test import INSENSITIVE, KNOWN, SENSITIVE

_STYLES = {PASSED: "green", SENSITIVE: "green", FAILED: "bold red", MISSING: "bold red", INSENSITIVE: "bold red"}


def is_bad(outcome: Outcome) -> bool:
    """Whether the outcome makes `repro parity` exit with 1."""
    return outcome.status in (FAILED, MISSING, INSENSITIVE)


def print_outcomes(outcomes: Sequence[Outcome], console: Console, verbose: bool = False) -> None:
    """A table of all fixtures; `verbose` adds every deviation and the traceback of every failure."""
    table = Table(box=box.SIMPLE_HEAD)
    for heading, side in {
        "fixture": "left",
        "outputs": "right",
        "max abs error": "right",
        "max rel error": "right",
        "seconds": "right",
        "result": "left",
        "reason": "left",
    }.items():
        table.add_column(heading, justify=side, no_wrap=heading == "fixture")
    for outcome in outcomes:
        was_compared = outcome.compared > 0 and outcome.status in (PASSED, FAILED)
        style = _STYLES.get(outcome.status, "yellow")
        table.add_row(
            outcome.id,
            str(outcome.compared) if outcome.compared else "",
            f"{outcome.max_abs:.2e}" if was_compared else "",
            f"{outcome.max_rel:.2e}" if was_compared else "",
            f"{outcome.seconds:.2f}" if outcome.seconds else "",
            f"[{style}]{outcome.status}[/]",
            escape(outcome.reasons[0]) if outcome.reasons else "",
        )
    print_table(table, console)
    for outcome in outcomes:
        if verbose and is_bad(outcome):
            console.print(f"{outcome.id}:", highlight=False, markup=False)
            for line in (*outcome.reasons, *outcome.trace.splitlines()):
                console.print(f"    {line}", highlight=False, markup=False, soft_wrap=True)


def outcomes_sheet(outcomes: Sequence[Outcome], is_self_test: bool = False) -> Sheet:
    """All outcomes as a table for Markdown, CSV and HTML; the summary is its note."""
    columns = {"fixture": "fixture", "outputs": "outputs", "max_abs": "max abs error", "max_rel": "max rel error"}
    columns |= {"result": "result", "reason": "reason"}
    sheet = Sheet("parity", "Recorded fixtures", columns, note=summary_line(outcomes, is_self_test))
    for outcome in outcomes:
        was_compared = outcome.compared > 0 and outcome.status in (PASSED, FAILED)
        sheet.rows.append(
            {
                "fixture": outcome.id,
                "outputs": str(outcome.compared) if outcome.compared else "",
                "max_abs": f"{outcome.max_abs:.2e}" if was_compared else "",
                "max_rel": f"{outcome.max_rel:.2e}" if was_compared else "",
                "result": outcome.status,
                "reason": outcome.reasons[0] if outcome.reasons else "",
            }
        )
    return sheet


def summary_line(outcomes: Sequence[Outcome], is_self_test: bool = False) -> str:
    """The counts in one line."""
    count = Counter(outcome.status for outcome in outcomes)
    if is_self_test:
        parts = [f"{count[SENSITIVE]} sensitive", f"{count[INSENSITIVE]} insensitive"]
        parts += [f"{count[KNOWN]} known insensitive"] if count[KNOWN] else []
        parts += [f"{count[FAILED]} failed undisturbed"]
    else:
        parts = [f"{count[PASSED]} passed", f"{count[FAILED]} failed"]
    parts += [f"{count[MISSING]} without counterpart"] if count[MISSING] else []
    parts += [f"{count[WAITING]} without counterpart (next issue)"] if count[WAITING] else []
    return f"{len(outcomes)} fixtures: {', '.join(parts)}"


def as_json(outcomes: Sequence[Outcome], is_self_test: bool = False) -> str:
    """All outcomes and the counts; JSON has no infinity, so it becomes null."""
    count = Counter(outcome.status for outcome in outcomes)
    content = {
        "fixtures": [
            {
                "id": outcome.id,
                "status": outcome.status,
                "outputs": outcome.compared,
                "max_abs": _finite(outcome.max_abs),
                "max_rel": _finite(outcome.max_rel),
                "seconds": round(outcome.seconds, 4),
                "reasons": list(outcome.reasons),
            }
            for outcome in outcomes
        ],
        "counts": dict(count),
        "passed": not any(is_bad(outcome) for outcome in outcomes),
        "summary": summary_line(outcomes, is_self_test),
    }
    return json.dumps(content, indent=1)


def _finite(value: float) -> float | None:
    return value if value < float("inf") else None
