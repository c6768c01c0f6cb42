"""A small repository of its own for every test: one paper, three cells, a CSV file, scripts and records."""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from repro.registry import ROOT_VARIABLE

EXPERIMENTS = """
[subproject]
paper = "toy"
title = "Toy paper"
parity = "toy_adapters"
fixtures = "repro/fixtures/toy"

[[cell]]
id = "toy/full"
directory = "work"
script = "scripts/toy.sh"
row = "full"
title = "full setting"
cost_hours = 2.5
cost_hardware = "one GPU"
[[cell.metric]]
key = "acc"
name = "ACC"
definition = "mean accuracy, percent"
select = "last"
[[cell.metric.published]]
file = "tables.csv"
where = {setting = "ten tasks", method = "Toy", metric = "ACC"}
[[cell.metric]]
key = "bwt"
name = "BWT"
definition = "backward transfer, points"
select = "last"

[[cell]]
id = "toy/contradicted"
directory = "work"
script = "scripts/toy.sh"
row = "contradicted"
title = "sources disagree"
[[cell.metric]]
key = "acc"
name = "ACC"
definition = "mean accuracy, percent"
select = "last"
[[cell.metric.published]]
file = "tables.csv"
where = {setting = "twenty tasks", metric = "ACC"}

[[cell]]
id = "toy/demo"
directory = "work"
script = "scripts/toy.sh"
row = "demo"
title = "demonstration"
demo = true
[[cell.metric]]
key = "acc"
name = "ACC"
definition = "mean accuracy, percent"
select = "last"
"""

TABLES = """table,setting,method,metric,value,source
Table 1,ten tasks,Toy,ACC,80.50,poster
Table 2,ten tasks,Toy,ACC,80.5,appendix
Table 1,ten tasks,Other,ACC,70.00,poster
Table 1,twenty tasks,Toy,ACC,38.38,poster
log,twenty tasks,Toy,ACC,38.69,log
"""


class Repository:
    """Paths and helpers of the test's repository."""

    def __init__(self, root: Path):
        self.root = root
        self.experiments = self.write("work/experiments.toml", EXPERIMENTS)
        self.write("repro/paper/toy/tables.csv", TABLES)

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    def record(self, run_id: str = "toy-s0-00000000", folder: str = "results/toy", **fields) -> dict:
        """A valid record of a full run with ACC 80 and BWT -10; `fields` replace its own."""
        content = {
            "schema": 1,
            "run_id": run_id,
            "status": "finished",
            "paper": "toy",
            "cell": "toy/full",
            "method": "Toy",
            "command": ["main.py", "--overrides", "--seed", "0"],
            "config": {"smoke": False},
            "changed": {},
            "labels": [],
            "seed": 0,
            "commit": "abc",
            "dirty": False,
            "data": {
                "name": "toy",
                "sha256": "0",
                "copy": "original",
                "train_images": 1,
                "test_images": 1,
                "classes": 2,
            },
            "hardware": {"device": "cpu", "name": "cpu", "threads": 1},
            "versions": {"python": "3.11"},
            "numerics": {"precision": "fp32", "fast": False},
            "started": "2026-01-01T00:00:00+00:00",
            "wall_seconds": 3600.0,
            "peak_memory_gib": 1.0,
            "metrics": {"acc": 80.0, "bwt": -10.0, "accuracy_matrix": [[90.0, None], [80.0, 80.0]]},
        }
        content.update(fields)
        self.write(f"{folder}/{run_id}.json", json.dumps(content))
        return content

    def result(self, acc: float) -> dict:
        """Metrics of two tasks without forgetting."""
        return {"acc": acc, "bwt": 0.0, "accuracy_matrix": [[acc, None], [acc, acc]]}


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Repository:
    """A repository that the command line takes for its own; it is the working directory, too."""
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return Repository(tmp_path)


@pytest.fixture
def call(capfd):
    """Run a command line; returns (exit code, standard output, standard error)."""
    from repro.cli import app_main

    def run(*words: str) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            app_main([str(word) for word in words])
        out, err = capfd.readouterr()
        return int(stopped.value.code or 0), out, err

    return run


# --- recorded fixtures and adapters ----------------------------------------------------------------------------------

ADAPTER_MODULE = """
from common.parity import reproduces

@reproduces("toy.product")
def product(fixture):
    return {"out.y": fixture.inputs["x"] * fixture.params["w"], "args.storage": 3}
"""


@pytest.fixture
def toy_parity(monkeypatch):
    """Constants for the papers of these tests; adapters that a test registers disappear with it."""
    from common.parity import ADAPTERS
    from repro import parity

    monkeypatch.setattr(parity, "ANSWER_ARGS", {"toy.*": ("storage", "groups", "rate")})
    monkeypatch.setattr(parity, "NEXT_ISSUE", {"toy.later.*": "later"})
    before = dict(ADAPTERS)
    yield
    ADAPTERS.clear()
    ADAPTERS.update(before)


