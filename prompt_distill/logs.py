"""The authors' logged matrices beside ours: what `repro logs prompt_distill` shows."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LOGS = ROOT / "repro" / "paper" / "prompt_distill" / "author_logs.csv"

CELLS = {
    "log_base_small_c100": "prompt_distill/cifar-base-small-coda-cdl",
    "log_base_tiny_c100": "prompt_distill/cifar-base-tiny-coda-cdl",
    "log_large_base_c100": "prompt_distill/cifar-large-base-coda-cdl",
    "log_base_small_inr_a": "prompt_distill/imagenet-r-base-small-coda-cdl",
    "log_base_small_inr_b": "prompt_distill/imagenet-r-base-small-coda-cdl",
    "log_kdp_inr": "prompt_distill/imagenet-r-base-small-coda-kdp",
}
"""Logged run -> cell that repeats it."""

_CELL = re.compile(r"acc_task(\d+)_after_task(\d+)")
_AVERAGE = re.compile(r"average_accuracy_after_task(\d+)")


@dataclass
class LoggedRun:
    """One logged run.

    Attributes:
        name, setting: of the CSV.
        values: (who, metric) -> value; who is "student" or "teacher".
    """

    name: str
    setting: str
    values: dict[tuple[str, str], float] = field(default_factory=dict)

    def matrix(self, who: str) -> dict[tuple[int, int], float]:
        """(after task, task) -> accuracy, percent."""
        found = {}
        for (whose, metric), value in self.values.items():
            match = _CELL.fullmatch(metric)
            if match and whose == who:
                found[int(match[2]), int(match[1])] = value
        return found

    def averages(self, who: str) -> dict[int, float]:
        """After task -> average accuracy, percent."""
        found = {}
        for (whose, metric), value in self.values.items():
            match = _AVERAGE.fullmatch(metric)
            if match and whose == who:
                found[int(match[1])] = value
        return found


def read_logs(path: Path = LOGS) -> dict[str, LoggedRun]:
    """All logged runs by name."""
    runs: dict[str, LoggedRun] = {}
    with open(path, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            run = runs.setdefault(row["table"], LoggedRun(row["table"], row["setting"]))
            who = "teacher" if "teacher" in row["method"] else "student"
            run.values[who, row["metric"]] = float(row["value"])
    return runs


def find_records(folders: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Finished records below some folders that are unshortened and in which no more than the seed was changed."""
    for folder in folders:
        for path in sorted(folder.rglob("*.json")) if folder.is_dir() else ():
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            if not isinstance(record, dict) or record.get("status") != "finished" or record.get("labels"):
                continue
            if not set(record.get("changed") or {}) - {"seed"}:
                yield record


def shown_records(folders: Sequence[Path]) -> dict[str, tuple[dict[str, Any], str]]:
    """Cell -> its record with the lowest seed, and which seed that is of how many."""
    by_cell: dict[str, dict[int, dict[str, Any]]] = {}
    for record in find_records(folders):
        by_cell.setdefault(str(record.get("cell")), {}).setdefault(record.get("seed", 0), record)
    shown = {}
    for cell, records in by_cell.items():
        seeds = sorted(records)
        others = f" of {', '.join(map(str, seeds))}" if len(seeds) > 1 else ""
        shown[cell] = records[seeds[0]], f"seed {seeds[0]}{others}"
    return shown


def compared_numbers(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """Every logged final value, average and matrix entry beside ours.

    The logged runs need the published backbones, which are not shipped; without such a run of ours that is said.

    Args:
        folders: with run records.

    Returns:
        Dictionaries with "log", "setting" (and the seed of our run), "cell", "who", "quantity", "authors", "ours" (None
        without a full run) and, without any, "missing".
    """
    shown = shown_records(folders)
    rows = []
    for run in read_logs().values():
        record, seed = shown.get(CELLS.get(run.name, ""), ({}, ""))
        metrics = record.get("metrics", {})
        setting = f"{run.setting}; ours: {seed}" if seed else run.setting
        head = {"log": run.name, "setting": setting, "cell": CELLS.get(run.name, "no cell")}
        head |= {} if metrics else {"missing": "needs weights"}
        values = [
            ("student", "A", run.values.get(("student", "average_accuracy")), metrics.get("acc")),
            ("student", "F", _forgetting(run), metrics.get("forgetting")),
            ("teacher", "A", run.values.get(("teacher", "average_accuracy")), metrics.get("teacher_acc")),
        ]
        for who, prefix in (("student", ""), ("teacher", "teacher_")):
            ours = metrics.get(f"{prefix}acc_history") or []
            for after, value in sorted(run.averages(who).items()):
                values.append((who, f"A after task {after}", value, ours[after - 1] if after <= len(ours) else None))
            table = metrics.get(f"{prefix}accuracy_matrix") or []
            for (after, task), value in sorted(run.matrix(who).items()):
                mine = table[after - 1][task - 1] if after <= len(table) else None
                values.append((who, f"task {task} after task {after}", value, mine))
        rows += [
            {**head, "who": who, "quantity": quantity, "authors": value, "ours": mine}
            for who, quantity, value, mine in values
            if value is not None
        ]
    return rows


def _forgetting(run: LoggedRun) -> float | None:
    """The logged forgetting; one early log prints it with the opposite sign."""
    turned = run.values.get(("student", "forgetting_printed_with_opposite_sign"))
    return run.values.get(("student", "forgetting")) if turned is None else -turned
