"""The two-sided rule, the authors' log in a column of its own, and the self-test that plants wrong numbers."""

from __future__ import annotations

import csv
import io

import pytest

from repro import planted, records, status, tables
from repro.published import Published
from repro.speed import keep_speed
from repro.status import NOT_PUBLISHED, NOT_RUN, WITHIN, prediction_interval, rounding, status_of
from tests.helpers import REPOSITORY
from tests.repro.speeds import MEASURED

pytestmark = pytest.mark.audit


def value(text: str) -> Published:
    return Published(float(text.split("+-")[0]), text, ("Table 1",), "tables.csv")


def test_prediction_interval_by_hand():
    low, high = prediction_interval([79.0, 80.0, 81.0])  # t(0.975, 2) = 4.3027, sqrt(1 + 1/3) = 1.1547
    assert (low, high) == pytest.approx((80 - 4.9683, 80 + 4.9683), abs=1e-3)


@pytest.mark.parametrize(("text", "half"), [("80.50", 0.005), ("80.5", 0.05), ("81", 0.5), ("43.9+-0.9", 0.05)])
def test_published_values_are_rounded(text, half):
    assert rounding(text) == pytest.approx(half)


@pytest.mark.parametrize(
    ("values", "published", "expected"),
    [
        ((), ["80.00"], NOT_RUN),
        ((80.0, 80.0, 80.0), [], NOT_PUBLISHED),
        ((80.0,), ["80.00"], "too few runs (n=1)"),
        ((80.0, 90.0), ["80.00"], "too few runs (n=2)"),
        ((79.0, 80.0, 81.0), ["84.90"], WITHIN),
        ((79.0, 80.0, 81.0), ["75.10"], WITHIN),
        ((79.0, 80.0, 81.0), ["85.00"], "outside (below)"),
        ((79.0, 80.0, 81.0), ["75.00"], "outside (above)"),
        ((80.0, 80.0, 80.0), ["80.00"], WITHIN),
        ((80.0, 80.0, 80.0), ["80.01"], "outside (below)"),
        ((80.004, 80.004, 80.004), ["80.00"], WITHIN),
        ((79.0, 80.0, 81.0), ["80.00", "90.00"], "within / outside (below)"),
    ],
)
def test_status_is_two_sided(values, published, expected):
    assert status_of(values, [value(text) for text in published]) == expected


def rows_of(call) -> dict[str, dict[str, str]]:
    code, out, _ = call("table", "toy", "--format", "csv")
    assert code == 0
    rows = csv.DictReader(io.StringIO(out))
    return {row["cell"]: row for row in rows if row["section"] == "toy-full" and row["metric"] == "ACC"}


def test_the_authors_log_stands_in_a_column_of_its_own(repository, call):
    old = 'where = {setting = "twenty tasks", metric = "ACC"}'
    both = [old.replace("{", f'{{table = "{table}", ') for table in ("Table 1", "log")]
    text = repository.experiments.read_text().replace(old, both[0])
    first, _, rest = text.partition(both[0])
    logged = f'\n[[cell.metric.logged]]\nfile = "tables.csv"\n{both[1]}'
    repository.experiments.write_text(first + both[0] + logged + rest)
    row = rows_of(call)["toy/contradicted"]
    assert row["published"] == "38.38 (Table 1)" and row["logged"] == "38.69 (log)"


def test_hardware_and_hours_are_shown(repository, call):
    repository.record("a", hardware={"device": "cuda", "name": "Card"}, wall_seconds=7200.0)
    repository.record("b", seed=1, hardware={"device": "cpu", "name": "Chip"}, wall_seconds=3600.0)
    assert rows_of(call)["toy/full"]["hours"] == "1.50, Card, Chip"


# --- planted errors ------------------------------------------------------------------------------------------------


@pytest.fixture
def written(repository, call):
    repository.write("README.md", "<!-- repro:table toy -->\n<!-- /repro:table -->\n")
    repository.record()
    assert call("readme")[0] == 0
    return repository


def test_planted_numbers_are_caught(written, call):
    code, out, _ = call("table", "--self-test")
    assert code == 0
    assert "NOT CAUGHT" not in out and len(out.splitlines()) == 10


def test_a_planted_speed_is_caught(written, call):
    written.write("work/README.md", "<!-- repro:speed toy -->\n<!-- /repro:speed -->\n")
    keep_speed(written.root / "results/benchmarks/toy.json", "toy", MEASURED)
    assert call("readme")[0] == 0
    code, out, _ = call("table", "--self-test")
    assert code == 0 and "\ncaught: a changed measurement of speed" in out


def test_stale_tables_are_said_first(written, call):
    written.record("b", seed=1)
    code, _, err = call("table", "--self-test")
    assert code == 2 and "repro readme" in err


@pytest.mark.parametrize(
    ("module", "name", "blind", "missed"),
    [
        (planted, "find_problem", lambda content: None, "a smoke run without its label"),
        (planted, "status_of", lambda values, published: "within", "far above"),
        (tables.Record, "is_full", property(lambda self: self.finished), "a shortened run among full ones"),
        (planted, "update_readmes", lambda root, check: ([], []), "a changed number in a generated table"),
    ],
)
def test_the_self_test_notices_a_blind_check(written, monkeypatch, module, name, blind, missed):
    monkeypatch.setattr(module, name, blind)
    found = planted.plant_everything(written.root)
    assert any(missed in one.what and not one.caught for one in found)


def test_the_real_tables_catch_planted_numbers():
    found = planted.plant_everything(REPOSITORY)
    kinds = ("accuracy matrix", "without its label", "among full ones", "generated table", "published value")
    kinds += ("changed everywhere", "taken away", "measurement of speed", "far above", "far below", "stay within")
    assert [kind for kind in kinds if not any(kind in one.what for one in found)] == []
    assert [one.what for one in found if not one.caught] == []


def test_rule_and_statuses_are_stated():
    assert "two-sided" in status.RULE and records.LABELS
