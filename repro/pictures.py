"""Pictures that runs kept (synthesised images, segmentations), made part of the page."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro.records import Record

FOLDERS = {"images": "synthesised images", "pictures": "segmentation: image, truth, prediction"}
"""Folder of a run -> what its pictures show."""

PNG = b"\x89PNG\r\n\x1a\n"
MOST_BYTES = 400 * 1024
MOST_PER_RUN = 3


@dataclass(frozen=True)
class Picture:
    """One picture.

    Attributes:
        run_id: the run that kept it.
        name: of the file.
        shows: in words.
        data: data URI.
    """

    run_id: str
    name: str
    shows: str
    data: str


def kept_folder(record: Record) -> Path:
    """Where `repro keep` puts the pictures of a record in results/."""
    return record.path.parent / f"{record.run_id}.pictures"


def find_pictures(record: Record, most: int = MOST_PER_RUN) -> list[Path]:
    """A run's newest pictures, in the order of their names: beside a kept record, or in the folders of its run."""
    if record.path.name == "record.json":
        folders = [record.path.parent / name for name in FOLDERS]
    else:
        folders = [kept_folder(record) / name for name in FOLDERS]
    found = []
    for folder in folders:
        found += sorted(folder.rglob("*.png"), key=_counted)[-most:] if most and folder.is_dir() else []
    return found


def _counted(path: Path) -> list[Any]:
    """For an order in which step_9 comes before step_10."""
    return [int(piece) if piece.isdigit() else piece for piece in re.split(r"(\d+)", path.as_posix())]


def paper_pictures(records: Sequence[Record]) -> tuple[list[Picture], list[str]]:
    """All pictures of some runs, and one warning per file that cannot be shown."""
    pictures: list[Picture] = []
    warnings: list[str] = []
    for record in records:
        for path in find_pictures(record):
            content = path.read_bytes()
            if not content.startswith(PNG) or len(content) > MOST_BYTES:
                problem = "larger than 400 KiB" if content.startswith(PNG) else "no PNG"
                warnings.append(f"left out: {path}: {problem}")
                continue
            kind = next(shows for name, shows in FOLDERS.items() if name in path.parts)
            data = "data:image/png;base64," + base64.b64encode(content).decode()
            pictures.append(Picture(record.run_id, path.stem, f"{kind}; {path.stem.replace('_', ' ')}", data))
    return pictures, warnings
