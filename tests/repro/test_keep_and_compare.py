"""Keeping finished records, and comparing records with each other."""

from __future__ import annotations

import gzip
import json

import pytest

from repro.keep import COMPRESS_ABOVE_BYTES
from repro.pictures import PNG
from repro.records import load_record, read_series

pytestmark = pytest.mark.unit


def planted_run(repository, name: str, lines: int = 3, **fields):
    """outputs/<name>/record.json with a loss series of so many lines."""
    content = repository.record(
        f"{name}-s0-1", folder=f"unused/{name}", **{"series": "series.jsonl", "method": name, **fields}
    )
    repository.write(f"outputs/{name}/record.json", json.dumps(content))
    entries = [{"step": n, "task": 1, "epoch": 0, "name": "train/loss", "value": 1 / (n + 1)} for n in range(lines)]
    return repository.write(
        f"outputs/{name}/series.jsonl", "".join(json.dumps(entry) + "\n" for entry in entries)
    ).parent


def test_keep_copies_record_and_series(repository, call):
    folder = planted_run(repository, "a")
    code, out, _ = call("keep", folder / "record.json")
    assert code == 0 and "kept: results/toy/a-s0-1.json" in out
    record = load_record(repository.root / "results/toy/a-s0-1.json")
    assert record.series_path.name == "a-s0-1.series.jsonl"
    assert len(read_series(record)) == 3
    assert call("keep", folder)[0] == 0, "keeping the same record again is harmless"
    assert sorted(path.name for path in (repository.root / "results/toy").iterdir()) == [
        "a-s0-1.json",
        "a-s0-1.series.jsonl",
    ]


def test_large_series_are_compressed(repository, call):
    folder = planted_run(repository, "a", lines=5000)
    assert (folder / "series.jsonl").stat().st_size > COMPRESS_ABOVE_BYTES
    assert call("keep", folder)[0] == 0
    kept = repository.root / "results/toy/a-s0-1.series.jsonl.gz"
    assert gzip.decompress(kept.read_bytes()) == (folder / "series.jsonl").read_bytes()
    assert len(read_series(load_record(kept.parent / "a-s0-1.json"))) == 5000
    assert call("keep", folder)[0] == 0


def test_keep_never_overwrites_other_content(repository, call):
    folder = planted_run(repository, "a")
    call("keep", folder)
    before = (repository.root / "results/toy/a-s0-1.json").read_bytes()
    planted_run(repository, "a", seed=1)
    code, _, err = call("keep", folder)
    assert code == 2 and "never overwritten" in err
    assert (repository.root / "results/toy/a-s0-1.json").read_bytes() == before


def test_keep_refuses_unfinished_runs_and_lost_series(repository, call):
    code, _, err = call("keep", planted_run(repository, "a", status="stopped"))
    assert code == 2 and "stopped" in err
    folder = planted_run(repository, "b")
    (folder / "series.jsonl").unlink()
    code, _, err = call("keep", folder)
    assert code == 2 and "series.jsonl is missing" in err
    assert not (repository.root / "results/toy").exists()
    assert call("keep", "absent.json")[0] == 2


def test_keep_takes_the_newest_pictures_along(repository, call):
    folder = planted_run(repository, "a")
    for number in range(5):
        path = folder / f"images/epoch_{number}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(1024 * 1024 if number == 3 else 10))
    assert call("keep", folder)[0] == 0
    kept = sorted((repository.root / "results/toy").rglob("*.png"))
    assert [path.name for path in kept] == ["epoch_2.png", "epoch_4.png"]
    assert kept[0].parent.name == "images" and kept[0].parent.parent.name == "a-s0-1.pictures"


