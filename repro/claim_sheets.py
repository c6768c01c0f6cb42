"""Verdicts on claims as tables."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from repro.claim import NOT_RUN, Verdict
from repro.formats import Link, Sheet

COLUMNS = {
    "id": "claim",
    "statement": "statement",
    "scale": "evidence",
    "pairs": "pairs of runs",
    "difference": "paired difference, 95 % interval",
    "verdict": "verdict",
    "records": "records",
}
NOTE = (
    "Difference: mean over runs of equal seed, first cell - second cell, with Student's 95 % interval. Supported: the "
    "whole interval lies on the claimed side of 0; not supported: on the other side; undecided: it contains 0."
)


def claims_sheet(paper: str, title: str, verdicts: Sequence[Verdict], root: Path) -> Sheet:
    """One row per claim."""
    sheet = Sheet(f"{paper}-claims", title, COLUMNS, data=[], note=NOTE)
    for verdict in verdicts:
        claim = verdict.claim
        runs = {run.run_id: run for one in verdict.differences for run in one.records}.values()
        records = sorted(runs, key=lambda run: (run.cell, run.content["seed"]))
        evidence = claim.scale or "; ".join(f"{first} against {second}" for first, second in claim.pairs)
        if claim.is_about_code:
            evidence = ", ".join(f"`{name.removeprefix('tests/')}`" for name in (*claim.tests, *claim.fixtures))
        sheet.rows.append(
            {
                "id": claim.id,
                "statement": f"{claim.statement} ({claim.source})",
                "scale": evidence,
                "pairs": "" if claim.is_about_code else str(len(verdict.differences)),
                "difference": difference_text(verdict),
                "verdict": _verdict_text(verdict),
                "records": tuple(
                    Link(f"{run.cell.rpartition('/')[2]} s{run.content['seed']}", run.path) for run in records
                ),
            }
        )
        sheet.data.append(_data(verdict, root))
    return sheet


def _verdict_text(verdict: Verdict) -> str:
    if verdict.status != NOT_RUN:
        return f"{verdict.status}: {verdict.reason}"
    return f"{NOT_RUN}: on demand, by repro claims --verify" if verdict.claim.is_about_code else NOT_RUN


def difference_text(verdict: Verdict) -> str:
    """Mean and interval in points, empty without runs."""
    if verdict.mean is None:
        return ""
    if verdict.low is None:
        return f"{verdict.mean:+.2f}"
    return f"{verdict.mean:+.2f} [{verdict.low:+.2f}, {verdict.high:+.2f}]"


def _data(verdict: Verdict, root: Path) -> dict[str, Any]:
    claim = verdict.claim
    return {
        "claim": claim.id,
        "statement": claim.statement,
        "source": claim.source,
        "metric": claim.metric,
        "direction": claim.direction,
        "verdict": verdict.status,
        "reason": verdict.reason,
        "mean": verdict.mean,
        "low": verdict.low,
        "high": verdict.high,
        "differences": [
            {
                "cells": list(one.cells),
                "seed": one.seed,
                "value": one.value,
                "records": [Path(os.path.relpath(run.path, root)).as_posix() for run in one.records],
            }
            for one in verdict.differences
        ],
        "tests": list(claim.tests),
        "fixtures": list(claim.fixtures),
    }
