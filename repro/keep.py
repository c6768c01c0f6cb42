"""Copies finished run records into results/, where the tables find them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from common.training.errors import UserError
from common.training.files import write_atomically
from repro.pictures import MOST_BYTES, MOST_PER_RUN, find_pictures, kept_folder
from repro.records import Record, load_record

COMPRESS_ABOVE_BYTES = 16 * 1024


def keep_record(path: Path, root: Path, pictures: int = MOST_PER_RUN) -> list[Path]:
    """Copy a finished record and its series into <root>/results/<paper>/.

    The series is renamed to <run_id>.series.jsonl, and compressed if it is large; the run's newest pictures, at most
    so many, are taken along, for the report.

    Returns:
        The files that belong to the kept record (also when they were there already).

    Raises:
        UserError: if the record is not finished, breaks the schema, its series is missing, or a file of that name
            with other content exists.
    """
    record = load_record(path)
    if not record.finished:
        raise UserError(
            f"{path}: the run is {record.content['status']}, only finished runs are kept; run it to its end first"
        )
    folder = root / "results" / record.content["paper"]
    content = dict(record.content)
    files: dict[Path, bytes] = {}
    if record.series_path is not None:
        if not record.series_path.is_file():
            raise UserError(
                f"{path}: its series {record.series_path.name} is missing; keep the record from its run's folder"
            )
        series = record.series_path.read_bytes()
        is_packed = record.series_path.suffix == ".gz"
        if len(series) > COMPRESS_ABOVE_BYTES and not is_packed:
            series, is_packed = gzip.compress(series, mtime=0), True
        content["series"] = f"{record.run_id}.series.jsonl{'.gz' if is_packed else ''}"
        files[folder / content["series"]] = series
    files[folder / f"{record.run_id}.json"] = (json.dumps(content, indent=1) + "\n").encode()
    kept = Record(folder / f"{record.run_id}.json", content)
    for picture in find_pictures(record, pictures):
        if record.path.name == "record.json" and picture.stat().st_size <= MOST_BYTES:
            files[kept_folder(kept) / picture.relative_to(record.path.parent)] = picture.read_bytes()
    for target, data in files.items():
        if target.is_file() and _unpacked(target.read_bytes()) != _unpacked(data):
            raise UserError(
                f"{target} exists with other content; results are never overwritten, move it away if it is wrong"
            )
    for target, data in files.items():
        if not target.exists():
            write_atomically(target, lambda file, data=data: file.write(data))
    return list(files)


def machine_paths(content: Any, place: str = "") -> list[str]:
    """Names of the fields that hold an absolute path: they tell about a machine, not about the experiment."""
    if isinstance(content, dict):
        return [found for key, value in content.items() for found in machine_paths(value, f"{place}.{key}".lstrip("."))]
    if isinstance(content, list):
        return [found for n, value in enumerate(content) for found in machine_paths(value, f"{place}[{n}]")]
    return [place] if isinstance(content, str) and content.startswith(("/", "~/")) else []


def _unpacked(data: bytes) -> bytes:
    """The content of a file; the same series may be packed to other bytes by another zlib."""
    return gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
