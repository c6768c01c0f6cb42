"""Our per-epoch series beside the logs that the authors released.

Columns that the setting fixes (learning rates, optimiser steps per epoch, epochs per task) must agree entry by entry;
losses and accuracies depend on random numbers, so they are shown and never judged. A paper whose logs have another
form names a function of its own that sets them beside its runs (`logs` in its experiments.toml).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from common.training.errors import UserError
from repro.formats import Sheet
from repro.logs.comparing import RunComparison, compare_run
from repro.logs.declared import declared_sheets
from repro.logs.plots import draw_task, write_plots
from repro.logs.reading import read_authors
from repro.logs.sheets import authors_sheet, run_sheets
from repro.records import Record, load_record, load_records
from repro.registry import Subproject

__all__ = ["check_logs", "compare_paper", "compare_run", "draw_task", "read_authors", "write_plots"]

NOT_COMPARABLE = ("smoke", "sub-sampled", "desk-scale")
"""Labels of runs on other data; they are compared on request only."""


def check_logs(subprojects: Iterable[Subproject], root: Path) -> int:
    """Read every released log that is described; returns their number, or raises as `read_authors` does."""
    return sum(len([read_authors(log, one.paper, root) for log in one.logs]) for one in subprojects)


def compare_paper(
    subproject: Subproject, root: Path, paths: Sequence[Path] = (), folders: Sequence[Path] = (), any_run: bool = False
) -> tuple[list[RunComparison], list[Sheet], list[str]]:
    """Compare our runs of the cells that have a released log; by default all below <root>/results/<paper>.

    Args:
        subproject: the paper.
        root: repository root.
        paths: records, or folders of runs, instead of all that there are.
        folders: more folders to look for records in.
        any_run: also compare runs on other data (`NOT_COMPARABLE`).

    Returns:
        The comparisons, all tables (the authors' log in short for a cell without a run), and one warning per run that
        was left out.

    Raises:
        UserError: if the paper has no released log, one cannot be read, or a run in `paths` cannot be compared.
    """
    logs = {log.cell: log for log in subproject.logs}
    if subproject.log_view:
        if paths or any_run:
            raise UserError(f"{subproject.paper}: its logs are set beside all full runs; --run and --any do not apply")
        return [], declared_sheets(subproject, [root / "results" / subproject.paper, *folders]), []
    if not logs:
        raise UserError(f"{subproject.paper}: no released log; one is described by [[log]] in its experiments.toml")
    if paths:
        records, warnings = [load_record(path) for path in paths], []
        _check_given(records, logs)
    else:
        records, warnings = load_records([root / "results" / subproject.paper, *folders])
        records = [record for record in records if record.cell in logs]
    authors = {cell: read_authors(log, subproject.paper, root) for cell, log in logs.items()}
    runs: list[RunComparison] = []
    for record in records:
        try:
            _check_data(record, any_run)
            runs.append(compare_run(record, logs[record.cell], authors[record.cell]))
        except UserError as error:
            if paths:
                raise
            warnings.append(f"left out: {error}")
    sheets: list[Sheet] = []
    for cell in [cell for cell in subproject.cells if cell.id in logs]:
        found = [sheet for run in runs if run.log.cell == cell.id for sheet in run_sheets(run, cell)]
        left_out = sum(record.cell == cell.id for record in records)
        sheets += found or ([] if paths else [authors_sheet(cell, logs[cell.id], authors[cell.id], left_out)])
    return runs, sheets, warnings


def _check_given(records: Sequence[Record], cells: Iterable[str]) -> None:
    for position, record in enumerate(records):
        if record.cell not in cells:
            found = f"a run of {record.cell or 'no cell'}, which has no released log"
            raise UserError(f"{record.path}: {found}; expected one of {', '.join(cells)}")
        if any(record.run_id == other.run_id for other in records[:position]):
            raise UserError(f"{record.path}: the run {record.run_id} is named twice; name one of its copies")


def _check_data(record: Record, any_run: bool) -> None:
    other = [label for label in record.labels if label in NOT_COMPARABLE]
    if other and not any_run:
        raise UserError(f"{record.path}: a {other[0]} run does not answer the released log; --any compares it still")
