"""What can stand between markers in a README: one function per kind of block, from committed files only.

Each function gets the marker's words, the folder of the file (links are relative to it) and the repository root, and
returns Markdown that ends with a line break, and warnings about records.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from common.training.errors import UserError
from repro.claim import judge_paper
from repro.claim_sheets import claims_sheet
from repro.discrepancy import read_register, register_sheet
from repro.formats import render
from repro.registry import Cell, Subproject, read_registry, select_cells, select_papers
from repro.tables import collect, table_sheets

Block = Callable[[Sequence[str], Path, Path], tuple[str, list[str]]]


def table_block(words: Sequence[str], folder: Path, root: Path) -> tuple[str, list[str]]:
    """Published against ours; words: PAPER [CELL PATTERN...]."""
    subproject = _paper(words, root)
    cells: list[Cell] | None = select_cells([subproject], words[1:]) if words[1:] else None
    runs = collect(subproject, root)
    return render(table_sheets(runs, root, cells), "md", folder), runs.warnings


def deviations_block(words: Sequence[str], folder: Path, root: Path) -> tuple[str, list[str]]:
    """The register of discrepancies; words: PAPER."""
    subproject = _paper(words, root)
    register = read_register(root, subproject.paper)
    if register is None:
        raise UserError(f"there is no repro/discrepancies/{subproject.paper}.toml")
    return render([register_sheet(register, "")], "md", folder), []


def claims_block(words: Sequence[str], folder: Path, root: Path) -> tuple[str, list[str]]:
    """Verdicts on a paper's claims from committed records; words: PAPER."""
    subproject = _paper(words, root)
    verdicts, warnings = judge_paper(subproject, root)
    return render([claims_sheet(subproject.paper, "", verdicts, root)], "md", folder), warnings


def _paper(words: Sequence[str], root: Path) -> Subproject:
    if not words:
        raise UserError("the marker names no paper")
    return select_papers(read_registry(root), words[0])[0]


BLOCKS: dict[str, Block] = {"table": table_block, "deviations": deviations_block, "claims": claims_block}