class Recorder:
    """Writes a fixture folder."""

    def __init__(self, folder):
        self.folder, self.entries = folder, []
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, id="toy.product", args=None, inputs=None, outputs=None, rtol=1e-4, atol=1e-6, entry=None):
        """By default y = x * w with random x and w, and the answer args.storage = 3; `entry` changes the manifest."""
        random = np.random.default_rng(0)
        x, w = (random.standard_normal(6).astype(np.float32) for _ in range(2))
        inputs = {"in.x": x, "param.w": w} if inputs is None else inputs
        outputs = {"out.y": x * w} if outputs is None else outputs
        np.savez(self.folder / f"{id}.npz", **inputs, **outputs)
        written = {
            "id": id,
            "file": f"{id}.npz",
            "args": {"storage": 3} if args is None else args,
            "inputs": list(inputs),
            "outputs": list(outputs),
            "rtol": rtol,
            "atol": atol,
            **(entry or {}),
        }
        self.entries.append(written)
        (self.folder / "manifest.json").write_text(json.dumps(self.entries))
        from repro.recorded import read_manifest

        return read_manifest(self.folder)[-1]


@pytest.fixture
def new_recorder():
    """A recorder of fixtures in another folder."""
    return Recorder


@pytest.fixture
def recorder(tmp_path) -> Recorder:
    """A recorder of the fixtures of the test's repository."""
    return Recorder(tmp_path / "repro" / "fixtures" / "toy")


@pytest.fixture
def toy_repository(repository, recorder, monkeypatch):
    """The test's repository with a module of adapters that can be imported once per test."""
    repository.write("toy_adapters.py", ADAPTER_MODULE)
    monkeypatch.syspath_prepend(str(repository.root))
    monkeypatch.delitem(sys.modules, "toy_adapters", raising=False)
    yield repository
    sys.modules.pop("toy_adapters", None)


# --- launch scripts ---------------------------------------------------------------------------------------------------

TOY_SCRIPT = """
row=$1; shift
exec "$PYTHON" ../program.py --row "$row" --overrides "$@"
"""

TOY_PROGRAM = """
import json, os, pathlib, signal, sys, time
words = sys.argv[1:]
value = lambda flag: words[words.index(flag) + 1]
out = pathlib.Path(value("--output_dir"))
out.mkdir(parents=True, exist_ok=True)
with open(out / "calls.txt", "a") as file:
    file.write(" ".join(words) + "\\n")
behaviour = value("--behave") if "--behave" in words else value("--row")
seed = int(value("--seed"))
record = dict(json.loads(pathlib.Path("../template.json").read_text()), run_id=f"{value('--row')}-s{seed}", seed=seed,
              command=["main.py", *words], cell="toy/" + value("--row"))
if "--smoke" in words:
    assert os.environ["SMOKE"] == "1"
    record.update(labels=["smoke"], config={"smoke": True}, changed={"smoke": [False, True]})
if behaviour == "fails":
    print("error: the teacher is missing", flush=True)
    sys.exit(3)
if behaviour == "silent":
    sys.exit(0)
if behaviour == "repeats":
    for number in range(2):
        (out / f"repeat_{number}").mkdir(exist_ok=True)
        part = dict(record, run_id=record["run_id"] + str(number), part=f"repeat_{number}")
        (out / f"repeat_{number}" / "record.json").write_text(json.dumps(part))
    sys.exit(0)
if behaviour == "meets":
    (out / "here").touch()
    other, deadline = out.parent / f"seed{1 - seed}" / "here", time.time() + 60
    while not other.exists():
        time.sleep(0.01)
        if time.time() > deadline:
            sys.exit("the other run was not started while this one ran")
if behaviour in ("notes", "meets"):
    names = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
    noted = {"begin": time.time(), **{name: os.environ.get(name) for name in names}}
    time.sleep(0.5)
    (out / "noted.json").write_text(json.dumps({**noted, "end": time.time()}))
if behaviour == "waits":
    told = []
    signal.signal(signal.SIGTERM, lambda *_: told.append(1))
    (out / "waiting").touch()
    while not told:
        time.sleep(0.01)
    time.sleep(0.5)
    (out / "saved").touch()
    sys.exit(75)
if behaviour == "stops" and not (out / "checkpoint").exists():
    (out / "checkpoint").touch()
    sys.exit(75)
(out / "record.json").write_text(json.dumps(record))
"""


@pytest.fixture
def scripted(repository, monkeypatch):
    """The repository with a script; a row's name says what its program does."""
    monkeypatch.delenv("PYTHON", raising=False)
    repository.write("work/scripts/toy.sh", TOY_SCRIPT)
    repository.write("program.py", TOY_PROGRAM)
    repository.write("template.json", json.dumps(repository.record(folder="unused")))
    return repository
