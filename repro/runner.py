"""Runs jobs through their own launch scripts on this machine, several at once within a budget of memory and devices."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from repro.jobs import Job, Result, exit_code_of, finished_record, plan, result_of, summarise

__all__ = ["Budget", "Job", "Result", "exit_code_of", "plan", "run_jobs"]

GROUP_END_SECONDS = 120.0
"""How long a stopped run may take to save its checkpoint before the next thing happens."""

POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Budget:
    """What runs may use together.

    Attributes:
        jobs: runs at once.
        memory_gib: main memory; a run that alone needs more is started when nothing else runs.
        gpus: device numbers, one run each; empty leaves the choice to the runs.
        logs: folder for the outputs of runs that share the screen; used with more than one job.
    """

    jobs: int = 1
    memory_gib: float | None = None
    gpus: tuple[str, ...] = ()
    logs: Path | None = None

    @property
    def slots(self) -> int:
        """Runs at once, devices considered."""
        return min(self.jobs, len(self.gpus)) if self.gpus else self.jobs

    @property
    def threads(self) -> int:
        """Threads for each run, so that together they have one per core."""
        return max(1, (os.cpu_count() or 1) // self.slots)


@dataclass
class _Running:
    job: Job
    process: subprocess.Popen
    start: float
    gpu: str | None
    log: Path | None
    file: IO[bytes] | None


def physical_memory_gib() -> float:
    """Main memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def run_jobs(
    jobs: Sequence[Job],
    time_budget: float | None = None,
    budget: Budget | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> list[Result]:
    """Run jobs; a failure does not stop the others, a termination signal does.

    Args:
        jobs: what to run; those with a finished record are skipped.
        time_budget: seconds for all jobs together. A run gets what is left and saves a checkpoint when it is used up.
        budget: how many at once; by default one after the other, their output on the screen.
        tell: called with one line for every start and end, where runs share the screen.

    Returns:
        One result per job, in the order of the jobs.
    """
    budget = budget or Budget()
    start = time.monotonic()
    results: dict[int, Result] = {}
    waiting = list(enumerate(jobs))
    running: dict[int, _Running] = {}
    with _signals_handed_on(running) as received:
        while waiting or running:
            for number, process in list(running.items()):
                code = process.process.poll()
                if code is not None:
                    results[number] = _finish(running.pop(number), code, bool(received))
                    if budget.slots > 1:
                        tell(f"{results[number].status}: {process.job.name}: {results[number].note}")
            started = False
            for place, (number, job) in enumerate(waiting):
                left = None if time_budget is None else time_budget - (time.monotonic() - start)
                is_over = left is not None and left < 1
                if not (received or is_over or _fits(job, running, budget)):
                    continue
                before = finished_record(job)
                if before is not None:
                    results[number] = Result(job, "finished before", note=summarise(before))
                elif received or is_over:
                    note = "interrupted" if received else "time budget used up"
                    results[number] = Result(job, "not started", note=note)
                else:
                    running[number] = _start(job, left, running, budget)
                    if received:  # while it was started, so that it was not told
                        signal_group(running[number].process.pid, signal.SIGTERM)
                    if budget.slots > 1:
                        tell(f"started: {job.name} ({len(running)} running)")
                waiting.pop(place)
                started = True
                break
            if not started and running:
                time.sleep(POLL_SECONDS)
    return [results[number] for number in range(len(jobs))]


def _fits(job: Job, running: dict[int, _Running], budget: Budget) -> bool:
    if not running:
        return True
    if len(running) >= budget.slots or any(one.job.output_dir == job.output_dir for one in running.values()):
        return False
    used = sum(one.job.memory_gib for one in running.values())
    return budget.memory_gib is None or used + job.memory_gib <= budget.memory_gib


def _start(job: Job, left: float | None, running: dict[int, _Running], budget: Budget) -> _Running:
    job.output_dir.mkdir(parents=True, exist_ok=True)
    # why: scripts call "python" unless PYTHON says otherwise; it has to be the one that runs this program
    environment = {"PYTHON": sys.executable, **os.environ, **({"SMOKE": "1"} if job.smoke else {})}
    gpu, log, file = None, None, None
    if budget.slots > 1:
        # why: with one thread per core in every run, runs at once would fight for the cores
        threads = str(budget.threads)
        environment = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, **environment}
        log = (budget.logs or job.output_dir.parent) / f"{job.cell.id.replace('/', '-')}-seed{job.seed}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        file = log.open("ab")
    if budget.gpus:
        taken = {one.gpu for one in running.values()}
        gpu = next(one for one in budget.gpus if one not in taken)
        environment["CUDA_VISIBLE_DEVICES"] = gpu
    environment |= job.environment
    process = subprocess.Popen(
        job.command(left),
        cwd=job.directory,
        env=environment,
        start_new_session=True,
        stdout=file,
        stderr=None if file is None else subprocess.STDOUT,
    )
    return _Running(job, process, time.monotonic(), gpu, log, file)


def _finish(run: _Running, code: int, is_interrupted: bool) -> Result:
    if run.file is not None:
        run.file.close()
    deadline = time.monotonic() + GROUP_END_SECONDS
    while is_interrupted and signal_group(run.process.pid, 0) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return result_of(run.job, code, time.monotonic() - run.start, is_interrupted, run.log)


@contextmanager
def _signals_handed_on(running: dict[int, _Running]) -> Iterator[list[int]]:
    """Hand SIGINT and SIGTERM to the process groups of all runs as SIGTERM; yields the signals received.

    why: a shell that is told to end does so before the program it started has saved its checkpoint; so the whole
    group gets the signal, and is waited for.
    """
    received: list[int] = []

    def hand_on(number: int, frame: object) -> None:
        received.append(number)
        for one in list(running.values()):
            signal_group(one.process.pid, signal.SIGTERM)

    previous = {number: signal.signal(number, hand_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def signal_group(group: int, number: int) -> bool:
    """Send a signal to a process group (0 only asks); False once the group is gone."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


def with_environment(job: Job, **variables: str) -> Job:
    """The same job with more environment variables."""
    return dataclasses.replace(job, environment={**job.environment, **variables})
