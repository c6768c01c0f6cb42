"""Claims of the papers as hypotheses: declared in `repro/claims/<paper>.toml`, judged from committed run records alone.

A comparison sets two cells beside each other, run by run of equal seed; every (pair of cells, seed) is one difference,
and the interval is Student's 95 % interval of their mean. Where pairs share a cell, their differences are not
independent: they are averaged within each seed first, and the interval is that of the seeds. A code claim is a
statement about what released code does; its evidence are named tests and recorded fixtures, run on demand.
"""

from __future__ import annotations

import fnmatch
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.training.errors import UserError
from repro.discrepancy import fixture_ids, names_a_test
from repro.records import Record, load_records, number
from repro.registry import Subproject
from repro.toml_tables import CheckedTable, read_toml

FOLDER = Path("repro") / "claims"
CONFIDENCE = 0.95
SUPPORTED, NOT_SUPPORTED, UNDECIDED, NOT_RUN = "supported", "not supported", "undecided", "not run"
NOT_ADMITTED = ("smoke", "fast")
"""Labels of runs that are no evidence: short forms and other numerics.  So is "shortened", but for unchanged rows of a
desk bench, which are shortened by design."""


@dataclass(frozen=True)
class Claim:
    """One claim.

    Attributes:
        id: unique within the paper.
        statement: what is claimed, as a sentence.
        source: where the paper (or its code) says so.
        scale: what our evidence can and cannot show, one line.
        metric: key in run records; empty for a code claim.
        direction: "higher" or "lower": how the first cell of each pair should stand to the second.
        pairs: cells to compare.
        same_data: keys of the records' `data` that must agree between the runs of a pair.
        tests, fixtures: evidence of a code claim.
    """

    id: str
    statement: str
    source: str
    scale: str = ""
    metric: str = ""
    direction: str = "higher"
    pairs: tuple[tuple[str, str], ...] = ()
    same_data: tuple[str, ...] = ("sha256",)
    tests: tuple[str, ...] = ()
    fixtures: tuple[str, ...] = ()

    @property
    def is_about_code(self) -> bool:
        """Whether tests and fixtures are the evidence."""
        return not self.pairs


@dataclass(frozen=True)
class Difference:
    """One paired difference, first cell - second cell."""

    cells: tuple[str, str]
    seed: int
    value: float
    records: tuple[Record, Record]


@dataclass(frozen=True)
class Verdict:
    """What the evidence says.

    Attributes:
        claim: the claim.
        status: SUPPORTED, NOT_SUPPORTED, UNDECIDED or NOT_RUN.
        mean, low, high: of the differences and of their mean's interval; None without differences (interval: < 2).
        differences: one per pair of runs.
        reason: one line.
    """

    claim: Claim
    status: str
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    differences: tuple[Difference, ...] = ()
    reason: str = ""


# --- reading ----------------------------------------------------------------------------------------------------------


def read_claims(root: Path, subproject: Subproject) -> list[Claim]:
    """The claims of a paper; empty if it has no file.

    Raises:
        UserError: for a mistake in the file, naming the claim.
    """
    path = root / FOLDER / f"{subproject.paper}.toml"
    if not path.is_file():
        return []
    shown = path.relative_to(root)
    top = CheckedTable(read_toml(path, shown), str(shown), {"paper": str, "claim": list})
    if top.get("paper") != subproject.paper:
        raise UserError(f"{shown}: paper is {top.get('paper')!r}; the file's name says {subproject.paper!r}")
    claims = [_read_claim(entry, str(shown), subproject) for entry in top.get("claim", [])]
    ids = [claim.id for claim in claims]
    twice = [id for id in ids if ids.count(id) > 1]
    if twice:
        raise UserError(f"{shown}: claim {twice[0]!r} occurs twice; ids must differ")
    return claims


def _read_claim(entry: Any, shown: str, subproject: Subproject) -> Claim:
    name = entry.get("id", "without id") if isinstance(entry, dict) else "?"
    place = f"{shown}, claim {name!r}"
    texts = ("id", "statement", "source", "scale", "metric", "direction")
    lists = ("pairs", "same_data", "tests", "fixtures")
    table = CheckedTable(entry, place, {**dict.fromkeys(texts, str), **dict.fromkeys(lists, list)})
    for key in ("id", "statement", "source"):
        table.get(key)
    direction, metric = table.get("direction", "higher"), table.get("metric", "")
    if direction not in ("higher", "lower"):
        raise UserError(f"{place}: direction is {direction!r}; expected higher or lower")
    metrics_of = {cell.id: {one.key for one in cell.metrics} for cell in subproject.cells}
    for pair in table.get("pairs", []):
        if not isinstance(pair, list) or len(pair) != 2:
            raise UserError(f"{place}: {pair!r} is no pair of cells")
        for cell in pair:
            if cell not in metrics_of:
                raise UserError(f"{place}: there is no cell {cell!r}")
            if metric not in metrics_of[cell]:
                raise UserError(f"{place}: cell {cell!r} has no metric {metric!r}")
    if "same_data" in table.content and not table.get("same_data"):
        raise UserError(f"{place}: same_data names no key; leave it out for the data's hash")
    has_pairs, has_code = bool(table.get("pairs", [])), bool(table.get("tests", []) or table.get("fixtures", []))
    if has_pairs == has_code:
        raise UserError(f"{place}: give either pairs of cells, or tests and fixtures")
    values = {key: tuple(table.get(key)) if key in lists else table.get(key) for key in table.content}
    if "pairs" in values:
        values["pairs"] = tuple((first, second) for first, second in values["pairs"])
    return Claim(**values)


