"""The registry names file and cell of every mistake."""

from __future__ import annotations

import csv
import io

import pytest

from common.training.errors import UserError
from repro.published import PublishedTables, check_published
from repro.registry import PublishedRef, read_registry, select_cells, select_papers
from repro.tables import published_text

pytestmark = pytest.mark.unit


def test_reads_cells_metrics_and_references(repository):
    (subproject,) = read_registry(repository.root)
    assert [cell.id for cell in subproject.cells] == ["toy/full", "toy/contradicted", "toy/demo"]
    cell = subproject.cells[0]
    assert cell.command == "cd work && sh scripts/toy.sh full"
    assert cell.cost_hours == 2.5
    assert [metric.key for metric in cell.metrics] == ["acc", "bwt"]
    assert cell.metrics[0].published[0].where == {"setting": "ten tasks", "method": "Toy", "metric": "ACC"}
    assert subproject.cells[2].demo


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('row = "full"', 'rows = "full"', ["work/experiments.toml", "toy/full", "unknown key rows"]),
        ('row = "full"\n', "", ["toy/full", "row is missing"]),
        ('row = "full"', "row = 3", ["toy/full", "row", "wrong type"]),
        ('id = "toy/contradicted"', 'id = "toy/full"', ["work/experiments.toml", "toy/full", "twice"]),
        ('id = "toy/full"', 'id = "other/full"', ["other/full", "toy/"]),
        ('select = "last"', 'select = "mean"', ["toy/full", "acc", "mean", "last, best"]),
        ('key = "acc"', 'key = "best_acc"', ["toy/full", "best_"]),
        ('key = "bwt"', 'key = "acc"', ["toy/full", "same key"]),
        ("where = {setting", "wher = {setting", ["toy/full", "acc", "unknown key wher"]),
        ("[subproject]", "[subproject", ["work/experiments.toml", "TOML"]),
        ("demo = true", "demo = 1", ["toy/demo", "demo", "wrong type"]),
    ],
)
def test_mistakes_are_named(repository, old, new, expected):
    text = repository.experiments.read_text()
    assert old in text
    repository.experiments.write_text(text.replace(old, new, 1))
    with pytest.raises(UserError) as error:
        read_registry(repository.root)
    for part in expected:
        assert part in str(error.value)


def test_a_paper_is_described_once(repository):
    repository.write("zzz/experiments.toml", repository.experiments.read_text())
    with pytest.raises(UserError, match="described twice"):
        read_registry(repository.root)


def test_selection_by_pattern_and_its_errors(repository):
    subprojects = read_registry(repository.root)
    assert [cell.id for cell in select_cells(subprojects, ["toy/d*", "toy/full", "toy/full"])] == [
        "toy/demo",
        "toy/full",
    ]
    with pytest.raises(UserError, match="toy/nothing"):
        select_cells(subprojects, ["toy/nothing"])
    with pytest.raises(UserError, match="known: toy"):
        select_papers(subprojects, "vdfd")


# --- published values ------------------------------------------------------------------------------------------------


def lookup(repository, **where):
    return PublishedTables(repository.root).values("toy", [PublishedRef("tables.csv", where)], "cell 'x'")


def test_sources_that_agree_are_one_value(repository):
    (value,) = lookup(repository, setting="ten tasks", method="Toy", metric="ACC")
    assert (value.value, value.text, value.sources) == (80.5, "80.50", ("Table 1", "Table 2"))


def test_sources_that_disagree_are_all_shown(repository):
    values = lookup(repository, setting="twenty tasks")
    assert [value.value for value in values] == [38.38, 38.69]
    assert published_text(values) == "38.38 (Table 1) / 38.69 (log)"


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"setting": "ten task"}, "no row matches"),
        ({"setting": "TEN TASKS"}, "no row matches"),
        ({"settings": "ten tasks"}, "no column 'settings'"),
    ],
)
def test_lookup_is_exact(repository, where, expected):
    with pytest.raises(UserError, match=expected) as error:
        lookup(repository, **where)
    assert "cell 'x'" in str(error.value)


def test_missing_file_and_text_in_the_number_column(repository):
    tables = PublishedTables(repository.root)
    with pytest.raises(UserError, match="does not exist"):
        tables.values("toy", [PublishedRef("absent.csv", {"a": "b"})])
    with pytest.raises(UserError, match="expected a number"):
        tables.values("toy", [PublishedRef("tables.csv", {"table": "log"}, column="source")])


def test_check_names_the_cell_whose_value_is_missing(repository, call):
    check_published(read_registry(repository.root), PublishedTables(repository.root))
    text = repository.experiments.read_text()
    repository.experiments.write_text(text.replace('method = "Toy"', 'method = "Tool"'))
    code, _, err = call("check")
    assert code == 2
    assert "toy/full" in err and "'acc'" in err and len(err.strip().splitlines()) == 1


def test_rows_that_no_cell_answers_are_counted(repository, call):
    code, out, _ = call("list", "--coverage", "--format", "csv")
    assert code == 0
    rows = {row["table"]: row for row in csv.DictReader(io.StringIO(out))}
    assert (rows["Table 1"]["rows"], rows["Table 1"]["answered"], rows["Table 1"]["others"]) == ("3", "2", "Other")
    assert (rows["Table 2"]["rows"], rows["Table 2"]["answered"]) == ("1", "1")
