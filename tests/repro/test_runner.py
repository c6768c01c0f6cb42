"""`repro run` with a small script in place of a training program."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from repro.runner import exit_code_of, plan, run_jobs

pytestmark = pytest.mark.unit


def calls(repository, cell: str, seed: int = 0, out: str = "outputs") -> list[str]:
    path = repository.root / out / cell / f"seed{seed}" / "calls.txt"
    return path.read_text().splitlines() if path.exists() else []


def summary(out: str, cell: str) -> str:
    """The line of the summary table about a cell."""
    (line,) = [line for line in out.splitlines() if cell in line]
    return line


def test_runs_the_script_in_its_directory_and_hands_flags_on(scripted, call):
    code, out, _ = call("run", "toy/full", "--seeds", "0,2", "--", "--gamma", "0.5")
    assert code == 0
    folder = "../outputs/toy/full/seed2"
    assert calls(scripted, "toy/full", 2) == [f"--row full --overrides --seed 2 --output_dir {folder} --gamma 0.5"]
    assert out.count("finished") == 2


def test_outputs_may_lie_outside_the_repository(scripted, call, tmp_path_factory):
    folder = tmp_path_factory.mktemp("elsewhere")
    assert call("run", "toy/full", "--out", folder)[0] == 0
    assert (folder / "toy/full/seed0/record.json").is_file()
    assert f"--output_dir {folder}" in (folder / "toy/full/seed0/calls.txt").read_text()


def test_finished_runs_are_skipped(scripted, call):
    call("run", "toy/full")
    code, out, _ = call("run", "toy/full")
    assert code == 0
    assert "finished before" in summary(out, "toy/full")
    assert len(calls(scripted, "toy/full")) == 1


def test_a_finished_run_of_another_experiment_is_not_taken_for_this_one(scripted, call):
    call("run", "toy/full")
    call("run", "toy/full", "--", "--gamma", "0.5")
    assert len(calls(scripted, "toy/full")) == 2
    path = scripted.root / "outputs/toy/full/seed0/record.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "changed": {"gamma": [1, 0.5]}}))
    call("run", "toy/full")
    assert len(calls(scripted, "toy/full")) == 3


def test_other_flags_are_another_experiment_but_not_where_it_runs(scripted, call):
    call("run", "toy/demo", "--", "--lr", "0.1", "--epochs", "1")
    for words in (["--lr", "0.1"], ["--lr", "0.1", "--epochs"], ["--lr", "0.1", "--epochs", "1", "--resume", "never"]):
        before = len(calls(scripted, "toy/demo"))
        assert call("run", "toy/demo", "--", *words)[0] == 0
        assert len(calls(scripted, "toy/demo")) == before + 1
    call("run", "toy/full")
    code, out, _ = call("run", "toy/full", "--", "--gpuid", "1", "--checkpoint_interval", "60")
    assert code == 0 and "finished before" in summary(out, "toy/full")


def test_several_runs_of_one_command_are_found(scripted, call):
    code, out, _ = call("run", "toy/full", "--", "--behave", "repeats")
    assert code == 0 and "2 runs" in summary(out, "toy/full")


def test_smoke_runs_lie_apart_and_are_skipped_too(scripted, call):
    assert call("run", "toy/full", "--smoke")[0] == 0
    assert call("run", "toy/full", "--smoke")[0] == 0
    assert len(calls(scripted, "toy/full", out="outputs/smoke")) == 1
    assert not calls(scripted, "toy/full")
    assert call("run", "toy/full")[0] == 0
    assert len(calls(scripted, "toy/full")) == 1


def test_a_stopped_run_goes_on_with_the_same_command(scripted, call):
    code, out, _ = call("run", "toy/full", "--", "--behave", "stops")
    assert code == 75 and "stopped" in summary(out, "toy/full")
    code, out, _ = call("run", "toy/full", "--", "--behave", "stops")
    assert code == 0 and "finished" in summary(out, "toy/full")
    first, second = calls(scripted, "toy/full")
    assert first == second


def test_a_failed_run_does_not_stop_the_others(scripted, call):
    text = scripted.experiments.read_text()
    scripted.experiments.write_text(text.replace('row = "full"', 'row = "fails"'))
    code, out, _ = call("run", "toy/*")
    assert code == 1
    assert "failed" in summary(out, "toy/full") and " 3 " in summary(out, "toy/full")
    assert "finished" in summary(out, "toy/demo")


def test_success_without_a_record_is_a_failure(scripted, call):
    code, out, _ = call("run", "toy/full", "--", "--behave", "silent")
    assert code == 1 and "without a valid record" in " ".join(out.split())


def test_a_used_up_time_budget_starts_nothing_more(scripted):
    from repro.registry import read_registry

    cells = read_registry(scripted.root)[0].cells
    jobs = plan(cells[:1], [0], scripted.root, scripted.root / "outputs")
    (result,) = run_jobs(jobs, time_budget=0.5)
    assert result.status == "not started" and exit_code_of([result]) == 75
    (result,) = run_jobs(jobs, time_budget=100)
    assert result.status == "finished"
    assert "--time_budget 100" in calls(scripted, "toy/full")[0]


def test_dry_run_shows_commands_and_runs_nothing(scripted, call):
    code, out, _ = call("run", "toy/full", "--seeds", "1", "--smoke", "--dry-run", "--", "--gamma", "0.5")
    assert code == 0
    assert (
        out.startswith("cd ") and "sh scripts/toy.sh full --seed 1 --output_dir" in out and "--smoke --gamma 0.5" in out
    )
    assert not (scripted.root / "outputs").exists()


def test_a_termination_signal_lets_the_run_save_and_starts_nothing_more(scripted):
    """The signal goes to `repro run`; the program underneath saves for half a second before it ends."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    command = [sys.executable, "-m", "repro", "run", "toy/full", "toy/demo", "--", "--behave", "waits"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, cwd=scripted.root)
    folder = scripted.root / "outputs/toy/full/seed0"
    deadline = time.monotonic() + 60
    while not (folder / "waiting").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert (folder / "saved").exists()
    assert "stopped" in summary(out, "toy/full") and "not started" in summary(out, "toy/demo")
    assert process.returncode == 75


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("run", "toy/full", "--launcher", "torchrun"), "one device only"),
        (("run", "toy/full", "--slurm", "partition=gpu"), "--launcher slurm"),
        (("run", "toy/full", "--launcher", "slurm", "--slurm", "gpu"), "KEY=VALUE"),
        (("run", "toy/full", "--launcher", "cloud"), "known: local, slurm, torchrun"),
        (("run", "toy/full", "--jobs", "2", "--gpus", "0,0"), "names a device twice"),
        (("run", "toy/full", "--launcher", "torchrun", "--gpus", "0,1"), "CUDA_VISIBLE_DEVICES"),
        (("run", "toy/full", "--memory", "0"), "more than 0 GiB"),
        (("run", "toy/full", "--processes", "8"), "--launcher torchrun"),
        (("run", "toy/full", "--launcher", "slurm", "--gpus", "0"), "--slurm KEY=VALUE"),
        (("table", "toy", "--self-test"), "whole repository"),
        (("manifest", "toy", "--check"), "whole repository"),
        (("list", "--coverage", "--missing"), "leave --missing"),
        (("run", "toy/absent"), "toy/absent"),
        (("run", "toy/full", "--seeds", "0,a"), "--seeds"),
    ],
)
def test_bad_input_is_one_line(scripted, call, words, expected):
    code, _, err = call(*words)
    assert code == 2 and expected in err and len(err.strip().splitlines()) == 1


def test_cells_that_cannot_be_run_are_refused(scripted, call):
    text = scripted.experiments.read_text()
    scripted.experiments.write_text(
        text.replace('title = "full setting"', 'title = "full setting"\nstatus = "not yet"')
    )
    code, _, err = call("run", "toy/full")
    assert code == 2 and "not yet" in err
    code, out, err = call("run", "toy/*", "--dry-run")
    assert code == 0 and "warning: left out: cell toy/full" in err and " full " not in out and " demo " in out
    (scripted.root / "work/scripts/toy.sh").unlink()
    code, _, err = call("run", "toy/demo")
    assert code == 2 and "work/scripts/toy.sh" in err
