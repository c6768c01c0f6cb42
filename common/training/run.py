"""One object per run directory: the lock, resume, logging, checkpoints, the time budget, and the record."""

from __future__ import annotations

import datetime
import itertools
import json
import signal
import threading
import time
from pathlib import Path
from typing import Any, Protocol

import filelock
import torch

from common.training import record as records
from common.training.checkpoint import has_checkpoint, read_newest_checkpoint, remove_litter, save_checkpoint
from common.training.device import describe_hardware, peak_memory_gib
from common.training.errors import RunStopped, UserError
from common.training.files import write_json
from common.training.journal import SERIES, Journal
from common.training.options import RunOptions, as_dict, is_machine_option
from common.training.precision import resolve_precision
from common.training.seeding import GlobalGenerators


class Stateful(Protocol):
    """Anything whose state an exact resume needs."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Run:
    """A run in its folder, from the lock to the record.

    Use as a context manager. What an exact resume needs is registered once, by name (`register`); `restore` then
    puts everything where the newest sound checkpoint left it. A training loop calls `tick` after every step: that is
    where a checkpoint may be written and where a run may stop; at the ends of epochs and tasks it calls `save`.

    Args:
        config: the resolved options; a dataclass that inherits from `RunOptions`.
        method: name of the method, for the record.
        paper: short name of the paper, e.g. "vdfd".
        device: where the run computes.
        seed: the seed in force, for the record.
        changed: what the user changed of the published row (`parse_row`).
        folder: overrides `config.output_dir`.
        write_every: steps between two points of a written series.
        quiet: keep notes in the log file only, and write no TensorBoard files.
        part: which run of a sweep this is ("reg_10/repeat_0"); tells records of one command apart.
        begin: `time.monotonic()` when the program began, for the time budget of several runs in one program.

    Attributes:
        folder: the run's directory.
        step: optimiser steps taken so far over the whole run.
        finished: True if the folder already holds the finished record of this very configuration.

    Raises:
        UserError: if another process holds the folder, or if it holds a run with another configuration.
    """

    def __init__(
        self,
        config: RunOptions,
        *,
        method: str,
        paper: str,
        device: torch.device,
        seed: int,
        changed: dict[str, list[Any]] | None = None,
        folder: Path | None = None,
        write_every: int = 10,
        quiet: bool = False,
        part: str = "",
        begin: float | None = None,
    ) -> None:
        self.config = config
        self.method, self.paper, self.device, self.seed = method, paper, device, seed
        self.changed = changed or {}
        self.folder = Path(folder or config.output_dir)
        self.step = 0
        self._registered: dict[str, Stateful] = {}
        self._generators = GlobalGenerators()
        self.part = part
        self._begin = time.monotonic()
        self._program_begin = self._begin if begin is None else begin
        self._earlier_seconds = 0.0
        self._last_save = self._begin
        self._started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self._code = records.describe_code()  # of the program that runs, not of what is checked out at its end
        self._stop_reason: str | None = None

        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = filelock.FileLock(self.folder / "lock")
        try:
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            message = f"{self.folder} is in use by another run; wait for it or give another --output_dir"
            raise UserError(message) from None
        try:
            if config.resume == "never":
                _move_aside(self.folder)
            remove_litter(self.folder)
            self._check_configuration()
            self.finished = self._finished_record() is not None
            self._journal = Journal(self.folder, write_every=write_every, tensorboard=not quiet, echo=not quiet)
        except BaseException:
            self._lock.release()
            raise

    # --- life of the run ----------------------------------------------------------------------------------------

    def __enter__(self) -> Run:
        self._previous_handler = signal.signal(signal.SIGTERM, self._on_termination) if _in_main_thread() else None
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if self._previous_handler is not None:
            signal.signal(signal.SIGTERM, self._previous_handler)
        try:
            self._journal.close()
        finally:
            self._lock.release()

    def register(self, name: str, part: Stateful) -> None:
        """Add a part whose state is saved and restored; parts are restored in the order of registration."""
        if name in self._registered:
            raise ValueError(f"two parts registered under the name {name}")
        self._registered[name] = part

    def restore(self) -> bool:
        """Go on from the newest sound checkpoint.

        Returns:
            True if a checkpoint was loaded; False if the run starts from the beginning.
        """
        state, problems = read_newest_checkpoint(self.folder)
        for problem in problems:
            self.note(problem)
        if state is None:
            self._journal.rewind(0)
            return False
        self.step = state["step"]
        self._earlier_seconds = state["seconds"]
        self._started = state["started"]
        self._journal.rewind(state["series_position"])
        for name, part in self._registered.items():
            part.load_state_dict(state["parts"][name])
        self._generators.load_state_dict(state["generators"])  # last: building parts may have drawn numbers
        self.note(f"resumed at step {self.step} from {self.folder}")
        return True

    def restore_generators(self) -> None:
        """Put only the global generators where the newest checkpoint left them (a repetition that is already done)."""
        state, _ = read_newest_checkpoint(self.folder)
        if state is not None:
            self._generators.load_state_dict(state["generators"])

    def save(self) -> None:
        """Write a checkpoint now."""
        position = self._journal.position()  # first: raises if a loss was not finite, keeping the sound checkpoint
        state = {
            "step": self.step,
            "seconds": self.seconds(),
            "started": self._started,
            "series_position": position,
            "parts": {name: part.state_dict() for name, part in self._registered.items()},
            "generators": self._generators.state_dict(),
        }
        save_checkpoint(self.folder, state)
        self._last_save = time.monotonic()

    def tick(self) -> None:
        """After a step: save if it is time, stop if the time budget is used up or a termination signal came.

        Raises:
            RunStopped: after a checkpoint was written.
        """
        now = time.monotonic()
        if self.config.time_budget is not None and now - self._program_begin >= self.config.time_budget:
            self._stop_reason = f"the time budget of {self.config.time_budget:g} s is used up"
        if self._stop_reason is not None:
            self.save()
            command = "the same command" if self.config.resume == "auto" else "the same command without --resume never"
            raise RunStopped(f"{self._stop_reason}; saved at step {self.step} in {self.folder}, {command} goes on")
        if now - self._last_save >= self.config.checkpoint_interval:
            self.save()

    def seconds(self) -> float:
        """Seconds this run has taken, earlier parts of a resumed run included."""
        return self._earlier_seconds + time.monotonic() - self._begin

    def cost(self) -> dict[str, float]:
        """For the metrics: seconds and hours of the whole run, largest memory of this process in GiB."""
        seconds = self.seconds()
        return {
            "seconds": round(seconds, 1),
            "hours": round(seconds / 3600, 4),
            "memory_gib": round(peak_memory_gib(self.device), 4),
        }

    # --- logging ------------------------------------------------------------------------------------------------

    def note(self, text: str) -> None:
        """One line to the log and to standard output."""
        self._journal.note(text)

    def log(self, *, task: int, epoch: int, always: bool = False, **terms: torch.Tensor) -> None:
        """Note the loss terms of the step just taken; tensors stay on the device until they are read in a batch.

        With `always` they are written whatever `write_every` says.
        """
        self._journal.log_step(self.step, task, epoch, always, **terms)

    def flush(self) -> None:
        """Write everything that was logged so far to the series file."""
        self._journal.flush()

    def log_value(self, name: str, value: float, *, task: int, epoch: int) -> None:
        """Write one point of a series: a metric in percent, a learning rate."""
        self._journal.log_value(name, value, step=self.step, task=task, epoch=epoch)

    # --- the record ---------------------------------------------------------------------------------------------

    def write_record(
        self, metrics: dict[str, Any], data: dict[str, Any], labels: list[str], *, finished: bool = True
    ) -> dict[str, Any]:
        """Write `record.json`.

        Args:
            metrics: named numbers and matrices; accuracies in percent, values of the last step unless named best_*.
                Texts among them (the teacher's network and check sum) go to "facts".
            data: what the run trained on, with a content hash.
            labels: in what respect the run is not the full published setting ("shortened", "sub-sampled", ...).
            finished: False for a run that stopped before its end.

        Returns:
            The record.
        """
        configuration = as_dict(self.config)
        facts = {name: value for name, value in metrics.items() if isinstance(value, str)}
        record = {
            "schema": records.SCHEMA,
            "run_id": records.run_id(
                self.config.cell, self.method, self.seed, self._computing_options() | {"part": self.part}
            ),
            "status": "finished" if finished else "stopped",
            "paper": self.paper,
            "cell": self.config.cell,
            "method": self.method,
            "command": records.command_of_process(),
            "config": configuration,
            "changed": self.changed,
            "part": self.part,
            "labels": sorted(set(labels)),
            "seed": self.seed,
            **self._code,
            "data": data,
            "hardware": describe_hardware(self.device),
            "versions": records.describe_versions(),
            "numerics": records.describe_numerics(resolve_precision(self.config), self.config.fast),
            "started": self._started,
            "wall_seconds": round(self.seconds(), 3),
            "peak_memory_gib": round(peak_memory_gib(self.device), 4),
            "steps": self.step,
            "metrics": {name: value for name, value in metrics.items() if name not in facts},
            "facts": facts,
            "series": SERIES,
        }
        self._journal.flush()
        write_json(self.folder / records.RECORD, record)
        return record

    def read_record(self) -> dict[str, Any]:
        """The finished record in this folder.

        Raises:
            UserError: if there is none.
        """
        record = self._finished_record()
        if record is None:
            raise UserError(f"{self.folder} holds no finished run")
        return record

    # --- inside -------------------------------------------------------------------------------------------------

    def _computing_options(self) -> dict[str, Any]:
        kind = type(self.config)
        return {name: value for name, value in as_dict(self.config).items() if not is_machine_option(kind, name)}

    def _check_configuration(self) -> None:
        path = self.folder / "config.json"
        own = json.loads(json.dumps(self._computing_options()))
        has_content = has_checkpoint(self.folder) or (self.folder / records.RECORD).exists()
        if has_content and path.exists():
            found = _read_json(path)
            differing = [name for name in own if own[name] != found.get(name)]
            if differing:
                first = differing[0]
                raise UserError(
                    f"{self.folder} holds a run with another configuration (--{first}: expected {own[first]!r}, found "
                    f"{found.get(first)!r}{f', and {len(differing) - 1} more' if len(differing) > 1 else ''}); "
                    "give another --output_dir, or --resume never to start over"
                )
        else:  # a folder that holds no more than an attempt which failed at once is free
            write_json(path, own)

    def _finished_record(self) -> dict[str, Any] | None:
        path = self.folder / records.RECORD
        if not path.exists():
            return None
        record = _read_json(path)
        return record if record.get("status") == "finished" else None

    def _on_termination(self, number: int, frame: Any) -> None:
        self._stop_reason = f"signal {signal.Signals(number).name}"


def _move_aside(folder: Path) -> None:
    """Move what a folder holds (but its lock) into `earlier-<n>` inside it."""
    content = [path for path in folder.iterdir() if path.name != "lock" and not path.name.startswith("earlier-")]
    if not content:
        return
    target = next(path for n in itertools.count(1) if not (path := folder / f"earlier-{n}").exists())
    target.mkdir()
    for path in content:
        path.rename(target / path.name)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); start over with --resume never") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged (no JSON object); start over with --resume never")
    return content


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