def find_problems(claims: Iterable[Claim], subproject: Subproject, root: Path) -> list[str]:
    """One line for every test or fixture pattern of the claims that names nothing."""
    ids = fixture_ids(subproject, root)
    place = (FOLDER / f"{subproject.paper}.toml").as_posix()
    problems = []
    for claim in claims:
        absent = [f"test {name} does not exist" for name in claim.tests if not names_a_test(root, name)]
        absent += [f"no recorded fixture matches {one}" for one in claim.fixtures if not fnmatch.filter(ids, one)]
        problems += [f"{place}: {claim.id}: {problem}" for problem in absent]
    return problems


# --- judging ----------------------------------------------------------------------------------------------------------


def judge(claim: Claim, records: Iterable[Record]) -> tuple[Verdict, list[str]]:
    """The verdict on a comparison; a code claim is NOT_RUN here (see `repro.evidence`).

    Args:
        claim: the claim.
        records: of the paper; those of other cells play no part.

    Returns:
        The verdict, and one warning per run that could not be used.
    """
    if claim.is_about_code:
        evidence = f"{len(claim.tests)} tests and {len(claim.fixtures)} fixture patterns"
        return Verdict(claim, NOT_RUN, reason=f"evidence: {evidence}; run them by `repro claims --verify`"), []
    warnings: list[str] = []
    by_cell = _admitted(records, warnings)
    differences = []
    for pair in claim.pairs:
        first, second = (by_cell.get(cell, {}) for cell in pair)
        for seed in sorted(first.keys() & second.keys()):
            runs = (first[seed], second[seed])
            values = [number(run.metrics, claim.metric) for run in runs]
            if None in values:
                warnings.append(f"{claim.id}: seed {seed} of {' and '.join(pair)} lacks {claim.metric}")
            elif any(runs[0].content["data"].get(key) != runs[1].content["data"].get(key) for key in claim.same_data):
                warnings.append(f"{claim.id}: seed {seed} of {' and '.join(pair)} saw different data")
            else:
                differences.append(Difference(pair, seed, values[0] - values[1], runs))
    return _verdict(claim, differences), warnings


def _admitted(records: Iterable[Record], warnings: list[str]) -> dict[str, dict[int, Record]]:
    """Cell -> seed -> its newest finished, unchanged, unshortened run."""
    found: dict[str, dict[int, Record]] = {}
    for record in sorted(records, key=lambda one: one.content["started"]):
        if record.cell is None or not record.finished or record.changed or set(record.labels) & set(NOT_ADMITTED):
            continue
        if "shortened" in record.labels and "desk-scale" not in record.labels:
            continue
        seeds = found.setdefault(record.cell, {})
        seed = record.content["seed"]
        if seed in seeds:
            warnings.append(
                f"{record.cell}, seed {seed}: {record.run_id} is newer than {seeds[seed].run_id} and counts"
            )
        seeds[seed] = record
    return found


def _verdict(claim: Claim, differences: Sequence[Difference]) -> Verdict:
    if not differences:
        return Verdict(claim, NOT_RUN, reason="no pair of runs with the same seed")
    if not independent_values(claim, differences):
        return Verdict(claim, NOT_RUN, differences=tuple(differences), reason="no seed has all pairs of runs")
    values = independent_values(claim, differences)
    mean, low, high = interval(values)
    if low is None:
        reason = "one pair of runs, or one seed, gives no interval"
        return Verdict(claim, UNDECIDED, mean, differences=tuple(differences), reason=reason)
    above, below = (SUPPORTED, NOT_SUPPORTED) if claim.direction == "higher" else (NOT_SUPPORTED, SUPPORTED)
    status = above if low > 0 else below if high < 0 else UNDECIDED
    reasons = {
        SUPPORTED: "the whole interval lies on the claimed side of 0",
        NOT_SUPPORTED: "the whole interval lies on the other side of 0",
        UNDECIDED: "the interval contains 0",
    }
    return Verdict(claim, status, mean, low, high, tuple(differences), reasons[status])


def independent_values(claim: Claim, differences: Sequence[Difference]) -> list[float]:
    """The differences themselves; if a cell stands in several pairs, their mean within each seed that has all pairs."""
    cells = [cell for pair in claim.pairs for cell in pair]
    if len(set(cells)) == len(cells):
        return [difference.value for difference in differences]
    by_seed: dict[int, list[float]] = {}
    for difference in differences:
        by_seed.setdefault(difference.seed, []).append(difference.value)
    complete = [values for values in by_seed.values() if len(values) == len(claim.pairs)]
    return [statistics.fmean(values) for values in complete]


def interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float | None, float | None]:
    """Mean of the values and Student's interval of the mean; no bounds for fewer than two values."""
    from scipy import stats  # why: takes a second to import, and lists do not need it

    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, None, None
    half = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1))
    half *= statistics.stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def judge_paper(
    subproject: Subproject, root: Path, extra_folders: Iterable[Path] = ()
) -> tuple[list[Verdict], list[str]]:
    """Verdicts on all claims of a paper, and warnings.

    Args:
        subproject: the paper.
        root: repository root; committed records lie in <root>/results/<paper>/.
        extra_folders: more folders with records.
    """
    claims = read_claims(root, subproject)
    if not claims:
        return [], []
    records, warnings = load_records([root / "results" / subproject.paper, *extra_folders])
    verdicts = []
    for claim in claims:
        verdict, found = judge(claim, records)
        verdicts.append(verdict)
        warnings += found
    return verdicts, list(dict.fromkeys(warnings))
