"""Published against own numbers, from CSV files and run records only.

Full runs (no label, nothing changed) are compared with the published values. All other runs stand in a section of
their own, grouped by what makes them differ, so that they never share a column or a mean with full runs.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from repro.published import Published, PublishedTables
from repro.records import Record, load_records, newest_of_each, number
from repro.registry import Metric, Subproject

NOT_RUN = "not run"


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
        logged: (cell id, metric key) -> values that the authors' released logs state.
        records: cell id -> records of that cell.
        warnings: one line per record that could not be used.
    """

    subproject: Subproject
    published: dict[tuple[str, str], list[Published]]
    logged: dict[tuple[str, str], list[Published]]
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
    stated: list[dict[tuple[str, str], list[Published]]] = [{}, {}]
    for cell in subproject.cells:
        for metric in cell.metrics:
            place = f"cell {cell.id!r}, metric {metric.key!r}"
            for found, references in zip(stated, (metric.published, metric.logged), strict=True):
                found[cell.id, metric.key] = tables.values(subproject.paper, references, place)
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
    for cell, runs in by_cell.items():
        by_cell[cell], repeated = newest_of_each(runs)
        warnings += repeated
    return PaperRuns(subproject, *stated, by_cell, warnings)


def full_runs(records: Iterable[Record], metric: Metric) -> Ours:
    """The full runs that state the metric; they alone may be compared with a published value."""
    return _select([record for record in records if record.is_full], metric)


def other_runs(records: Iterable[Record], metric: Metric) -> list[Ours]:
    """Finished runs that differ from the published setting; each group differs in the same way."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        if record.finished and not record.is_full:
            groups.setdefault(record.setting, []).append(record)
    selected = [_select(group, metric) for group in groups.values()]
    return [ours for ours in selected if ours.values]


def count_runs(records: Sequence[Record]) -> tuple[int, int]:
    """Numbers of (full, other) finished runs."""
    full = sum(record.is_full for record in records)
    return full, sum(record.finished for record in records) - full


def published_text(published: Sequence[Published]) -> str:
    """The value, or all of them with their sources where the sources contradict each other."""
    if len(published) == 1:
        return published[0].text
    return " / ".join(f"{value.text} ({', '.join(value.sources)})" for value in published)


def _select(records: Sequence[Record], metric: Metric) -> Ours:
    pairs = [(number(record.metrics, metric.key), record) for record in records]
    pairs = [(value, record) for value, record in pairs if value is not None]
    return Ours(tuple(value for value, _ in pairs), tuple(record for _, record in pairs))
