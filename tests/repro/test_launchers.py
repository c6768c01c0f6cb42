"""Slurm arrays through submitit's local executor, and several processes through torchrun."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from common.training.errors import UserError
from repro import launchers
from repro.jobs import plan
from repro.registry import read_registry
from repro.runner import run_jobs
from repro.torchrun import write_interpreter

pytestmark = pytest.mark.unit

REPOSITORY = Path(__file__).resolve().parents[2]


def jobs_of(repository, *extra, seeds=(0,)):
    cells = read_registry(repository.root)[0].cells[:1]
    return plan(cells, seeds, repository.root, repository.root / "outputs", False, extra)


@pytest.fixture
def cluster(scripted, monkeypatch):
    """submitit's tasks as processes of this machine; they import this checkout."""
    pytest.importorskip("submitit")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))

    def submit(jobs, **options):
        return launchers.submit(jobs, scripted.root / "slurm", options, cluster="local")

    return submit


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert path.exists()


def test_an_array_runs_every_unfinished_job(scripted, cluster):
    jobs = jobs_of(scripted, seeds=(0, 1))
    run_jobs(jobs[:1])
    results, handles = cluster(jobs)
    assert [result.status for result in results] == ["finished before", "submitted"]
    (handle,) = handles
    assert handle.job_id in results[1].note
    assert handle.result() == 0
    assert (scripted.root / "outputs/toy/full/seed1/record.json").is_file()
    assert cluster(jobs)[1] == []


def task_process(parent: int) -> int:
    """The process of submitit that runs the task: the descendant that unpickled it."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
            words = (path.parent / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it ended meanwhile
        if int(fields[1]) == parent:
            return int(path.parent.name) if b"submitit.core._submit" in words else task_process(int(path.parent.name))
    raise AssertionError(f"process {parent} has no task")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to find submitit's process")
def test_a_task_at_its_time_limit_saves_and_is_requeued(scripted, cluster):
    """The warning of the time limit: the program saves on SIGTERM, and the same command runs again."""
    _, (handle,) = cluster(jobs_of(scripted, "--behave", "waits"))
    folder = scripted.root / "outputs/toy/full/seed0"
    wait_for(folder / "waiting")
    os.kill(task_process(handle._process.pid), signal.SIGUSR2)
    wait_for(folder / "saved")
    deadline = time.monotonic() + 60
    while len((folder / "calls.txt").read_text().splitlines()) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    first, second = (folder / "calls.txt").read_text().splitlines()
    assert first == second
    handle.cancel()


def test_wrong_parameters_are_one_line(scripted, cluster):
    with pytest.raises(UserError, match="--slurm"):
        cluster(jobs_of(scripted), nonsense="1")


def test_a_failed_task_is_shown_as_failed(scripted, cluster):
    import submitit

    _, (handle,) = cluster(jobs_of(scripted, "--behave", "fails"))
    with pytest.raises(submitit.core.utils.FailedJobError, match="exit code 3"):
        handle.result()


def test_without_submitit_there_is_one_line(scripted, call, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    code, _, err = call("run", "toy/full", "--launcher", "slurm")
    assert code == 2 and "submitit" in err and "pip install" in err and len(err.strip().splitlines()) == 1


def test_without_slurm_there_is_one_line(scripted, call, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setattr(launchers.shutil, "which", lambda name: None)
    code, _, err = call("run", "toy/full", "--launcher", "slurm")
    assert code == 2 and "sbatch" in err and len(err.strip().splitlines()) == 1


def test_parameters_follow_the_cells_and_the_options(scripted):
    (job,) = jobs_of(scripted)
    options = {"partition": "gpu", "gpus_per_node": "1", "timeout_min": "600"}
    found = launchers._parameters([job], {}, 3, "slurm")
    assert found["timeout_min"] == 225 and found["mem_gb"] == 4.0 and found["slurm_array_parallelism"] == 3
    found = launchers._parameters([job], options, 0, "slurm")
    assert (found["slurm_partition"], found["gpus_per_node"], found["timeout_min"]) == ("gpu", 1, 600)


# --- torchrun --------------------------------------------------------------------------------------------------------

RANKS = """
import json, os, pathlib, sys
words = sys.argv[1:]
out = pathlib.Path(words[words.index("--output_dir") + 1])
rank, size = os.environ["RANK"], os.environ["WORLD_SIZE"]
if "--stop" in words:
    sys.exit(75)
if "--crash" in words and rank == "1":
    sys.exit(4)
(out / f"rank{rank}").write_text(size)
if rank == "0":
    record = json.loads(pathlib.Path("../template.json").read_text())
    (out / "record.json").write_text(json.dumps({**record, "command": words, "cell": "toy/full"}))
"""


@pytest.fixture
def distributed(scripted):
    text = scripted.experiments.read_text()
    scripted.experiments.write_text(text.replace('title = "Toy paper"', 'title = "Toy paper"\ndistributed = true'))
    scripted.write("program.py", RANKS)
    scripted.write("work/scripts/toy.sh", 'row=$1; shift\n"$PYTHON" -u ../program.py --row "$row" "$@"\n')
    return scripted


@pytest.mark.parametrize(
    ("extra", "status", "code"), [((), "finished", 0), (("--stop",), "stopped", 75), (("--crash",), "failed", 4)]
)
def test_several_processes_share_a_run_and_their_exit_code_is_kept(distributed, extra, status, code):
    jobs = launchers.with_torchrun(jobs_of(distributed, *extra), 2, distributed.root / "launch")
    (result,) = run_jobs(jobs)
    assert (result.status, result.exit_code) == (status, code)
    if status == "finished":
        folder = distributed.root / "outputs/toy/full/seed0"
        assert [(folder / f"rank{rank}").read_text() for rank in (0, 1)] == ["2", "2"]


def test_cells_of_one_device_are_refused(scripted):
    with pytest.raises(UserError, match="one device only"):
        launchers.with_torchrun(jobs_of(scripted), 2, scripted.root / "launch")


def test_the_stand_in_is_python_for_everything_else(tmp_path, monkeypatch):
    import subprocess

    path = write_interpreter(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    found = subprocess.run([str(path), "-c", "import json; print(json.dumps(1))"], capture_output=True, text=True)
    assert json.loads(found.stdout) == 1


def test_the_real_distributed_papers_are_declared():
    found = {cell.id.split("/")[0] for one in read_registry(REPOSITORY) for cell in one.cells if cell.distributed}
    assert "prompt_distill" in found and "vdfd" not in found
