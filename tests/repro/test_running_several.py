"""Several runs at once: budgets, devices, threads, failures that are named, and what a dry run tells."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from repro.jobs import plan
from repro.registry import read_registry
from repro.runner import Budget, run_jobs

pytestmark = pytest.mark.unit


def jobs_of(repository, seeds=(0, 1), behaviour="notes", memory=None):
    cells = read_registry(repository.root)[0].cells[:1]
    extra = ("--behave", behaviour)
    return plan(cells, seeds, repository.root, repository.root / "outputs", False, extra, memory)


def notes(repository, seed: int) -> dict:
    return json.loads((repository.root / f"outputs/toy/full/seed{seed}/noted.json").read_text())


def overlap(repository, one: int = 0, other: int = 1) -> bool:
    first, second = notes(repository, one), notes(repository, other)
    return first["begin"] < second["end"] and second["begin"] < first["end"]


def test_runs_at_once_share_the_cores(scripted, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    told = []
    jobs = jobs_of(scripted, behaviour="meets")  # each waits until the other has begun
    results = run_jobs(jobs, budget=Budget(2, logs=scripted.root / "logs"), tell=told.append)
    assert [result.status for result in results] == ["finished", "finished"]
    assert [notes(scripted, seed)["OMP_NUM_THREADS"] for seed in (0, 1)] == ["4", "4"]
    assert sum(line.startswith("started") for line in told) == sum(line.startswith("finished") for line in told) == 2


def test_the_memory_budget_keeps_runs_apart(scripted):
    jobs = jobs_of(scripted, memory={"toy/full": 6.0})
    assert jobs[0].memory_gib == 6.0
    results = run_jobs(jobs, budget=Budget(2, memory_gib=10.0))
    assert [result.status for result in results] == ["finished", "finished"]
    assert not overlap(scripted)


def test_a_run_larger_than_the_budget_runs_alone(scripted):
    results = run_jobs(jobs_of(scripted, memory={"toy/full": 60.0}), budget=Budget(2, memory_gib=10.0))
    assert [result.status for result in results] == ["finished", "finished"] and not overlap(scripted)


def test_every_run_gets_a_device_of_its_own(scripted):
    run_jobs(jobs_of(scripted, seeds=(0, 1, 2)), budget=Budget(4, gpus=("3", "5")))
    devices = [notes(scripted, seed)["CUDA_VISIBLE_DEVICES"] for seed in (0, 1, 2)]
    assert set(devices) == {"3", "5"}
    assert devices[0] != devices[1]


def test_a_failed_run_is_named_with_its_last_line_and_the_others_go_on(scripted, call):
    text = scripted.experiments.read_text()
    scripted.experiments.write_text(text.replace('row = "full"', 'row = "fails"'))
    code, out, err = call("run", "toy/*", "--jobs", "3")
    assert code == 1
    assert "failed: toy/full, seed 0: error: the teacher is missing" in err
    assert out.count("finished") == 2 and "the teacher is missing" in " ".join(out.split())
    assert (scripted.root / "outputs/logs/toy-full-seed0.log").read_text().startswith("error: the teacher")


def test_a_time_budget_holds_for_all(scripted):
    results = run_jobs(jobs_of(scripted), time_budget=0.5, budget=Budget(2))
    assert {result.status for result in results} == {"not started"}


def test_a_signal_reaches_every_run(scripted):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    words = ["run", "toy/full", "--seeds", "0,1,2", "--jobs", "2", "--", "--behave", "waits"]
    process = subprocess.Popen(
        [sys.executable, "-m", "repro", *words], env=environment, stdout=subprocess.PIPE, text=True, cwd=scripted.root
    )
    folders = [scripted.root / f"outputs/toy/full/seed{seed}" for seed in (0, 1)]
    deadline = time.monotonic() + 60
    while not all((folder / "waiting").exists() for folder in folders) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 75
    assert all((folder / "saved").exists() for folder in folders)
    assert out.count("stopped") == 2 and "not started" in out


def test_a_dry_run_tells_the_cost_and_leaves_finished_runs_out(scripted, call):
    code, out, _ = call("run", "toy/*", "--seeds", "0,1", "--dry-run")
    assert code == 0
    assert "about 2.5 h, one GPU, 4.0 GiB" in out
    assert "# 6 of 6 runs are open" in out
    assert "# about 5 h on one GPU (2 runs)" in out
    assert "4 runs without an estimate" in out
    call("run", "toy/full")
    code, out, _ = call("run", "toy/full", "--seeds", "0,1", "--dry-run")
    assert "# finished" in out and "# about 2.5 h on one GPU (1 runs)" in out


def test_what_kept_runs_needed_is_the_estimate_of_memory(scripted, call):
    scripted.record("kept", peak_memory_gib=7.5)
    assert "7.5 GiB" in call("run", "toy/full", "--dry-run")[1]
    scripted.record("smoky", peak_memory_gib=70.0, labels=["smoke"], config={"smoke": True})
    assert "7.5 GiB" in call("run", "toy/full", "--dry-run")[1]


def test_kept_runs_can_be_left_out(scripted, call):
    scripted.record("kept", seed=1)
    scripted.record("smoky", seed=0, labels=["smoke"], config={"smoke": True})
    code, out, err = call("run", "toy/full", "--seeds", "0,1,2", "--skip-kept", "--dry-run")
    assert code == 0 and "# 2 of 2 runs are open" in out
    assert "left out: toy/full, seed 1: results/ holds a run of it" in err
    assert "# 3 of 3 runs are open" in call("run", "toy/full", "--seeds", "0,1,2", "--dry-run")[1]


@pytest.mark.parametrize("other", [("--smoke",), ("--", "--fast")])
def test_kept_runs_do_not_replace_runs_of_another_form(scripted, call, other):
    scripted.record("kept", seed=1)
    code, _, err = call("run", "toy/full", "--skip-kept", "--dry-run", *other)
    assert code == 2 and "--skip-kept with" in err and other[0] in err
