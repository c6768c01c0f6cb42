"""Runs cells through their own launch scripts, one process after the other."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.training.errors import UNFINISHED_EXIT_CODE, UserError
from repro.records import Record, RecordError, load_record
from repro.registry import Cell

LAUNCHERS = ("local", "slurm")
GROUP_END_SECONDS = 120.0
"""How long a stopped run may take to save its checkpoint before the next thing happens."""

POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Job:
    """One run of one cell.

    Attributes:
        cell: what is run.
        seed: its seed.
        directory: absolute folder that the command is run in.
        output_dir: absolute folder of the run; `record.json` appears there.
        output_flag: the same as the script gets it; relative inside the repository, so that records name no machine.
        smoke: the short form.
        extra: flags that the user adds to the script's row.
    """

    cell: Cell
    seed: int
    directory: Path
    output_dir: Path
    output_flag: str
    smoke: bool = False
    extra: tuple[str, ...] = ()

    def command(self, seconds_left: float | None = None) -> list[str]:
        """The command line; `seconds_left` is handed on as the run's time budget."""
        words = ["sh", self.cell.script, self.cell.row, "--seed", str(self.seed), "--output_dir", self.output_flag]
        words += ["--smoke"] if self.smoke else []
        words += [] if seconds_left is None else ["--time_budget", f"{seconds_left:.0f}"]
        return [*words, *self.extra]

    def shown(self, seconds_left: float | None = None) -> str:
        """What a person types for the same."""
        return f"cd {shlex.quote(str(self.directory))} && {shlex.join(self.command(seconds_left))}"


@dataclass(frozen=True)
class Result:
    """What became of a job.

    Attributes:
        job: the job.
        status: "finished", "finished before", "stopped" (the same command goes on), "failed" or "not started".
        exit_code: of the script; None if it was not started.
        seconds: wall time.
        note: reason of a failure, or the result in words.
    """

    job: Job
    status: str
    exit_code: int | None = None
    seconds: float = 0.0
    note: str = ""


def plan(
    cells: Iterable[Cell], seeds: Sequence[int], root: Path, out: Path, smoke: bool = False, extra: Sequence[str] = ()
) -> list[Job]:
    """One job per cell and seed; the outputs of smoke runs lie apart from those of real ones.

    Raises:
        UserError: if a cell cannot be run yet, or its script is missing.
    """
    jobs = []
    for cell in cells:
        if cell.status:
            raise UserError(f"cell {cell.id} cannot be run: {cell.status}; leave it out")
        directory = root / cell.directory
        if not (directory / cell.script).is_file():
            raise UserError(f"cell {cell.id}: there is no {cell.directory}/{cell.script}; correct its experiments.toml")
        folder = (out / "smoke" if smoke else out).resolve() / cell.id
        for seed in seeds:
            output_dir = folder / f"seed{seed}"
            is_inside = output_dir.is_relative_to(root.resolve())
            flag = os.path.relpath(output_dir, directory.resolve()) if is_inside else str(output_dir)
            jobs.append(Job(cell, seed, directory, output_dir, flag, smoke, tuple(extra)))
    return jobs


def check_launcher(launcher: str) -> None:
    """Raises a UserError for a launcher that is unknown or does not exist yet."""
    if launcher == "slurm":
        raise UserError(
            "--launcher slurm is not there yet; use --launcher local, inside your own job script if need be"
        )
    if launcher not in LAUNCHERS:
        raise UserError(f"unknown launcher {launcher!r}; known: {', '.join(LAUNCHERS)}")


def run_jobs(jobs: Sequence[Job], time_budget: float | None = None) -> list[Result]:
    """Run the jobs in order; a failure does not stop the others, a termination signal does.

    Args:
        jobs: what to run; those with a finished record are skipped.
        time_budget: seconds for all jobs together. A run gets what is left and saves a checkpoint when it is used up.
    """
    results: list[Result] = []
    start = time.monotonic()
    is_interrupted = False
    for job in jobs:
        left = None if time_budget is None else time_budget - (time.monotonic() - start)
        before = finished_record(job)
        if before is not None:
            results.append(Result(job, "finished before", note=_summary(before)))
        elif is_interrupted:
            results.append(Result(job, "not started", note="interrupted"))
        elif left is not None and left < 1:
            results.append(Result(job, "not started", note="time budget used up"))
        else:
            result, is_interrupted = _run(job, left)
            results.append(result)
    return results


