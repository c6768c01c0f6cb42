"""Tables inside README files: regenerated from the committed records, and checked to be up to date."""

from __future__ import annotations

import re
from pathlib import Path

from common.training.errors import UserError
from common.training.files import write_atomically
from repro.formats import render
from repro.registry import Cell, read_registry, select_cells, select_papers
from repro.tables import collect, table_sheets

_BLOCK = re.compile(
    r"(?P<open><!-- repro:table (?P<words>[^>]*?) *-->\n)(?P<body>.*?)(?P<close><!-- /repro:table -->)", re.S
)
_MARKER = re.compile(r"<!-- /?repro:table[^>]*-->")
_SKIPPED_FOLDERS = {"data", "outputs", "build", "dist", "node_modules", "site"}


def find_readmes(root: Path) -> list[Path]:
    """README.md files at most two folders below the root, without hidden and generated folders."""
    paths = [*root.glob("README.md"), *root.glob("*/README.md"), *root.glob("*/*/README.md")]
    return sorted(
        path
        for path in paths
        if not any(part.startswith(".") or part in _SKIPPED_FOLDERS for part in path.relative_to(root).parts)
    )


def update_readmes(root: Path, check: bool = False) -> tuple[list[Path], list[str]]:
    """Regenerate every block `<!-- repro:table PAPER [CELL PATTERN...] -->` ... `<!-- /repro:table -->`.

    Args:
        root: repository root; only records below <root>/results are used.
        check: change nothing.

    Returns:
        The files whose tables were (with `check`: are) out of date, and warnings about records.

    Raises:
        UserError: for an unpaired marker, an unknown paper, or a pattern that matches no cell.
    """
    stale: list[Path] = []
    warnings: list[str] = []
    for path in find_readmes(root):
        old = path.read_text(encoding="utf-8")
        if not _MARKER.search(old):
            continue
        if len(_MARKER.findall(old)) != 2 * len(_BLOCK.findall(old)):
            raise UserError(
                f"{path.relative_to(root)}: every <!-- repro:table PAPER --> needs its own <!-- /repro:table -->"
            )
        new = _regenerated(old, path, root, warnings)
        if new != old:
            stale.append(path)
            if not check:
                write_atomically(path, lambda file, text=new: file.write(text.encode("utf-8")))
    return stale, list(dict.fromkeys(warnings))


def _regenerated(text: str, path: Path, root: Path, warnings: list[str]) -> str:
    """The text of a README with new tables; `warnings` is extended."""
    return _BLOCK.sub(lambda block: block["open"] + _table(block["words"], path, root, warnings) + block["close"], text)


def _table(words: str, path: Path, root: Path, warnings: list[str]) -> str:
    paper, *patterns = words.split() or [""]
    if not paper:
        raise UserError(f"{path.relative_to(root)}: a repro:table marker names no paper")
    subproject = select_papers(read_registry(root), paper)[0]
    cells: list[Cell] | None = select_cells([subproject], patterns) if patterns else None
    runs = collect(subproject, root)
    warnings.extend(runs.warnings)
    return "\n" + render(table_sheets(runs, root, cells), "md", path.parent) + "\n"
