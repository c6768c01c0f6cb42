"""What can stand between markers in a README: one function per kind of block, from committed files only.

Each function gets the marker's words, the folder of the file (links are relative to it) and the repository, and
returns Markdown that ends with a line break, and warnings about records.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.training.errors import UserError
from repro.artefacts import artefacts_sheet
from repro.claim import judge_paper
from repro.claim_sheets import claims_sheet
from repro.discrepancy import read_register, register_sheet
from repro.formats import render
from repro.logs import compare_paper
from repro.pictures import FOLDERS, find_pictures
from repro.registry import Cell, Subproject, select_cells, select_papers
from repro.speed import FOLDER, read_paper, speed_sheets
from repro.summary_blocks import cost_sheet, papers_sheet, scope_sheet
from repro.table_sheets import table_sheets
from repro.tables import collect


@dataclass(frozen=True)
class Repository:
    """What every block is made from: the root, and the registry, read once."""

    root: Path
    subprojects: Sequence[Subproject]

    def paper(self, words: Sequence[str]) -> Subproject:
        """The paper that a marker's first word names."""
        if not words:
            raise UserError("the marker names no paper")
        return select_papers(self.subprojects, words[0])[0]


Block = Callable[[Sequence[str], Path, Repository], tuple[str, list[str]]]


def table_block(words: Sequence[str], folder: Path, repository: Repository) -> tuple[str, list[str]]:
    """Published against ours; words: PAPER [CELL PATTERN...]."""
    subproject = repository.paper(words)
    cells: list[Cell] | None = select_cells([subproject], words[1:]) if words[1:] else None
    runs = collect(subproject, repository.root)
    return render(table_sheets(runs, repository.root, cells), "md", folder), runs.warnings


def deviations_block(words: Sequence[str], folder: Path, repository: Repository) -> tuple[str, list[str]]:
    """The register of discrepancies; words: PAPER."""
    subproject = repository.paper(words)
    register = read_register(repository.root, subproject.paper)
    if register is None:
        raise UserError(f"there is no repro/discrepancies/{subproject.paper}.toml")
    return render([register_sheet(register, "")], "md", folder), []


def claims_block(words: Sequence[str], folder: Path, repository: Repository) -> tuple[str, list[str]]:
    """Verdicts on a paper's claims from committed records; words: PAPER."""
    subproject = repository.paper(words)
    verdicts, warnings = judge_paper(subproject, repository.root)
    if not verdicts:
        return "No claim is declared yet.\n", warnings
    return render([claims_sheet(subproject.paper, "", verdicts, repository.root)], "md", folder), warnings


def scope_block(words: Sequence[str], folder: Path, repository: Repository) -> tuple[str, list[str]]:
    """A paper in numbers; words: PAPER."""
    subproject = repository.paper(words)
    runs = collect(subproject, repository.root)
    return render([scope_sheet(subproject, runs, repository.root)], "md", folder), runs.warnings


def cost_block(words: Sequence[str], folder: Path, repository: Repository) -> tuple[str, list[str]]:
    """Estimated and measured hours of a paper; words: PAPER."""
    subproject = repository.paper(words)
    runs = collect(subproject, repository.root)
    return render([cost_sheet(subproject, runs)], "md", folder), runs.warnings


def artefacts_block(words: Sequence[str], folder: Path, repository: Repository) -> tuple[str, list[str]]:
    """Shipped artefacts; words: [PAPER]."""
    paper = repository.paper(words).paper if words else None
    return render([artefacts_sheet(repository.root, paper)], "md", folder), []


def papers_block(words: Sequence[str], folder: Path, repository: Repository) -> tuple[str, list[str]]:
    """All papers in one table; no words."""
    sheet, warnings = papers_sheet(repository.subprojects, repository.root)
    return render([sheet], "md", folder), warnings


def speed_block(words: Sequence[str], folder: Path, repository: Repository) -> tuple[str, list[str]]:
    """Kept measurements against the literal formulas; words: PAPER."""
    paper = repository.paper(words).paper
    measurements = read_paper(repository.root, paper)
    if not measurements:
        return f"Not measured: there is no `{(FOLDER / paper).as_posix()}.json`.\n", []
    return render(speed_sheets(measurements), "md", folder), []


def logs_block(words: Sequence[str], folder: Path, repository: Repository) -> tuple[str, list[str]]:
    """Kept runs beside the authors' released logs; words: PAPER."""
    _, sheets, warnings = compare_paper(repository.paper(words), repository.root)
    return render(sheets, "md", folder), warnings


def pictures_block(words: Sequence[str], folder: Path, repository: Repository) -> tuple[str, list[str]]:
    """Kept pictures of every cell, from its first record that has some; words: PAPER [CELL PATTERN...]."""
    subproject = repository.paper(words)
    cells = select_cells([subproject], words[1:]) if words[1:] else subproject.cells
    runs = collect(subproject, repository.root)
    lines = []
    for cell in cells:
        found = [(record, find_pictures(record)) for record in runs.records[cell.id] if record.finished]
        record, pictures = next((pair for pair in found if pair[1]), (None, []))
        images = [
            f"![{path.stem.replace('_', ' ')}]({Path(os.path.relpath(path, folder)).as_posix()})" for path in pictures
        ]
        if record is not None:
            lines.append(f"| {cell.id} | {record.content['seed']} | {' '.join(images)} |\n")
    if not lines:
        return "No pictures are kept.\n", runs.warnings
    shown = next(shows for name, shows in FOLDERS.items() if any(f"/{name}/" in line for line in lines))
    return f"| cell | seed | {shown} |\n| --- | --- | --- |\n" + "".join(lines), runs.warnings


BLOCKS: dict[str, Block] = {
    "table": table_block,
    "deviations": deviations_block,
    "claims": claims_block,
    "scope": scope_block,
    "cost": cost_block,
    "artefacts": artefacts_block,
    "papers": papers_block,
    "speed": speed_block,
    "pictures": pictures_block,
    "logs": logs_block,
}