def test_keep_can_leave_pictures_out(repository, call):
    folder = planted_run(repository, "a")
    (folder / "images").mkdir()
    for step in range(3):
        (folder / f"images/epoch_{step}.png").write_bytes(PNG + bytes([step]))
    assert call("keep", folder, "--pictures", 0)[0] == 0
    assert not list((repository.root / "results").rglob("*.png"))
    assert call("keep", folder, "--pictures", 1)[0] == 0
    assert [path.name for path in (repository.root / "results").rglob("*.png")] == ["epoch_2.png"]


def test_keep_warns_of_machine_paths(repository, call):
    _, _, err = call("keep", planted_run(repository, "a", config={"smoke": False, "dataroot": "/somewhere/data"}))
    assert "config.dataroot" in err


# --- compare ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def pair(repository):
    good = {"acc": 85.0, "bwt": -5.0, "accuracy_matrix": [[90.0, None], [85.0, 85.0]]}
    bad = {"acc": 60.0, "bwt": -45.0, "accuracy_matrix": [[90.0, None], [45.0, 75.0]]}
    return planted_run(repository, "good", metrics=good), planted_run(repository, "bad", metrics=bad)


def test_matrices_and_leads_are_shown(pair, call):
    code, out, _ = call("compare", *pair)
    assert code == 0
    for part in ("good: test accuracy (%)", "bad: test accuracy (%)", "45.0", "85.00", "+25.00", "+40.00"):
        assert part in out


@pytest.mark.parametrize(
    ("expectation", "expected_code"), [("acc=25", 0), ("acc=25.1", 1), ("bwt=40", 0), ("bwt=41", 1)]
)
def test_expectations_decide_the_exit_code(pair, call, expectation, expected_code):
    code, out, _ = call("compare", *pair, "--expect", "acc=1", "--expect", expectation)
    assert code == expected_code
    assert ("NOT as expected" in out) == bool(expected_code)


@pytest.mark.parametrize("words", [("--expect", "acc>8"), ("--expect", "miou=1"), ("--expect", "acc=")])
def test_unreadable_expectations_are_refused(pair, call, words):
    code, _, err = call("compare", *pair, *words)
    assert code == 2 and len(err.strip().splitlines()) == 1


def test_an_expectation_needs_two_records(pair, call):
    assert call("compare", pair[0], "--expect", "acc=1")[0] == 2


def test_plots_are_png_files(repository, pair, call):
    code, out, _ = call("compare", *pair, "--plots", "plots")
    assert code == 0
    files = sorted((repository.root / "plots").iterdir())
    assert [file.name for file in files] == ["accuracy_over_tasks.png", "accuracy_per_task.png", "training_loss.png"]
    for file in files:
        assert file.read_bytes().startswith(b"\x89PNG") and file.stat().st_size > 5000
        assert file.name in out


def test_curves_show_the_records_numbers(pair):
    from repro import compare

    records = [load_record(folder) for folder in pair]
    (axes,) = compare._average_figure(records, ["good", "bad"]).axes
    assert [list(line.get_ydata()) for line in axes.lines] == [[90.0, 85.0], [90.0, 60.0]]
    assert axes.get_xlabel() and "%" in axes.get_ylabel() and axes.get_title()
    left, right = compare._task_figure(records, ["good", "bad"]).axes
    assert [list(line.get_ydata()) for line in right.lines] == [[90.0, 45.0], [75.0]]
    assert (left.get_title(), right.get_title()) == ("good", "bad")
    (axes,) = compare._loss_figure(records, ["good", "bad"]).axes
    assert list(axes.lines[0].get_xdata()) == [0, 1, 2]


def test_without_a_series_there_is_no_loss_plot(repository, pair, call):
    for folder in pair:
        (folder / "series.jsonl").unlink()
    assert call("compare", *pair, "--plots", "plots")[0] == 0
    assert not (repository.root / "plots/training_loss.png").exists()


def test_runs_of_one_method_are_told_apart(repository, call):
    first, second = planted_run(repository, "a"), planted_run(repository, "b", method="a", seed=1)
    out = call("compare", first, second)[1]
    assert "a, seed 0" in out and "a, seed 1" in out
