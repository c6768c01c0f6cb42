"""Generated blocks of README and REPRODUCTION files: regenerated from committed files, and checked to be up to date.

A block stands between `<!-- repro:KIND WORDS -->` and `<!-- /repro:KIND -->`; the kinds are those of
`repro.blocks.BLOCKS`.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from common.training.errors import UserError
from common.training.files import write_atomically
from repro.blocks import BLOCKS, Repository
from repro.registry import read_registry

_BLOCK = re.compile(
    r"(?P<open><!-- repro:(?P<kind>\w+)(?P<words>[^>]*?) *-->\n)(?P<body>.*?)(?P<close><!-- /repro:(?P=kind) -->)", re.S
)
_MARKER = re.compile(r"<!-- /?repro:\w*[^>]*-->")
_SKIPPED_FOLDERS = {"data", "outputs", "build", "dist", "node_modules", "site"}
NAMES = ("README.md", "REPRODUCTION.md")


def find_readmes(root: Path) -> list[Path]:
    """README and REPRODUCTION files at most two folders below the root, without hidden and generated folders."""
    paths = [path for name in NAMES for folder in (".", "*", "*/*") for path in root.glob(f"{folder}/{name}")]
    return sorted(
        path
        for path in dict.fromkeys(paths)
        if not any(part.startswith(".") or part in _SKIPPED_FOLDERS for part in path.relative_to(root).parts)
    )


def update_readmes(root: Path, check: bool = False) -> tuple[list[Path], list[str]]:
    """Regenerate every block.

    Args:
        root: repository root; only records below <root>/results are used.
        check: change nothing.

    Returns:
        The files whose blocks were (with `check`: are) out of date, and warnings about records.

    Raises:
        UserError: for an unpaired marker, an unknown kind or paper, or a pattern that matches no cell.
    """
    stale: list[Path] = []
    warnings: list[str] = []
    repository = Repository(root, read_registry(root))
    for path in find_readmes(root):
        old = path.read_text(encoding="utf-8")
        if not _MARKER.search(old):
            continue
        if len(_MARKER.findall(old)) != 2 * len(_BLOCK.findall(old)):
            raise UserError(
                f"{path.relative_to(root)}: every <!-- repro:KIND ... --> needs its own <!-- /repro:KIND -->"
            )
        new = _BLOCK.sub(partial(_regenerated, path=path, repository=repository, warnings=warnings), old)
        if new != old:
            stale.append(path)
            if not check:
                write_atomically(path, lambda file, text=new: file.write(text.encode("utf-8")))
    return stale, list(dict.fromkeys(warnings))


def _regenerated(block: re.Match[str], path: Path, repository: Repository, warnings: list[str]) -> str:
    kind, place = block["kind"], path.relative_to(repository.root)
    if kind not in BLOCKS:
        raise UserError(f"{place}: unknown block repro:{kind}; known: {', '.join(BLOCKS)}")
    try:
        text, found = BLOCKS[kind](block["words"].split(), path.parent, repository)
    except UserError as error:
        raise UserError(f"{place}, block repro:{kind}: {error}") from error
    warnings.extend(found)
    return f"{block['open']}\n{text}\n{block['close']}"
