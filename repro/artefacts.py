"""Shipped artefacts (weights, samples, lists, recorded numbers): what they are, their licence, what rebuilds them.

`repro/artefacts.toml` says which files belong to which artefact; `repro/artefacts.json` holds their sizes and hashes.
It is written by `repro manifest`, and `repro check` compares it with the files.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.training.errors import UserError
from common.training.files import write_json
from repro.formats import Sheet
from repro.toml_tables import CheckedTable, read_toml

DECLARED = Path("repro") / "artefacts.toml"
MANIFEST = Path("repro") / "artefacts.json"
BINARY = (".safetensors", ".npz", ".npy", ".gz", ".webp", ".png", ".jpg", ".pt", ".pth", ".zip")
"""Endings of files that must belong to an artefact: they cannot be read, so somebody has to say what they are."""

COLUMNS = {
    "what": "artefact",
    "files": "files",
    "size": "size",
    "sha256": "SHA-256",
    "licence": "licence",
    "rebuild": "rebuilt by",
}


@dataclass(frozen=True)
class Artefact:
    """One artefact.

    Attributes:
        id: its name.
        what: one line.
        files: patterns, relative to the repository root; "**" crosses folders.
        licence: of the content.
        rebuild: the command that makes it again, or why nothing here does.
        papers: papers that use it; empty for all.
        optional: it may be missing: not made yet, or too large to ship.
    """

    id: str
    what: str
    files: tuple[str, ...]
    licence: str
    rebuild: str
    papers: tuple[str, ...] = ()
    optional: bool = False


def read_artefacts(root: Path) -> list[Artefact]:
    """The declared artefacts; empty if there is no declaration.

    Raises:
        UserError: for a mistake in the file, naming the artefact.
    """
    path = root / DECLARED
    if not path.is_file():
        return []
    top = CheckedTable(read_toml(path, DECLARED), str(DECLARED), {"artefact": list})
    artefacts = []
    for entry in top.get("artefact", []):
        name = entry.get("id", "without id") if isinstance(entry, dict) else "?"
        types = {
            **dict.fromkeys(("id", "what", "licence", "rebuild"), str),
            "files": list,
            "papers": list,
            "optional": bool,
        }
        table = CheckedTable(entry, f"{DECLARED}, artefact {name!r}", types)
        texts = [table.get(key) for key in ("id", "what", "licence", "rebuild")]
        what, licence, rebuild = texts[1:]
        files, papers = tuple(table.get("files")), tuple(table.get("papers", []))
        artefact = Artefact(texts[0], what, files, licence, rebuild, papers, table.get("optional", False))
        if not artefact.optional or any(path.is_file() for pattern in files for path in root.glob(pattern)):
            artefacts.append(artefact)
    ids = [artefact.id for artefact in artefacts]
    if len(set(ids)) < len(ids):
        raise UserError(f"{DECLARED}: an id occurs twice; ids must differ")
    return artefacts


def measure(artefact: Artefact, root: Path) -> dict[str, Any]:
    """Number of files, bytes, and hash of an artefact.

    The hash of one file is its own; that of several is the SHA-256 of the lines "<sha256>  <path>", sorted by path, as
    `sha256sum` prints them.

    Raises:
        UserError: if a pattern matches no file.
    """
    paths: set[Path] = set()
    for pattern in artefact.files:
        found = {path for path in root.glob(pattern) if path.is_file() and "__pycache__" not in path.parts}
        if not found:
            raise UserError(f"{DECLARED}, artefact {artefact.id!r}: no file matches {pattern}")
        paths |= found
    hashes = {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(hashes.items()))
    digest = next(iter(hashes.values())) if len(hashes) == 1 else hashlib.sha256(lines.encode()).hexdigest()
    return {"files": len(hashes), "bytes": sum(path.stat().st_size for path in paths), "sha256": digest}


def build_manifest(root: Path) -> dict[str, dict[str, Any]]:
    """Id -> what `measure` found, with licence and command."""
    return {
        artefact.id: {
            "what": artefact.what,
            "patterns": list(artefact.files),
            **measure(artefact, root),
            "licence": artefact.licence,
            "rebuild": artefact.rebuild,
        }
        for artefact in read_artefacts(root)
    }


def write_manifest(root: Path) -> bool:
    """Write the manifest; returns whether it changed."""
    old, new = read_manifest(root), build_manifest(root)
    if old != new:
        write_json(root / MANIFEST, new)
    return old != new


def read_manifest(root: Path) -> dict[str, dict[str, Any]]:
    """The written manifest; empty if there is none.

    Raises:
        UserError: if it cannot be read.
    """
    path = root / MANIFEST
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{MANIFEST}: not readable ({error}); write it again by `repro manifest`") from error
    if not isinstance(content, dict):
        raise UserError(f"{MANIFEST}: expected one JSON object; write it again by `repro manifest`")
    return content


def find_problems(root: Path) -> list[str]:
    """One line for every artefact whose files differ from the manifest."""
    written, found = read_manifest(root), build_manifest(root)
    problems = [f"{MANIFEST}: {id} is no declared artefact" for id in written if id not in found]
    for id, entry in found.items():
        if id not in written:
            problems.append(f"{MANIFEST}: {id} is missing")
        elif written[id] != entry:
            keys = [key for key in entry if written[id].get(key) != entry[key]]
            problems.append(f"{MANIFEST}: {id} differs in {', '.join(keys)}")
    return problems


def uncovered(names: Iterable[str], artefacts: Sequence[Artefact]) -> list[str]:
    """Binary files (paths relative to the root) that belong to no artefact."""
    patterns = [pattern for artefact in artefacts for pattern in artefact.files]
    return [
        name
        for name in names
        if name.endswith(BINARY) and not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    ]


def artefacts_sheet(root: Path, paper: str | None = None) -> Sheet:
    """The artefacts of a paper (or all) with sizes and hashes from the manifest."""
    written = read_manifest(root)
    sheet = Sheet("artefacts", "", COLUMNS, data=[])
    for artefact in read_artefacts(root):
        if paper is not None and artefact.papers and paper not in artefact.papers:
            continue
        entry = written.get(artefact.id)
        if entry is None:
            raise UserError(f"{MANIFEST} lacks {artefact.id}; run `repro manifest`")
        sheet.rows.append(
            {
                "what": artefact.what,
                "files": str(entry["files"]),
                "size": f"{entry['bytes'] / 1e6:.2f} MB",
                "sha256": f"`{entry['sha256'][:16]}`",
                "licence": artefact.licence,
                "rebuild": artefact.rebuild,
            }
        )
        sheet.data.append({"id": artefact.id, **entry})
    if sheet.rows:
        sheet.note = "Hashes in full: `repro/artefacts.json`; of several files, the hash of their list of hashes."
    return sheet