def finished_record(job: Job) -> Record | None:
    """The record of an earlier run of the same job, if it is finished.

    None as well where the earlier run was another experiment (smoke or not, other extra flags): the program itself
    then says what to do with the folder.
    """
    try:
        record = load_record(job.output_dir)
    except RecordError:
        return None
    is_same_form = ("smoke" in record.labels) == job.smoke and record.content["seed"] == job.seed
    may_differ = bool(job.extra) or job.smoke or job.cell.demo
    has_same_flags = _contains(record.content["command"], job.extra) and (may_differ or not record.changed)
    return record if record.finished and is_same_form and has_same_flags else None


def exit_code_of(results: Iterable[Result]) -> int:
    """1 if a run failed; else 75 if one is unfinished and the same command goes on; else 0."""
    statuses = {result.status for result in results}
    if "failed" in statuses:
        return 1
    return UNFINISHED_EXIT_CODE if statuses & {"stopped", "not started"} else 0


def _run(job: Job, seconds_left: float | None) -> tuple[Result, bool]:
    """Run one job; returns its result and whether a signal asked everything to stop."""
    job.output_dir.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    code, is_interrupted = _run_process(job.command(seconds_left), job.directory, job.smoke)
    seconds = time.monotonic() - start
    record = finished_record(job)
    if code == 0 and record is not None:
        return Result(job, "finished", code, seconds, _summary(record)), is_interrupted
    if code == UNFINISHED_EXIT_CODE or is_interrupted:
        return Result(job, "stopped", code, seconds, "the same command goes on"), is_interrupted
    if code == 0:
        return Result(job, "failed", code, seconds, _why_no_record(job)), is_interrupted
    return Result(job, "failed", code, seconds, "see its output above"), is_interrupted


def _run_process(command: Sequence[str], directory: Path, smoke: bool) -> tuple[int, bool]:
    """Run a command in a process group of its own; the first SIGINT or SIGTERM is handed to the group as SIGTERM.

    why: a shell that is told to end does so before the program it started has saved its checkpoint; so the whole
    group gets the signal, and is waited for.
    """
    # why: scripts call "python" unless PYTHON says otherwise; it has to be the one that runs this program
    environment = {"PYTHON": sys.executable, **os.environ, **({"SMOKE": "1"} if smoke else {})}
    process = subprocess.Popen(command, cwd=directory, env=environment, start_new_session=True)
    received: list[int] = []

    def hand_on(number: int, frame: object) -> None:
        received.append(number)
        _signal_group(process.pid, signal.SIGTERM)

    previous = {number: signal.signal(number, hand_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        code = process.wait()
        deadline = time.monotonic() + GROUP_END_SECONDS
        while received and _signal_group(process.pid, 0) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    return code, bool(received)


def _signal_group(group: int, number: int) -> bool:
    """Send a signal to a process group (0 only asks); False once the group is gone."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


def _why_no_record(job: Job) -> str:
    try:
        record = load_record(job.output_dir)
    except RecordError as error:
        return f"it ended without a valid record: {error}"
    if not record.finished:
        return f"it ended with exit code 0, but its record says {record.content['status']}"
    return "its record belongs to another experiment (other seed, flags or form); use another --out"


def _summary(record: Record) -> str:
    names = [name for name in ("acc", "bwt") if record.metrics.get(name) is not None]
    parts = [f"{name.upper()} {record.metrics[name]:.2f}" for name in names]
    return ", ".join(parts + [f"labels: {', '.join(record.labels)}"] if record.labels else parts)


def _contains(words: Sequence[str], part: Sequence[str]) -> bool:
    """Whether `part` occurs in `words` as one piece."""
    return any(list(words[n : n + len(part)]) == list(part) for n in range(len(words) - len(part) + 1))
