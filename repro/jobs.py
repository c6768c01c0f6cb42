"""Jobs: one run of one cell with one seed, its command, what it is expected to need, and what became of it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from common.training.errors import UNFINISHED_EXIT_CODE, UserError
from common.training.options import OVERRIDES_MARKER
from repro.records import Record, RecordError, load_record, load_records
from repro.registry import Cell

DEFAULT_MEMORY_GIB = 4.0
"""What a run is taken to need where neither its cell nor an earlier record says."""

_EXECUTION = ("--seed", "--output_dir", "--resume", "--time_budget", "--checkpoint_interval", "--smoke")
_EXECUTION += ("--gpuid", "--gpu", "--gpu_device", "--workers", "--num_workers")
"""Flags of which a finished run is found again whatever they say (seed and form are compared by the record)."""


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
        memory_gib: main memory that it is expected to need.
        environment: variables that a launcher adds.
    """

    cell: Cell
    seed: int
    directory: Path
    output_dir: Path
    output_flag: str
    smoke: bool = False
    extra: tuple[str, ...] = ()
    memory_gib: float = DEFAULT_MEMORY_GIB
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Cell and seed."""
        return f"{self.cell.id}, seed {self.seed}"

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
        status: "finished", "finished before", "stopped" (the same command goes on), "failed", "submitted" or
            "not started".
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
    cells: Iterable[Cell],
    seeds: Sequence[int],
    root: Path,
    out: Path,
    smoke: bool = False,
    extra: Sequence[str] = (),
    memory: Mapping[str, float] | None = None,
) -> list[Job]:
    """One job per cell and seed; the outputs of smoke runs lie apart from those of real ones.

    Args:
        cells, seeds: what is run.
        root: repository root.
        out: folder of all outputs.
        smoke: the short form.
        extra: flags for the scripts.
        memory: cell id -> GiB that earlier runs needed.

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
        need = cell.memory_gib or (memory or {}).get(cell.id) or DEFAULT_MEMORY_GIB
        for seed in seeds:
            output_dir = folder / f"seed{seed}"
            is_inside = output_dir.is_relative_to(root.resolve())
            flag = os.path.relpath(output_dir, directory.resolve()) if is_inside else str(output_dir)
            jobs.append(Job(cell, seed, directory, output_dir, flag, smoke, tuple(extra), need))
    return jobs


def finished_record(job: Job) -> Record | None:
    """The record of an earlier run of the same job, if it is finished.

    None as well where the earlier run was another experiment (smoke or not, other extra flags) or the user wants to
    start over: the program itself then says what to do with the folder.
    """
    record = _record_of(job)
    if record is None or "never" in _added(job.extra).get("--resume", ()):
        return None
    wanted = _experiment([OVERRIDES_MARKER, *job.extra])
    is_as_told = bool(wanted) or not record.changed.keys() - {"smoke"}
    return record if is_as_told and _experiment(record.content["command"]) == wanted else None


def result_of(job: Job, code: int, seconds: float, is_interrupted: bool = False, log: Path | None = None) -> Result:
    """The result of a process that ended.

    Args:
        job: what was run.
        code: the script's exit code.
        seconds: wall time.
        is_interrupted: whether it was told to stop.
        log: file with its output; None where the output was shown.
    """
    # why: a program that ends well has itself compared its flags with those of the folder
    if code == 0 and (record := _record_of(job)) is not None:
        return Result(job, "finished", code, seconds, summarise(record))
    if code == 0 and (parts := _records_of_parts(job)):
        return Result(job, "finished", code, seconds, f"{len(parts)} runs: {summarise(parts[-1])} (the last)")
    if code == UNFINISHED_EXIT_CODE or is_interrupted:
        return Result(job, "stopped", code, seconds, "the same command goes on")
    if code == 0:
        return Result(job, "failed", code, seconds, _why_no_record(job))
    return Result(job, "failed", code, seconds, "see its output above" if log is None else _last_line(log))


def exit_code_of(results: Iterable[Result]) -> int:
    """1 if a run failed; else 75 if one is unfinished and the same command goes on; else 0."""
    statuses = {result.status for result in results}
    if "failed" in statuses:
        return 1
    return UNFINISHED_EXIT_CODE if statuses & {"stopped", "not started"} else 0


def cost_lines(jobs: Sequence[Job]) -> list[str]:
    """What jobs are expected to cost, by hardware; the registry's estimates, finished jobs left out."""
    open_jobs = [job for job in jobs if finished_record(job) is None]
    if not open_jobs:
        return ["nothing to run: every job is finished"]
    hours: dict[str, list[float | None]] = {}
    for job in open_jobs:
        hours.setdefault(job.cell.cost_hardware or "hardware not stated", []).append(job.cell.cost_hours)
    lines = [f"{len(open_jobs)} of {len(jobs)} runs are open"]
    if any(job.smoke for job in open_jobs):
        return [*lines, "short forms: about a minute each on a CPU"]
    for hardware, values in hours.items():
        known = [value for value in values if value is not None]
        unknown = f"; {len(values) - len(known)} runs without an estimate" if len(known) < len(values) else ""
        lines.append(f"about {sum(known):.4g} h on {hardware} ({len(known)} runs){unknown}")
    return lines


def summarise(record: Record) -> str:
    """The result in words."""
    names = [name for name in ("acc", "bwt") if record.metrics.get(name) is not None]
    parts = [f"{name.upper()} {record.metrics[name]:.2f}" for name in names]
    return ", ".join(parts + [f"labels: {', '.join(record.labels)}"] if record.labels else parts)


def _why_no_record(job: Job) -> str:
    try:
        record = load_record(job.output_dir)
    except RecordError as error:
        return f"it ended without a valid record: {error}"
    if not record.finished:
        return f"it ended with exit code 0, but its record says {record.content['status']}"
    return "its record is of another seed or form; use another --out"


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return f"{lines[-1][:200] if lines else 'no output'} (all output: {os.path.relpath(log)})"


def _record_of(job: Job) -> Record | None:
    """The finished record in the job's folder, if it has the job's seed and form."""
    try:
        record = load_record(job.output_dir)
    except RecordError:
        return None
    return record if _is_finished(record, job) and record.content["seed"] == job.seed else None


def _records_of_parts(job: Job) -> list[Record]:
    """The records of a command that makes several runs, each in a folder of its own; empty if one is not finished."""
    found = load_records([job.output_dir])[0]
    return found if all(_is_finished(record, job) for record in found) else []


def _is_finished(record: Record, job: Job) -> bool:
    return record.finished and ("smoke" in record.labels) == job.smoke


def _experiment(command: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """What a command adds to its row and what changes the result."""
    added = _added(command[command.index(OVERRIDES_MARKER) + 1 :] if OVERRIDES_MARKER in command else ())
    return {flag: values for flag, values in added.items() if flag not in _EXECUTION}


def _added(words: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Flag -> its values; of a flag that occurs twice the last counts, as the programs have it."""
    found: dict[str, tuple[str, ...]] = {}
    flag = ""
    for word in words:
        if word.startswith("--"):
            flag, equals, value = word.partition("=")
            found[flag] = (value,) if equals else ()
        else:
            found[flag] = (*found.get(flag, ()), word)
    return found
