"""Run records: reading and checking the JSON files that every run writes."""

from __future__ import annotations

import gzip
import json
import math
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.training.errors import UserError
from common.training.options import OVERRIDES_MARKER

SCHEMA = 1
LABELS = ("shortened", "sub-sampled", "re-encoded", "desk-scale", "smoke", "fast")
"""What can make a run differ from the published setting; a run without any of them is a full one."""

ACCURACY_TOLERANCE = 0.02
"""Percentage points by which a stated average may differ from the one derived from the accuracy matrix."""

_NUMBER = (int, float)
_FIELDS: dict[str, Any] = {
    "schema": int,
    "run_id": str,
    "status": str,
    "paper": str,
    "cell": (str, type(None)),
    "method": str,
    "command": list,
    "config": dict,
    "changed": dict,
    "labels": list,
    "seed": int,
    "commit": (str, type(None)),
    "dirty": (bool, type(None)),
    "data": dict,
    "hardware": dict,
    "versions": dict,
    "numerics": dict,
    "started": str,
    "wall_seconds": _NUMBER,
    "metrics": dict,
}
_EARLIER = re.compile(r"earlier-\d+")
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


class RecordError(UserError):
    """A record that does not follow the schema; the message names the first thing that is wrong."""


@dataclass(frozen=True)
class Record:
    """A checked run record and the file that it came from."""

    path: Path
    content: dict[str, Any]

    @property
    def run_id(self) -> str:
        return self.content["run_id"]

    @property
    def cell(self) -> str | None:
        return self.content["cell"]

    @property
    def method(self) -> str:
        return self.content["method"]

    @property
    def metrics(self) -> dict[str, Any]:
        return self.content["metrics"]

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels in their usual order."""
        return tuple(label for label in LABELS if label in self.content["labels"])

    @property
    def changed(self) -> dict[str, Any]:
        """What differs from the published row; a seed does not: it repeats the same experiment."""
        return {flag: values for flag, values in self.content["changed"].items() if flag != "seed"}

    @property
    def finished(self) -> bool:
        return self.content["status"] == "finished"

    @property
    def is_full(self) -> bool:
        """Finished in the published setting: no label, nothing of the published row changed.

        A command without the marker does not tell the row from what its user changed; it is not taken for the row.
        """
        return self.finished and not self.labels and not self.changed and OVERRIDES_MARKER in self.content["command"]

    @property
    def part(self) -> str:
        """Which of several runs of one command this is, e.g. "reg_10/repeat_0"; empty for a run of its own."""
        return str(self.content.get("part") or "")

    @property
    def setting(self) -> str:
        """What else than seed and repetition tells this run from others of its cell, as text."""
        coefficients = [piece for piece in self.part.split("/") if piece and not piece.startswith("repeat_")]
        return json.dumps([self.labels, self.changed, coefficients], sort_keys=True)

    @property
    def series_path(self) -> Path | None:
        """File of the recorded series beside the record; None if the record names none."""
        name = self.content.get("series")
        return self.path.parent / name if name else None


def load_record(path: Path) -> Record:
    """Read and check one record; a folder stands for the `record.json` in it.

    Raises:
        RecordError: if it cannot be read or breaks the schema.
    """
    path = path / "record.json" if path.is_dir() else path
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise RecordError(f"{path}: no such file; expected a run record (record.json of a run)") from None
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(f"{path}: not a readable JSON file ({error})") from error
    problem = find_problem(content)
    if problem:
        raise RecordError(f"{path}: {problem}")
    return Record(path, content)


def load_records(folders: Iterable[Path]) -> tuple[list[Record], list[str]]:
    """Every record in the folders: `*.json` directly in each, and `record.json` at any depth.

    Folders `earlier-<n>`, where `--resume never` moves what a run replaces, are passed over. Of several records of
    one run the finished one counts, else the newest.

    Returns:
        The records ordered by run id, each run once, and one warning line per file that was left out.
    """
    records: dict[str, Record] = {}
    warnings: list[str] = []
    for folder in folders:
        for path in sorted({*folder.glob("*.json"), *folder.rglob("record.json")}):
            if any(_EARLIER.fullmatch(part) for part in path.relative_to(folder).parts):
                continue
            try:
                record = load_record(path)
            except RecordError as error:
                warnings.append(f"left out: {error}")
                continue
            other = records.setdefault(record.run_id, record)
            if _without_series(other.content) != _without_series(record.content):
                chosen, worse = sorted((other, record), key=_precedence, reverse=True)
                records[record.run_id] = chosen
                warnings.append(f"left out: {worse.path}: same run id as {chosen.path}, but other content")
    return sorted(records.values(), key=lambda record: record.run_id), warnings


def find_problem(content: Any) -> str | None:
    """The first reason why a record cannot be believed, or None.

    Checked are the fields and their types, that the labels agree with the rest of the record, and that the stated
    averages follow from the accuracy matrix.
    """
    if not isinstance(content, dict):
        return "expected one JSON object"
    for name, types in _FIELDS.items():
        if name not in content:
            return f"field {name!r} is missing"
        value = content[name]
        if not isinstance(value, types) or (isinstance(value, bool) and types in (int, _NUMBER)):
            return f"field {name!r} is {value!r}; wrong type"
    if not _is_number(content["wall_seconds"]):
        return "field 'wall_seconds' is not finite"
    if content["schema"] != SCHEMA:
        return f"schema {content['schema']}; this version reads schema {SCHEMA}"
    if content["status"] not in ("finished", "stopped"):
        return f"status {content['status']!r}; expected finished or stopped"
    for name in ("run_id", "paper"):
        if not _SAFE_NAME.fullmatch(content[name]):
            return f"{name} {content[name]!r} cannot be a file name"
    series = content.get("series")
    if series is not None and (not isinstance(series, str) or Path(series).name != series):
        return f"series {series!r}; expected the name of a file beside the record"
    facts = content.get("facts", {})
    if not isinstance(facts, dict) or not all(isinstance(text, str) for text in facts.values()):
        return "field 'facts': expected an object of texts"
    return _label_problem(content) or _metric_problem(content["metrics"])


def _label_problem(content: dict[str, Any]) -> str | None:
    labels = content["labels"]
    unknown = [label for label in labels if label not in LABELS]
    if unknown:
        return f"unknown label {unknown[0]!r}; known: {', '.join(LABELS)}"
    copy = content["data"].get("copy")
    if copy not in ("original", "re-encoded", "sub-sampled"):
        return f"data.copy is {copy!r}; expected original, re-encoded or sub-sampled"
    needed = {
        copy: copy != "original",
        "fast": bool(content["numerics"].get("fast")),
        "smoke": bool(content["config"].get("smoke")),
    }
    missing = [label for label, is_needed in needed.items() if is_needed and label not in labels]
    return f"it lacks the label {missing[0]!r}, which its other fields imply" if missing else None


def _metric_problem(metrics: dict[str, Any]) -> str | None:
    for name, value in metrics.items():
        if name in ("acc", "bwt") and isinstance(value, list):
            return f"metric {name!r} is a list; expected a number"
        if value is not None and not isinstance(value, list) and not _is_number(value):
            return f"metric {name!r} is {str(value)[:40]!r}; expected a number"
    matrix = metrics.get("accuracy_matrix")
    if not matrix:
        return None
    try:
        learned = [entry for task, row in enumerate(matrix) for entry in row[: task + 1]]
        entries = [entry for row in matrix for entry in row if entry is not None]
        is_whole = all(map(_is_number, [*learned, *entries]))
        derived = derive_averages(matrix) if is_whole else None
    except (TypeError, IndexError, KeyError, ValueError):
        derived = None
    if derived is None:
        return "accuracy_matrix: expected one row per task, each with a number for every task learned so far"
    for name, value in derived.items():
        if metrics.get(name) is not None and abs(metrics[name] - value) > ACCURACY_TOLERANCE:
            return f"metric {name!r} is {metrics[name]}, but the accuracy matrix gives {value:.2f}"
    return None


def derive_averages(matrix: list[list[float | None]]) -> dict[str, float]:
    """ACC and BWT after the last task.

    Args:
        matrix: row = after task, column = evaluated task; percent.

    Returns:
        acc: mean of the last row; bwt: mean over earlier tasks of (accuracy now - accuracy right after it was
        learned), 0 for a single task. Percent and percentage points.
    """
    last = [float(value) for value in matrix[-1][: len(matrix)]]
    if len(last) != len(matrix):
        raise IndexError("the last row is too short")
    earlier = [now - float(matrix[task][task]) for task, now in enumerate(last[:-1])]
    return {"acc": sum(last) / len(last), "bwt": sum(earlier) / len(earlier) if earlier else 0.0}


def read_series(record: Record) -> list[dict[str, Any]]:
    """The recorded series, one {"step", "task", "epoch", "name", "value"} per entry; empty if there is none."""
    path = record.series_path
    if path is None or not path.is_file():
        return []
    open_ = gzip.open if path.suffix == ".gz" else open
    with open_(path, "rt", encoding="utf-8") as file:
        # why: a killed run may leave an incomplete last line
        return [json.loads(line) for line in file if line.endswith("\n")]


def print_warnings(warnings: Iterable[str]) -> None:
    """One line each, on standard error."""
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)


def _precedence(record: Record) -> tuple[bool, str]:
    return record.finished, record.content["started"]


def newest_of_each(records: Iterable[Record]) -> tuple[list[Record], list[str]]:
    """Of finished runs that repeat each other (cell, seed, part and setting alike) only the newest.

    Returns:
        The records in their order, and one warning line per record that was left out.
    """
    chosen: dict[tuple[Any, ...], Record] = {}
    records, warnings = list(records), []
    for record in records:
        if record.finished:
            key = (record.cell, record.content["seed"], record.part, record.setting)
            other = chosen.setdefault(key, record)
            if other is not record:
                chosen[key], older = sorted((other, record), key=_precedence, reverse=True)
                warnings.append(f"left out: {older.path}: {chosen[key].path} is a newer run of the same cell and seed")
    kept = {id(record) for record in chosen.values()}
    return [record for record in records if id(record) in kept or not record.finished], warnings


def _without_series(content: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name != "series"}


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _is_number(value: Any) -> bool:
    """Whether a value is a finite number that fits a float."""
    if isinstance(value, bool) or not isinstance(value, _NUMBER):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def number(metrics: dict[str, Any], key: str) -> float | None:
    """A metric as a finite float, None if it is absent."""
    value = metrics.get(key)
    return float(value) if _is_number(value) else None
