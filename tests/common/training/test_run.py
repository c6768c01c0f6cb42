"""A run in its folder: the lock, what may be resumed, when it stops, how long it took."""

from __future__ import annotations

import datetime
import json
import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

from common.training.checkpoint import NEWEST, PREVIOUS
from common.training.errors import NonFiniteLoss, RunStopped, UserError
from common.training.journal import LOG, SERIES, read_series
from common.training.run import Run
from tests.common.training.toy import CPU, ToyOptions, open_run
from tests.helpers import REPOSITORY

pytestmark = pytest.mark.unit

HOLDER = """
import sys, time
from pathlib import Path
from tests.common.training.toy import open_run
with open_run(Path(sys.argv[1])):
    print("holding", flush=True)
    time.sleep(120)
"""


class Clock:
    """Stands for the modules `time` and `datetime` inside a run; moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        dates = types.SimpleNamespace(now=lambda zone: datetime.datetime.fromtimestamp(self.now, zone))
        monkeypatch.setattr("common.training.run.time", types.SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr("common.training.run.datetime", types.SimpleNamespace(UTC=datetime.UTC, datetime=dates))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def finish(folder: Path, **options) -> None:
    with open_run(folder, **options) as run:
        run.step = 1
        run.save()
        run.write_record({"acc": 50.0}, {}, [])


def saved_steps(folder: Path) -> list[int]:
    names = [name for name in (PREVIOUS, NEWEST) if (folder / name).exists()]
    return [torch.load(folder / name, weights_only=True)["step"] for name in names]


# --- the lock -------------------------------------------------------------------------------------------------------


def test_a_second_run_in_the_folder_is_refused(tmp_path: Path) -> None:
    with open_run(tmp_path):
        with pytest.raises(UserError, match="in use by another run"):
            open_run(tmp_path)
        with open_run(tmp_path / "elsewhere"):
            pass
    with open_run(tmp_path):
        pass


def test_the_lock_is_free_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), open_run(tmp_path):
        raise ZeroDivisionError
    with open_run(tmp_path, lr=0.05) as run:
        run.save()
    with pytest.raises(UserError, match="another configuration") as refused:
        open_run(tmp_path, lr=0.1)
    with open_run(tmp_path, lr=0.05):  # the refused one let go too, although its error still holds on to it
        assert refused.value.__traceback__ is not None


def test_the_lock_binds_other_processes_and_dies_with_its_holder(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "holding\n"
            with pytest.raises(UserError, match="in use by another run"):
                open_run(tmp_path)
        finally:
            holder.kill()
            holder.wait()
    with open_run(tmp_path):
        pass


# --- what may be resumed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "flag"), [({"lr": 0.1}, "--lr"), ({"schedule": [7]}, "--schedule")])
def test_another_configuration_is_refused_by_its_flag(tmp_path: Path, options: dict, flag: str) -> None:
    with open_run(tmp_path) as run:
        run.save()
    with pytest.raises(UserError) as error:
        open_run(tmp_path, **options)
    message = str(error.value)
    assert flag in message
    assert str(next(iter(options.values()))) in message
    assert "--resume never" in message
    assert "\n" not in message


def test_an_attempt_that_failed_at_once_leaves_the_folder_free(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), open_run(tmp_path):
        raise ZeroDivisionError  # before anything was saved: missing data, say
    with open_run(tmp_path, lr=0.1) as run:
        run.save()
    with pytest.raises(UserError, match="--lr"):
        open_run(tmp_path)


def test_machine_options_may_differ(tmp_path: Path) -> None:
    with open_run(tmp_path) as run:
        run.step = 3
        run.save()
    other = {"gpuid": [0], "time_budget": 1e6, "checkpoint_interval": 5.0, "cell": "a/b", "output_dir": "x"}
    with Run(ToyOptions(**other), method="Toy", paper="toy", device=CPU, seed=0, folder=tmp_path, quiet=True) as run:
        assert run.restore()
        assert run.step == 3


@pytest.mark.parametrize("name", ["config.json", "record.json"])
@pytest.mark.parametrize("content", ["", "[1]", '{"lr": '])
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: str) -> None:
    finish(tmp_path)
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=rf"{name} is damaged.*--resume never"):
        open_run(tmp_path)
    with open_run(tmp_path, resume="never") as run:
        assert not run.finished


def test_never_resuming_moves_the_old_content_aside(tmp_path: Path) -> None:
    finish(tmp_path)
    old = (tmp_path / "record.json").read_bytes()
    with open_run(tmp_path, resume="never", lr=0.1) as run:  # another configuration is no obstacle then
        assert not run.finished
        assert not run.restore()
        assert run.step == 0
    assert (tmp_path / "earlier-1" / "record.json").read_bytes() == old
    assert {NEWEST, SERIES, LOG, "config.json"} <= {path.name for path in (tmp_path / "earlier-1").iterdir()}
    with open_run(tmp_path, resume="never"):
        pass
    (tmp_path / "earlier-1" / "record.json").unlink()
    for path in sorted((tmp_path / "earlier-1").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (tmp_path / "earlier-1").rmdir()
    with open_run(tmp_path, resume="never"):  # a number that became free is used again; nothing collides
        pass
    assert {path.name for path in tmp_path.glob("earlier-*")} == {"earlier-1", "earlier-2"}


def test_a_finished_run_is_recognised(tmp_path: Path) -> None:
    with open_run(tmp_path) as run:
        assert not run.finished
        with pytest.raises(UserError, match="no finished run"):
            run.read_record()
    finish(tmp_path)
    with open_run(tmp_path) as run:
        assert run.finished
        assert run.read_record()["metrics"] == {"acc": 50.0}


def test_a_stopped_run_is_not_finished(tmp_path: Path) -> None:
    with open_run(tmp_path) as run:
        assert run.write_record({"acc": 10.0}, {}, [], finished=False)["status"] == "stopped"
    assert json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))["status"] == "stopped"
    with open_run(tmp_path) as run:
        assert not run.finished


def test_two_parts_of_one_name_are_a_mistake(tmp_path: Path) -> None:
    with open_run(tmp_path) as run:
        run.register("model", torch.nn.Linear(1, 1))
        with pytest.raises(ValueError, match="model"):
            run.register("model", torch.nn.Linear(1, 1))


def test_a_damaged_checkpoint_is_told_in_the_log(tmp_path: Path) -> None:
    with open_run(tmp_path) as run:
        for run.step in (1, 2):
            run.log(task=1, epoch=0, ce=torch.tensor(1.0))
            run.save()
    (tmp_path / NEWEST).write_bytes(b"")
    with open_run(tmp_path) as run:
        assert run.restore()
        assert run.step == 1
    assert "falling back" in (tmp_path / LOG).read_text(encoding="utf-8")
    assert [point["step"] for point in read_series(tmp_path / SERIES)] == [1]  # what came after it is cut off


# --- saving and stopping --------------------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_never_reaches_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLoss, match="'ce' is nan at step 2"), open_run(tmp_path) as run:
        run.step = 1
        run.log(task=1, epoch=0, ce=torch.tensor(1.0))
        run.save()
        run.step = 2
        run.log(task=1, epoch=0, ce=torch.tensor(torch.nan))
        run.save()
    assert saved_steps(tmp_path) == [1]


def test_ticks_save_at_intervals(tmp_path: Path, clock: Clock) -> None:
    with open_run(tmp_path, checkpoint_interval=10.0) as run:
        saved = []
        for run.step in range(1, 8):
            clock.now += 4
            run.tick()
            saved.append(saved_steps(tmp_path)[-1:])
    assert saved == [[], [], [3], [3], [3], [6], [6]]


def test_the_time_budget_stops_after_a_save(tmp_path: Path, clock: Clock) -> None:
    with pytest.raises(RunStopped, match="time budget of 10 s.*step 3.*the same command goes on"):
        with open_run(tmp_path, time_budget=10.0) as run:
            for run.step in range(1, 9):
                clock.now += 4
                run.tick()
    assert saved_steps(tmp_path) == [3]
    with open_run(tmp_path, time_budget=10.0) as run:  # each start has its own budget
        assert run.restore()
        assert run.step == 3
        run.tick()


def test_a_run_that_never_resumes_does_not_promise_it(tmp_path: Path) -> None:
    with pytest.raises(RunStopped, match="without --resume never goes on"):
        with open_run(tmp_path, time_budget=0.0, resume="never") as run:
            run.tick()


def test_a_termination_signal_stops_after_the_step(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with pytest.raises(RunStopped, match="SIGTERM.*step 5"):
            with open_run(tmp_path) as run:
                run.step = 4
                run.tick()
                os.kill(os.getpid(), signal.SIGTERM)
                run.step = 5  # the step under way is completed
                run.tick()
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN  # as it was before the run
    finally:
        signal.signal(signal.SIGTERM, before)
    assert saved_steps(tmp_path) == [5]


def test_seconds_add_up_over_resumes(tmp_path: Path, clock: Clock) -> None:
    with open_run(tmp_path) as run:
        started = run.write_record({}, {}, [])["started"]
        clock.now += 10
        run.save()
        clock.now += 1000  # lost work is not counted
    (tmp_path / "record.json").unlink()
    clock.now += 5000
    with open_run(tmp_path) as run:
        run.restore()
        clock.now += 5
        assert run.seconds() == 15
        run.save()
    with open_run(tmp_path) as run:
        run.restore()
        clock.now += 2.5
        content = run.write_record({}, {}, [])
    assert content["wall_seconds"] == 17.5
    assert content["started"] == started == "1970-01-01T00:16:40+00:00"
