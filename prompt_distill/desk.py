"""The table of the desk bench, and its claim: does the distilled student beat the student alone?

    python -m prompt_distill.desk                   # records in results/ and outputs/
    python -m prompt_distill.desk --records DIR

Runs of the same prompt method and seed are paired; the interval is the 95 % one of Student's t over these pairs.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scipy import stats

from common.training.errors import UserError, command_line
from common.training.options import is_machine_option
from prompt_distill.options import PromptDistillOptions

ROOT = Path(__file__).resolve().parents[1]
LEARNERS, METHODS, BASELINE = ("coda", "dual", "l2p"), ("alone", "cdl", "kdp"), "alone"
CONFIDENCE = 0.95

Runs = dict[tuple[str, str], dict[int, dict[str, Any]]]


def read_runs(folders: Sequence[Path]) -> Runs:
    """(learner, method) -> seed -> metrics, of finished desk runs that nothing was changed in.

    Raises:
        UserError: if two runs of the same cell and seed have settings that compute something different.
    """
    runs: Runs = {}
    settings: dict[tuple[str, str, int], dict[str, Any]] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*.json")) if folder.is_dir() else ():
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            cell = str(record.get("cell") or "") if isinstance(record, dict) else ""
            if not cell.startswith("prompt_distill/desk-") or record.get("status") != "finished":
                continue
            if "smoke" in record["labels"] or record["changed"].keys() - {"seed"}:
                continue
            learner, method = cell.removeprefix("prompt_distill/desk-").split("-")
            key = (learner, method, record["seed"])
            config = {
                name: value
                for name, value in record["config"].items()
                if not is_machine_option(PromptDistillOptions, name)
            }
            if settings.setdefault(key, config) != config:
                raise UserError(f"{path}: another run of {cell} with seed {record['seed']} has other settings")
            runs.setdefault((learner, method), {})[record["seed"]] = record["metrics"]
    return runs


def interval(differences: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    """Mean and bounds of Student's interval; infinite bounds for a single difference."""
    mean = statistics.fmean(differences)
    if len(differences) < 2:
        return mean, -math.inf, math.inf
    half = stats.t.ppf((1 + confidence) / 2, len(differences) - 1) * statistics.stdev(differences)
    half /= math.sqrt(len(differences))
    return mean, mean - half, mean + half


def table(runs: Runs) -> list[str]:
    """A and F of every cell, markdown."""
    lines = [
        "| prompts | method | A: mean ± std (n) | F: mean ± std | A of the teacher |",
        "| --- | --- | --- | --- | --- |",
    ]
    for learner in LEARNERS:
        for method in METHODS:
            metrics = list(runs.get((learner, method), {}).values())
            if not metrics:
                lines.append(f"| {learner} | {method} | not run |  |  |")
                continue
            acc, forgetting = ([entry[name] for entry in metrics] for name in ("acc", "forgetting"))
            taught = [entry["teacher_acc"] for entry in metrics if entry.get("teacher_acc") is not None]
            teacher = f"{statistics.fmean(taught):.2f}" if taught else "none"
            lines.append(f"| {learner} | {method} | {_spread(acc)} ({len(acc)}) | {_spread(forgetting)} | {teacher} |")
    return lines


def claims(runs: Runs) -> list[str]:
    """One sentence per distillation method: the paired difference to the student alone, and what it says."""
    sentences = []
    for method in METHODS:
        if method == BASELINE:
            continue
        differences = []
        for learner in LEARNERS:
            alone, distilled = runs.get((learner, BASELINE), {}), runs.get((learner, method), {})
            differences += [distilled[seed]["acc"] - alone[seed]["acc"] for seed in sorted(set(alone) & set(distilled))]
        if not differences:
            sentences.append(f"{method}: not run")
            continue
        mean, low, high = interval(differences)
        verdict = "beats" if low > 0 else "is beaten by" if high < 0 else "cannot be told from"
        sentences.append(
            f"{method}: the distilled student {verdict} the student alone, A {mean:+.2f} points, "
            f"{CONFIDENCE:.0%} interval {low:+.2f} to {high:+.2f}, {len(differences)} pairs"
        )
    return sentences


def main(argv: Sequence[str] | None = None) -> list[str]:
    """Print table and claims; returns the claims."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, action="append", default=[], help="one more folder with records")
    args = parser.parse_args(argv)
    folders = [*args.records, ROOT / "results" / "prompt_distill", ROOT / "outputs" / "prompt_distill"]
    runs = read_runs(folders)
    sentences = claims(runs)
    print("\n".join([*table(runs), "", *sentences]))
    return sentences


def _spread(values: Sequence[float]) -> str:
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.2f}{deviation}"


if __name__ == "__main__":
    command_line(main)()
