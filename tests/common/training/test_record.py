"""What a run record says, and what it must not say."""

from __future__ import annotations

import getpass
import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from common.training import record
from common.training.journal import SERIES
from common.training.precision import set_backend_flags
from repro.records import find_problem
from tests.common.training.toy import open_run
from tests.helpers import REPOSITORY

pytestmark = pytest.mark.unit

DATA = {
    "name": "Sample",
    "sha256": "0" * 64,
    "copy": "original",
    "train_images": 4,
    "test_images": 2,
    "classes": 2,
}
METRICS = {"acc": 82.5, "bwt": -7.9, "accuracy_matrix": [[88.0, None], [80.1, 84.9]]}
FIELDS = {
    "schema": int,
    "run_id": str,
    "status": str,
    "paper": str,
    "cell": str,
    "method": str,
    "command": list,
    "config": dict,
    "changed": dict,
    "labels": list,
    "seed": int,
    "data": dict,
    "hardware": dict,
    "versions": dict,
    "numerics": dict,
    "started": str,
    "wall_seconds": float,
    "peak_memory_gib": float,
    "metrics": dict,
    "facts": dict,
    "series": str,
}


def strings(content: Any) -> Iterator[str]:
    """Every string in a JSON value, keys included."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield key
            yield from strings(value)
    elif isinstance(content, list):
        for value in content:
            yield from strings(value)
    elif isinstance(content, str):
        yield content


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A record, written by a program somewhere deep on this machine that was given relative folders."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "deep" / "main.py"), "--seed", "7", "--output_dir", "out"])
    with open_run(Path("out"), seed=7, cell="toy/full") as run:
        run.changed = {"lr": [0.05, 0.1]}
        run.step = 12
        returned = run.write_record(METRICS | {"teacher": "toy net"}, DATA, ["smoke", "fast", "smoke"])
    content = json.loads((tmp_path / "out" / "record.json").read_text(encoding="utf-8"))
    assert content == returned
    return content


def test_every_field_of_the_schema_is_there(written: dict[str, Any]) -> None:
    for name, kind in FIELDS.items():
        assert type(written[name]) is kind, name
    assert find_problem(written) is None  # what the tables demand of a record
    assert (written["schema"], written["status"], written["paper"]) == (1, "finished", "toy")
    assert (written["cell"], written["method"], written["seed"], written["steps"]) == ("toy/full", "Toy", 7, 12)
    assert written["labels"] == ["fast", "smoke"]
    assert written["changed"] == {"lr": [0.05, 0.1]}
    assert (written["metrics"], written["data"], written["series"]) == (METRICS, DATA, SERIES)
    assert written["facts"] == {"teacher": "toy net"}  # texts are no metrics
    assert written["config"]["schedule"] == [5]
    assert re.fullmatch(r"toy-full-s7-[0-9a-f]{8}", written["run_id"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", written["started"])
    assert written["numerics"] | {"precision": "fp32", "fast": False} == written["numerics"]
    assert written["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert written["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert (written["hardware"]["device"], written["hardware"]["threads"]) == ("cpu", torch.get_num_threads())


def test_the_program_is_named_barely(written: dict[str, Any]) -> None:
    assert written["command"] == ["main.py", "--seed", "7", "--output_dir", "out"]


def test_nothing_tells_whose_machine_it_was(written: dict[str, Any], tmp_path: Path) -> None:
    everything = list(strings(written))
    assert len(everything) > 50
    assert not [text for text in everything if re.search(r"(^|[\s'\"=:])(/|~/|[A-Z]:\\)\w", text)]
    private = [socket.gethostname(), getpass.getuser(), str(Path.home()), str(tmp_path), str(REPOSITORY)]
    for word in private:
        assert not [text for text in everything if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text)], word


def test_the_commit_is_that_of_the_checkout() -> None:
    if shutil.which("git") is None or not (REPOSITORY / ".git").exists():
        pytest.skip("no git checkout")
    git = subprocess.run(["git", "-C", str(REPOSITORY), "rev-parse", "HEAD"], capture_output=True, text=True)
    if git.returncode:
        pytest.skip(f"git: {git.stderr.strip()}")
    code = record.describe_code()
    assert code["commit"] == git.stdout.strip()
    assert isinstance(code["dirty"], bool)


def test_without_git_the_commit_is_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert record.describe_code() == {"commit": None, "dirty": None}


def test_the_run_id_follows_what_is_computed() -> None:
    config = {"lr": 0.1, "schedule": [5]}
    name = record.run_id("vdfd/ti-cifar100-10", "VDFD", 3, config)
    assert name.startswith("vdfd-ti-cifar100-10-s3-")
    assert name == record.run_id("vdfd/ti-cifar100-10", "VDFD", 3, dict(reversed(config.items())))
    assert name != record.run_id("vdfd/ti-cifar100-10", "VDFD", 3, config | {"lr": 0.2})
    assert record.run_id(None, "VDFD", 0, config).startswith("vdfd-s0-")


def test_the_run_id_does_not_follow_the_machine(tmp_path: Path) -> None:
    ids = []
    for name, options in {"a": {}, "b": {"gpuid": [0], "time_budget": 5.0}, "c": {"lr": 0.2}}.items():
        with open_run(tmp_path / name, **options) as run:
            ids.append(run.write_record({}, DATA, [])["run_id"])
    assert ids[0] == ids[1] != ids[2]


def test_the_backend_settings_are_recorded() -> None:
    cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = cuda.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic
    try:
        for fast in (True, False):
            set_backend_flags(fast)
            assert record.describe_numerics("bf16", fast) == {
                "precision": "bf16",
                "fast": fast,
                "tf32": fast,
                "cudnn_benchmark": fast,
                "cudnn_deterministic": not fast,
            }
    finally:
        cuda.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic = before


def test_texts_tests_and_results_are_no_changed_code(tmp_path):
    def git(*words):
        subprocess.run(["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b.c", *words], check=True)

    git("init", "-q")
    (tmp_path / "code.py").write_text("one = 1\n")
    git("add", "."), git("commit", "-qm", "one")
    for path in ("README.md", "paper/README.md", "tests/test_x.py", "results/x/record.json"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("text")
    assert not record.describe_code(tmp_path)["dirty"]
    (tmp_path / "paper" / "code.py").write_text("two = 2\n")
    assert record.describe_code(tmp_path)["dirty"]
