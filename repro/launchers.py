"""Other ways to start jobs than as processes of this machine: Slurm arrays through submitit, several processes each."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.training.errors import UNFINISHED_EXIT_CODE, UserError
from repro.jobs import Job, Result, finished_record, summarise
from repro.runner import GROUP_END_SECONDS, POLL_SECONDS, signal_group, with_environment
from repro.torchrun import PROCESSES, write_interpreter

LAUNCHERS = ("local", "slurm", "torchrun")
MARGIN = 1.5
"""Time asked of Slurm, relative to the cell's estimate; a run that needs more is requeued and goes on."""

DEFAULT_HOURS = 4.0
RESTARTS = 100
"""Times that a run may be requeued at its time limit."""


def check_launcher(launcher: str) -> None:
    """Raises a UserError for an unknown launcher."""
    if launcher not in LAUNCHERS:
        raise UserError(f"unknown launcher {launcher!r}; known: {', '.join(LAUNCHERS)}")


# --- torchrun ---------------------------------------------------------------------------------------------------------


def with_torchrun(jobs: Sequence[Job], processes: int, folder: Path) -> list[Job]:
    """The jobs, each to be run by several processes.

    Raises:
        UserError: for a cell whose program knows one process only.
    """
    alone = [job.cell.id for job in jobs if not job.cell.distributed]
    if alone:
        raise UserError(
            f"--launcher torchrun: {alone[0]} runs on one device only (no `distributed = true`); leave it out"
        )
    interpreter = str(write_interpreter(folder.resolve()))
    root = str(Path(__file__).resolve().parents[1])
    paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    return [with_environment(job, PYTHON=interpreter, PYTHONPATH=paths, **{PROCESSES: str(processes)}) for job in jobs]


# --- Slurm ------------------------------------------------------------------------------------------------------------


class RunCell:
    """What a Slurm task does: run a script, and on the warning before its time limit let it save and requeue it."""

    def __init__(self) -> None:
        self.process: subprocess.Popen | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"process": None}

    def __call__(self, command: Sequence[str], directory: str, environment: Mapping[str, str]) -> int:
        """Run the command.

        Returns:
            0, or 75 for a run that stopped at a checkpoint by itself.

        Raises:
            RuntimeError: for any other exit code, so that Slurm shows the task as failed.
        """
        self.process = subprocess.Popen(
            command, cwd=directory, env={**os.environ, **environment}, start_new_session=True
        )
        try:
            code = self.process.wait()
        finally:
            signal_group(self.process.pid, signal.SIGTERM)  # a cancelled task leaves nothing behind
        if code not in (0, UNFINISHED_EXIT_CODE):
            raise RuntimeError(f"{' '.join(command)} ended with exit code {code}")
        return code

    def checkpoint(self, command: Sequence[str], directory: str, environment: Mapping[str, str]) -> Any:
        """Called by submitit before the time limit, or on preemption: the run saves, and the same task is queued."""
        import submitit

        if self.process is not None:
            signal_group(self.process.pid, signal.SIGTERM)
            deadline = time.monotonic() + GROUP_END_SECONDS
            while not _has_ended(self.process.pid) and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
        return submitit.helpers.DelayedSubmission(RunCell(), command, directory, environment)


def _has_ended(pid: int) -> bool:
    """Whether a child process ended.

    why not Popen.poll: this runs in a signal handler that interrupted Popen.wait, which holds Popen's own lock.
    """
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def submit(
    jobs: Sequence[Job], folder: Path, options: Mapping[str, str], at_once: int = 0, cluster: str = "slurm"
) -> tuple[list[Result], list[Any]]:
    """Submit the unfinished jobs as one array.

    Args:
        jobs: what to run.
        folder: submitit's own files and the tasks' outputs.
        options: Slurm's parameters, e.g. {"partition": "gpu", "timeout_min": "600"}.
        at_once: tasks of the array that may run at the same time; 0 leaves it to Slurm.
        cluster: "slurm"; "local" runs the tasks as processes here, as the tests do.

    Returns:
        One result per job ("submitted" with its id, or "finished before"), and submitit's handles of the former.

    Raises:
        UserError: if submitit or Slurm is missing, or Slurm refuses.
    """
    try:
        import submitit
    except ImportError as error:
        raise UserError(
            "--launcher slurm needs the package submitit, which is not installed: "
            'pip install -c constraints.txt -e ".[slurm]"'
        ) from error
    if cluster == "slurm" and shutil.which("sbatch") is None:
        raise UserError("--launcher slurm: there is no sbatch on this machine; submit from a login node of the cluster")
    before = {number: finished_record(job) for number, job in enumerate(jobs)}
    open_jobs = [job for number, job in enumerate(jobs) if before[number] is None]
    handles: list[Any] = []
    if open_jobs:
        executor = submitit.AutoExecutor(
            folder=str(folder / "%j"),
            cluster=cluster,
            **({"slurm_max_num_timeout": RESTARTS} if cluster == "slurm" else {}),
        )
        try:
            executor.update_parameters(**_parameters(open_jobs, options, at_once, cluster))
        except (NameError, TypeError, ValueError) as error:
            raise UserError(f"--slurm: {' '.join(str(error).split())[:300]}") from error
        for job in open_jobs:
            job.output_dir.mkdir(parents=True, exist_ok=True)
        try:
            handles = executor.map_array(
                RunCell(),
                [job.command() for job in open_jobs],
                [str(job.directory) for job in open_jobs],
                [_environment(job) for job in open_jobs],
            )
        except submitit.core.utils.FailedJobError as error:
            raise UserError(f"Slurm refused the array: {' '.join(str(error).split())}") from error
    waiting = iter(handles)
    results = []
    for number, job in enumerate(jobs):
        record = before[number]
        if record is not None:
            results.append(Result(job, "finished before", note=summarise(record)))
        else:
            results.append(Result(job, "submitted", note=f"job {next(waiting).job_id}"))
    return results, handles


def _environment(job: Job) -> dict[str, str]:
    return {"PYTHON": sys.executable, **({"SMOKE": "1"} if job.smoke else {}), **job.environment}


def _parameters(jobs: Sequence[Job], options: Mapping[str, str], at_once: int, cluster: str) -> dict[str, Any]:
    hours = max(job.cell.cost_hours or DEFAULT_HOURS for job in jobs)
    parameters: dict[str, Any] = {"name": "repro", "timeout_min": max(10, round(60 * MARGIN * hours))}
    if cluster == "slurm":
        parameters["slurm_signal_delay_s"] = round(1.5 * GROUP_END_SECONDS)  # warned in time to save
        parameters["mem_gb"] = max(job.memory_gib for job in jobs)
        if at_once:
            parameters["slurm_array_parallelism"] = at_once
    common = {"timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node", "name"}
    for key, value in options.items():
        name = key if key in common or key.startswith(f"{cluster}_") else f"{cluster}_{key}"
        parameters[name] = int(value) if value.isdigit() else value
    return parameters


def parse_options(pairs: Sequence[str]) -> dict[str, str]:
    """KEY=VALUE pairs of --slurm.

    Raises:
        UserError: for one without "=".
    """
    options = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals and value):
            raise UserError(f"--slurm {pair!r}: expected KEY=VALUE, e.g. partition=gpu or timeout_min=600")
        options[key] = value
    return options
