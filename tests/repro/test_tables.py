"""Tables come from CSV files and records only; full and other runs never meet."""

from __future__ import annotations

import csv
import io
import json
import statistics

import pytest

from repro.pictures import PNG
from repro.records import find_problem, load_records
from repro.registry import read_registry
from repro.tables import collect, full_runs, other_runs

pytestmark = pytest.mark.unit


def rows_of(call, *words) -> list[dict[str, str]]:
    code, out, _ = call("table", "toy", "--format", "csv", *words)
    assert code == 0
    return list(csv.DictReader(io.StringIO(out)))


def row(rows, section, cell, metric):
    (found,) = [r for r in rows if r["section"] == section and r["cell"] == cell and r["metric"].startswith(metric)]
    return found


def test_mean_and_sample_deviation_of_full_runs(repository, call):
    for seed, acc in enumerate((80.0, 82.0, 84.0)):
        repository.record(f"toy-s{seed}-0", seed=seed, metrics=repository.result(acc))
    found = row(rows_of(call), "toy-full", "toy/full", "ACC")
    assert found["ours"] == f"82.00 ± {statistics.stdev([80, 82, 84]):.2f} (n=3)"
    assert found["published"] == "80.50 (Table 1, Table 2)"
    assert found["difference"] == "+1.50"
    assert (found["metric"], found["select"], found["status"]) == ("ACC", "last", "within")
    assert found["records"].split() == [f"results/toy/toy-s{seed}-0.json" for seed in range(3)]


def test_cells_without_runs_say_so_and_contradictions_stand_side_by_side(repository, call):
    rows = rows_of(call)
    assert row(rows, "toy-full", "toy/full", "ACC")["ours"] == "not run"
    assert row(rows, "toy-full", "toy/full", "BWT")["published"] == "not found"
    assert row(rows, "toy-full", "toy/contradicted", "ACC")["published"] == "38.38 (Table 1) / 38.69 (log)"
    repository.record(cell="toy/contradicted", metrics=repository.result(40.0))
    assert row(rows_of(call), "toy-full", "toy/contradicted", "ACC")["difference"] == "+1.62 / +1.31"


@pytest.mark.parametrize(
    "fields",
    [
        {"labels": ["shortened"]},
        {"labels": ["smoke"], "config": {"smoke": True}},
        {"labels": ["fast"], "numerics": {"fast": True}},
        {"changed": {"schedule": [[80], [3]]}},
        {"labels": ["re-encoded"], "data": {"copy": "re-encoded"}},
    ],
)
def test_other_runs_never_share_a_column_or_a_mean_with_full_runs(repository, call, fields):
    repository.record("toy-s0-full")
    repository.record("toy-s1-other", seed=1, metrics=repository.result(10.0), **fields)
    rows = rows_of(call)
    full, other = row(rows, "toy-full", "toy/full", "ACC"), row(rows, "toy-other", "toy/full", "ACC")
    assert (full["ours"], full["shortened"]) == ("80.00 (n=1)", "")
    assert (other["shortened"], other["ours"], other["difference"]) == ("10.00 (n=1)", "", "")
    assert other["labels"] == (", ".join(fields.get("labels", [])) or "none")


def test_other_runs_are_grouped_by_what_makes_them_differ(repository):
    repository.record("a", labels=["shortened"], changed={"epochs": [80, 3]})
    repository.record("b", labels=["shortened"], changed={"epochs": [80, 5]})
    repository.record("c", labels=["shortened"], changed={"epochs": [80, 3]}, seed=1)
    repository.record("d", labels=["shortened", "re-encoded"], changed={"epochs": [80, 3]})
    (subproject,) = read_registry(repository.root)
    runs = collect(subproject, repository.root)
    groups = other_runs(runs.records["toy/full"], subproject.cells[0].metrics[0])
    assert sorted([record.run_id for record in group.records] for group in groups) == [["a", "c"], ["b"], ["d"]]


def test_another_seed_is_no_change(repository, call):
    repository.record("a")
    repository.record("b", seed=1, changed={"seed": [0, 1]}, metrics=repository.result(82.0))
    assert row(rows_of(call), "toy-full", "toy/full", "ACC")["ours"].endswith("(n=2)")


