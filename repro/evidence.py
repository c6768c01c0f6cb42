"""Runs the evidence of code claims: named tests by pytest, recorded fixtures by the replay of `repro parity`."""

from __future__ import annotations

import dataclasses
import fnmatch
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from repro.claim import NOT_SUPPORTED, SUPPORTED, UNDECIDED, Claim, Verdict
from repro.registry import Subproject

SECONDS = 600
_ALL_PASSED = re.compile(r"\b\d+ passed")
_NOT_PASSED = re.compile(r"\b\d+ (failed|errors?|skipped|deselected|xfailed|xpassed)")


def verify(verdict: Verdict, subproject: Subproject, root: Path) -> Verdict:
    """The verdict on a code claim after running its tests and fixtures; others are returned as they are."""
    claim = verdict.claim
    if not claim.is_about_code:
        return verdict
    problems = run_tests(claim.tests, root) if claim.tests else []
    replayed, failed = replay_fixtures(claim, subproject, root)
    problems += failed
    if not claim.tests and not replayed:
        return dataclasses.replace(verdict, status=UNDECIDED, reason="no test and no fixture could be run")
    if problems:
        return dataclasses.replace(verdict, status=NOT_SUPPORTED, reason="; ".join(problems))
    reason = f"{len(claim.tests)} named tests and {replayed} recorded fixtures agree"
    return dataclasses.replace(verdict, status=SUPPORTED, reason=reason)


def run_tests(names: Sequence[str], root: Path) -> list[str]:
    """Run tests by pytest; one line for every one that did not pass, skipped and expected failures included."""
    if not _outcome(names, root):
        return []
    found = {name: _outcome([name], root) for name in names}
    return [f"{name} {outcome}" for name, outcome in found.items() if outcome]


def _outcome(names: Sequence[str], root: Path) -> str:
    """Either "failed", "did not pass" (skipped, expected to fail, nothing collected) or "" if everything passed."""
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rs", *names]
    result = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=SECONDS)
    if result.returncode:
        return "failed"
    summary = result.stdout.strip().splitlines()[-1]
    return "" if _ALL_PASSED.search(summary) and not _NOT_PASSED.search(summary) else "did not pass"


def replay_fixtures(claim: Claim, subproject: Subproject, root: Path) -> tuple[int, list[str]]:
    """Number of fixtures replayed, and one line for every one that failed."""
    if not claim.fixtures:
        return 0, []
    from repro import parity  # why: torch takes seconds to import

    every = parity.select_entries([subproject], root)
    entries = [one for one in every if any(fnmatch.fnmatchcase(one.id, pattern) for pattern in claim.fixtures)]
    absent = [name for name in claim.fixtures if not fnmatch.filter([one.id for one in every], name)]
    adapters = parity.load_adapters([subproject], entries)
    outcomes = [parity.replay(entry, adapters) for entry in entries]
    failed = [f"{one.id}: {one.reasons[0] if one.reasons else one.status}" for one in outcomes]
    problems = [line for line, one in zip(failed, outcomes, strict=True) if one.status != parity.PASSED]
    return len(outcomes), problems + [f"{pattern}: no fixture has this name" for pattern in absent]
