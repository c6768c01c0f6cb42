"""Unreadable, truncated and foreign files are named and left out; they never crash a table, a claim or the report."""

from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path

import pytest

from repro.records import find_problem, load_records
from repro.registry import read_registry
from repro.report import write_report

pytestmark = pytest.mark.unit

FOREIGN = {
    "empty": b"",
    "binary": bytes(range(256)),
    "not text": "Umlaut: ä".encode("latin-1"),
    "cut off": b'{"schema": 1, "run_id": "a"',
    "a list": b"[]",
    "null": b"null",
    "a number": b"5",
    "another schema": b'{"schema": 99}',
    "nested without end": b"[" * 200_000,
    "a pickle": pickle.dumps({"schema": 1}),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_files_are_named_and_the_table_stands(repository, call, name):
    repository.record()
    path = repository.root / "results/toy/foreign.json"
    path.write_bytes(FOREIGN[name])
    for command in ("table", "list", "claims"):
        code, out, err = call(command, "toy")
        assert code == 0
        if command == "table":
            assert "80.00" in out and "foreign.json" in err
            assert len([line for line in err.splitlines() if line.startswith("warning")]) == 1


def test_a_folder_with_a_records_name_is_no_record(repository, call):
    (repository.root / "results/toy/folder.json").mkdir(parents=True)
    repository.record()
    code, out, err = call("table", "toy")
    assert code == 0 and "80.00" in out and "folder.json" in err


@pytest.mark.parametrize(
    "fields",
    [
        {"metrics": {"acc": 10**400}},
        {"metrics": {"acc": {"value": 80.0}}},
        {"metrics": {"accuracy_matrix": [["90.0", None], ["80.0", "80.0"]]}},
        {"metrics": {"accuracy_matrix": [{}, {}]}},
        {"metrics": {"accuracy_matrix": [5, 6]}},
        {"metrics": {"accuracy_matrix": [[90.0, None], [80.0]]}},
        {"metrics": {"accuracy_matrix": [[90.0, None], [None, None]]}},
        {"metrics": {"accuracy_matrix": [[90.0, None, None], [None, 80.0, None], [80.0, 80.0, 80.0]]}},
        {"metrics": {"acc": [80.0], "accuracy_matrix": [[90.0, None], [80.0, 80.0]]}},
        {"labels": [["shortened"]]},
        {"labels": "shortened"},
        {"data": {"copy": ["original"]}},
        {"seed": True},
        {"run_id": "../../escape"},
        {"series": "../../series.jsonl"},
        {"paper": ".."},
    ],
)
def test_records_that_lie_about_their_form_are_named(repository, call, fields):
    content = {**repository.record("sound"), **fields}
    repository.write("results/toy/strange.json", json.dumps(content))
    assert find_problem(content) is not None
    code, out, err = call("table", "toy")
    assert code == 0 and "80.00 (n=1)" in out and "strange.json" in err


def test_numbers_beyond_floats_in_the_file_are_named(repository):
    repository.record("sound")
    path = repository.root / "results/toy/sound.json"
    text = path.read_text().replace("3600.0", "1e999")
    (repository.root / "results/toy/endless.json").write_text(text.replace('"sound"', '"endless"'))
    records, warnings = load_records([repository.root / "results/toy"])
    assert [record.run_id for record in records] == ["sound"]
    assert len(warnings) == 1 and "endless.json" in warnings[0] and "wall_seconds" in warnings[0]


SERIES = {
    "cut off inside a packed file": ("s.jsonl.gz", gzip.compress(b'{"step": 1}\n' * 999)[:-20]),
    "no packed file": ("s.jsonl.gz", b"plain"),
    "no JSON": ("s.jsonl", b"hello\n"),
    "lists": ("s.jsonl", b"[1]\n"),
    "no name": ("s.jsonl", b'{"step": 1, "value": 2}\n'),
    "not text": ("s.jsonl", b"\xff\xfe\n"),
    "words for numbers": ("s.jsonl", b'{"step": "x", "value": "y", "name": "train/loss"}\n'),
}


@pytest.mark.parametrize("name", SERIES)
def test_unreadable_series_are_named_by_the_report_and_by_compare(repository, call, name):
    file, content = SERIES[name]
    repository.record(series=file)
    (repository.root / "results/toy" / file).write_bytes(content)
    path = repository.root / "report.html"
    warnings = write_report(path, repository.root, read_registry(repository.root))
    assert path.is_file() and len(warnings) == 1 and file in warnings[0]
    record = repository.root / "results/toy/toy-s0-00000000.json"
    code, _, err = call("compare", record, "--plots", "plots")
    assert code == 2 and file in err and len(err.strip().splitlines()) == 1


class Trap:
    """Unpickling it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_code_in_a_recorded_fixture_is_not_run(toy_repository, recorder, toy_parity, call, tmp_path, suffix):
    entry = recorder.add()
    sprung = tmp_path / "sprung"
    entry.path.write_bytes(pickle.dumps(Trap(sprung)))
    code, out, _ = call("parity", "toy")
    assert code == 1 and "toy.product" in out and not sprung.exists()


def test_truncated_fixtures_are_named(toy_repository, recorder, toy_parity, call):
    recorder.add(id="toy.sound")
    entry = recorder.add()
    entry.path.write_bytes(entry.path.read_bytes()[:100])
    code, out, _ = call("parity", "toy")
    assert code == 1 and "malformed fixture" in " ".join(out.split()) and "toy.product" in out