def test_stopped_runs_count_nowhere(repository):
    repository.record("a", status="stopped")
    (subproject,) = read_registry(repository.root)
    records = collect(subproject, repository.root).records["toy/full"]
    metric = subproject.cells[0].metrics[0]
    assert len(records) == 1
    assert not full_runs(records, metric).values and not other_runs(records, metric)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"metrics": {"acc": 81.0, "accuracy_matrix": [[90.0, None], [80.0, 80.0]]}}, "accuracy matrix gives 80.00"),
        ({"metrics": {"bwt": -1.0, "accuracy_matrix": [[90.0, None], [80.0, 80.0]]}}, "accuracy matrix gives -10.00"),
        ({"metrics": {"acc": "80"}}, "expected a number"),
        ({"metrics": {"accuracy_matrix": [[90.0], [80.0]]}}, "accuracy_matrix"),
        ({"labels": ["quick"]}, "unknown label"),
        ({"data": {"copy": "re-encoded"}}, "lacks the label 're-encoded'"),
        ({"config": {"smoke": True}}, "lacks the label 'smoke'"),
        ({"numerics": {"fast": True}}, "lacks the label 'fast'"),
        ({"schema": 2}, "schema"),
        ({"status": "done"}, "status"),
        ({"seed": "0"}, "seed"),
        ({"paper": "../toy"}, "file name"),
        ({"series": "../series.jsonl"}, "series"),
    ],
)
def test_planted_errors_are_left_out_with_a_warning(repository, call, fields, expected):
    content = repository.record()
    assert find_problem(content) is None
    repository.record(**fields)
    code, out, err = call("table", "toy")
    assert code == 0
    assert "warning: left out" in err and expected in err
    assert "80.00" not in out and "81.00" not in out


def test_unknown_cells_double_ids_and_broken_files_are_named(repository):
    repository.record("a", cell="toy/absent")
    repository.record("b")
    repository.record("b", folder="more/deep", metrics=repository.result(1.0))
    repository.write("more/deep/record.json", "{")
    repository.write("more/broken.json", "{")
    (subproject,) = read_registry(repository.root)
    runs = collect(subproject, repository.root, [repository.root / "more" / "deep"])
    text = "\n".join(runs.warnings)
    assert "toy/absent" in text and "other content" in text and "record.json: not a readable JSON file" in text
    assert len(runs.warnings) == 3
    assert full_runs(runs.records["toy/full"], subproject.cells[0].metrics[0]).values == (80.0,)


def test_records_of_runs_are_found_at_any_depth_and_only_once(repository):
    content = repository.record("a")
    repository.write("outputs/x/seed0/record.json", json.dumps({**content, "series": "series.jsonl"}))
    records, warnings = load_records([repository.root / "results" / "toy", repository.root / "outputs"])
    assert [record.run_id for record in records] == ["a"]
    assert not warnings


@pytest.mark.parametrize("format", ["text", "md", "csv", "html", "json"])
def test_every_format_holds_published_and_own_values(repository, call, format):
    repository.record()
    repository.record("toy-s1-0", labels=["shortened"], metrics=repository.result(10.0))
    code, out, _ = call("table", "toy", "--format", format)
    assert code == 0
    for part in ("toy/full", "80.50", "shortened", "results/toy/toy-s0-00000000.json"):
        if format == "text" and part.startswith("results"):
            continue  # a narrow text table folds paths
        assert part in out
    assert ("10.00" in out) or ("10.0" in out)


def test_json_keeps_numbers(repository, call):
    repository.record()
    sections = {section["section"]: section for section in json.loads(call("table", "--format", "json")[1])}
    first = sections["toy-full"]["rows"][0]
    assert (first["mean"], first["std"], first["n"], first["values"]) == (80.0, None, 1, [80.0])
    assert first["published"][0]["value"] == 80.5
    assert first["difference"] == [-0.5]


def test_html_escapes_what_it_shows(repository, call):
    repository.experiments.write_text(repository.experiments.read_text().replace("Toy paper", "Toy <b> & paper"))
    assert "Toy &lt;b&gt; &amp; paper" in call("table", "--format", "html")[1]


def test_list_counts_runs_and_finds_missing_cells(repository, call):
    repository.record()
    repository.record("toy-s1-0", labels=["shortened"])
    rows = {row["cell"]: row for row in json.loads(call("list", "--format", "json")[1])[0]["rows"]}
    assert (rows["toy/full"]["full_runs"], rows["toy/full"]["other_runs"]) == (1, 1)
    assert rows["toy/full"]["command"] == "cd work && sh scripts/toy.sh full"
    assert rows["toy/demo"]["demo"]
    code, out, _ = call("list", "toy", "--missing")
    assert code == 0 and "toy/contradicted" in out and "toy/full" not in out


def test_bad_input_is_one_line_and_exit_code_2(repository, call):
    for words in (
        ("table", "vdfd"),
        ("table", "--format", "pdf"),
        ("table", "--records", "absent"),
        ("list", "--", "x"),
    ):
        code, _, err = call(*words)
        assert code == 2
        assert err.startswith("error: ") and len(err.strip().splitlines()) == 1


# --- README ----------------------------------------------------------------------------------------------------------

README = "# Toy\n\n<!-- repro:table toy -->\nold\n<!-- /repro:table -->\n\nafter\n"


def test_readme_is_regenerated_and_checked(repository, call):
    path = repository.write("work/README.md", README)
    assert call("readme", "--check")[0] == 1
    assert path.read_text() == README
    code, out, _ = call("readme")
    assert code == 0 and "updated: work/README.md" in out
    text = path.read_text()
    assert "80.50" in text and "old" not in text and text.endswith("\nafter\n")
    assert call("readme", "--check")[0] == 0
    repository.record()
    assert call("readme", "--check")[0] == 1
    call("readme")
    assert "(../results/toy/toy-s0-00000000.json)" in path.read_text()


def test_readme_block_can_be_limited_to_cells(repository, call):
    path = repository.write("README.md", README.replace("table toy ", "table toy toy/con* "))
    call("readme")
    assert "toy/contradicted" in path.read_text() and "toy/full" not in path.read_text()


def test_readme_shows_kept_pictures_of_each_cell(repository, call):
    path = repository.write("work/README.md", "<!-- repro:pictures toy -->\n<!-- /repro:pictures -->\n")
    call("readme")
    assert "No pictures are kept." in path.read_text()
    for seed in (0, 1):
        repository.record(f"full-s{seed}", cell="toy/full", seed=seed)
    folder = repository.root / "results/toy/full-s1.pictures/pictures"
    folder.mkdir(parents=True)
    for step in range(2):
        (folder / f"step_{step}.png").write_bytes(PNG)
    assert call("readme", "--check")[0] == 1 and call("readme")[0] == 0
    (row,) = (line for line in path.read_text().splitlines() if line.startswith("| toy/"))
    assert row.startswith("| toy/full | 1 | ![step 0](../results/toy/full-s1.pictures/pictures/step_0.png) ![step 1](")
    assert "segmentation: image, truth, prediction" in path.read_text()
    path.write_text(path.read_text().replace("pictures toy", "pictures toy toy/con*"))
    assert call("readme")[0] == 0 and "No pictures are kept." in path.read_text()


@pytest.mark.parametrize(
    "text",
    [
        "<!-- repro:table toy -->\n",
        "<!-- /repro:table -->\n",
        README.replace("toy -->", "absent -->"),
        README.replace("toy -->", "-->"),
    ],
)
def test_readme_with_wrong_markers_is_refused(repository, call, text):
    repository.write("README.md", text)
    code, _, err = call("readme")
    assert code == 2 and err.startswith("error: ")


def test_a_repeated_seed_counts_once_and_a_replaced_run_not_at_all(repository):
    repository.record("old", metrics=repository.result(70.0), started="2026-01-01T00:00:00+00:00")
    repository.record("new", metrics=repository.result(80.0), started="2026-02-01T00:00:00+00:00")
    repository.record("other", metrics=repository.result(90.0), seed=1)
    (subproject,) = read_registry(repository.root)
    runs = collect(subproject, repository.root)
    assert sorted(full_runs(runs.records["toy/full"], subproject.cells[0].metrics[0]).values) == [80.0, 90.0]
    assert len(runs.warnings) == 1 and "newer run" in runs.warnings[0]

    content = repository.record("again", folder="outputs", metrics=repository.result(60.0))
    repository.write("outputs/full/earlier-1/record.json", json.dumps(content))
    repository.write("outputs/full/record.json", json.dumps({**content, "metrics": repository.result(61.0)}))
    found, warnings = load_records([repository.root / "outputs" / "full"])
    assert [record.metrics["acc"] for record in found] == [61.0] and not warnings


def test_parts_with_other_coefficients_are_not_averaged(repository):
    for number, acc in enumerate((20.0, 80.0)):
        changed = {"reg_coef": [[5], [1, 10]]}
        repository.record(f"p{number}", metrics=repository.result(acc), changed=changed, part=f"reg_{10**number}")
    (subproject,) = read_registry(repository.root)
    groups = other_runs(collect(subproject, repository.root).records["toy/full"], subproject.cells[0].metrics[0])
    assert sorted(group.values for group in groups) == [(20.0,), (80.0,)]


def test_a_command_without_the_marker_is_not_taken_for_the_row(repository):
    repository.record("typed", command=["main.py", "--cell", "toy/full", "--lr", "5"])
    (subproject,) = read_registry(repository.root)
    records = collect(subproject, repository.root).records["toy/full"]
    assert len(records) == 1 and not full_runs(records, subproject.cells[0].metrics[0]).values
