"""Verdicts on claims: worked out by hand, from admitted runs of equal seed only."""

from __future__ import annotations

import json

import pytest

from common.training.errors import UserError
from repro.claim import FOLDER, NOT_RUN, NOT_SUPPORTED, SUPPORTED, UNDECIDED, interval, judge_paper, read_claims
from repro.discrepancy import names_a_test
from repro.registry import read_registry
from tests.helpers import REPOSITORY

pytestmark = pytest.mark.unit

CLAIMS = """
paper = "toy"

[[claim]]
id = "better"
statement = "full is better than contradicted"
source = "Table 1"
metric = "acc"
pairs = [["toy/full", "toy/contradicted"]]
"""
CODE = """
paper = "toy"

[[claim]]
id = "code"
statement = "two is two"
source = "arithmetic"
tests = ["tests/test_toy.py::test_two"]
"""


@pytest.fixture
def claimed(repository):
    repository.write("repro/claims/toy.toml", CLAIMS)
    return repository


def add(repository, cell: str, seed: int, acc: float, run_id: str = "", **fields) -> None:
    name = run_id or f"{cell.rpartition('/')[2]}-s{seed}"
    repository.record(name, cell=cell, seed=seed, metrics=repository.result(acc), **fields)


def add_pairs(repository, differences) -> None:
    for seed, difference in enumerate(differences):
        add(repository, "toy/full", seed, 50.0 + seed + difference)
        add(repository, "toy/contradicted", seed, 50.0 + seed)


def judge(repository):
    (subproject,) = read_registry(repository.root)
    ((verdict,), warnings) = judge_paper(subproject, repository.root)
    return verdict, warnings


def test_interval_by_hand():
    mean, low, high = interval([1.0, 2.0, 3.0])  # t(0.975, 2) = 4.3027, standard error 1 / sqrt(3)
    assert (mean, low, high) == pytest.approx((2.0, 2 - 2.48414, 2 + 2.48414), abs=1e-4)
    assert interval([1.0]) == (1.0, None, None)


@pytest.mark.parametrize(
    ("differences", "direction", "status"),
    [
        ([3.0, 3.5, 4.0], "higher", SUPPORTED),
        ([3.0, 3.5, 4.0], "lower", NOT_SUPPORTED),
        ([-3.0, -3.5, -4.0], "higher", NOT_SUPPORTED),
        ([-3.0, -3.5, -4.0], "lower", SUPPORTED),
        ([1.0, 2.0, 3.0], "higher", UNDECIDED),
        ([5.0], "higher", UNDECIDED),
        ([], "higher", NOT_RUN),
    ],
)
def test_the_verdict_follows_the_interval(claimed, differences, direction, status):
    path = claimed.root / FOLDER / "toy.toml"
    path.write_text(path.read_text() + f'direction = "{direction}"\n')
    add_pairs(claimed, differences)
    verdict, warnings = judge(claimed)
    assert verdict.status == status and len(verdict.differences) == len(differences) and not warnings


def test_only_equal_seeds_are_paired(claimed):
    add(claimed, "toy/full", 0, 90.0)
    add(claimed, "toy/full", 1, 60.0)
    add(claimed, "toy/contradicted", 1, 50.0)
    verdict, _ = judge(claimed)
    assert [(one.seed, one.value) for one in verdict.differences] == [(1, 10.0)]


def test_records_of_other_folders_are_judged_on_request(claimed, call):
    for seed in range(2):
        add(claimed, "toy/full", seed, 60.0 + seed)
        add(claimed, "toy/contradicted", seed, 50.0)
    (claimed.root / "results" / "toy").rename(claimed.root / "elsewhere")
    kept, both = (
        call("claims", "toy", "--format", "csv", *more)[1] for more in ([], ["--records", claimed.root / "elsewhere"])
    )
    assert "not run" in kept and "not run" not in both and "+10.50" in both
    assert call("claims", "--records", claimed.root / "absent")[0] == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"labels": ["shortened"]},
        {"labels": ["smoke"], "config": {"smoke": True}},
        {"labels": ["fast"], "numerics": {"fast": True}},
        {"changed": {"epochs": [80, 3]}},
        {"status": "stopped"},
    ],
)
def test_short_and_changed_runs_are_no_evidence(claimed, fields):
    add(claimed, "toy/full", 0, 90.0, **fields)
    add(claimed, "toy/contradicted", 0, 50.0)
    assert judge(claimed)[0].status == NOT_RUN


def test_a_desk_row_is_shortened_by_design(claimed):
    for cell, acc in (("toy/full", 60.0), ("toy/contradicted", 50.0)):
        add(claimed, cell, 0, acc, labels=["desk-scale", "shortened"])
    assert judge(claimed)[0].mean == 10.0


def test_pairs_that_share_a_cell_are_averaged_within_a_seed(claimed):
    path = claimed.root / FOLDER / "toy.toml"
    text = path.read_text().replace(
        '[["toy/full", "toy/contradicted"]]', '[["toy/full", "toy/contradicted"], ["toy/demo", "toy/contradicted"]]'
    )
    path.write_text(text)
    for seed, (full, desk) in enumerate([(51.0, 53.0), (53.0, 55.0), (60.0, None)]):
        add(claimed, "toy/contradicted", seed, 50.0)
        add(claimed, "toy/full", seed, full)
        if desk is not None:
            add(claimed, "toy/demo", seed, desk)
    verdict, _ = judge(claimed)
    # seeds 0 and 1 have both pairs: means 2 and 4; t(0.975, 1) = 12.706, standard error 1
    assert (verdict.mean, verdict.high) == pytest.approx((3.0, 3 + 12.706), abs=1e-3)
    assert verdict.status == UNDECIDED and len(verdict.differences) == 5


def test_the_newest_run_of_a_seed_counts_and_is_named(claimed):
    add(claimed, "toy/full", 0, 60.0, run_id="a", started="2026-01-02T00:00:00+00:00")
    add(claimed, "toy/full", 0, 70.0, run_id="b", started="2026-01-01T00:00:00+00:00")
    add(claimed, "toy/contradicted", 0, 50.0)
    verdict, warnings = judge(claimed)
    assert verdict.mean == 10.0 and len(warnings) == 1 and "a is newer than b" in warnings[0]


def test_runs_on_different_data_are_not_compared(claimed):
    add(claimed, "toy/full", 0, 60.0, data={"sha256": "1", "copy": "original"})
    add(claimed, "toy/contradicted", 0, 50.0, data={"sha256": "2", "copy": "original"})
    verdict, warnings = judge(claimed)
    assert verdict.status == NOT_RUN and "different data" in warnings[0]


def test_what_must_agree_of_the_data_can_be_named(claimed):
    path = claimed.root / "repro" / "claims" / "toy.toml"
    path.write_text(path.read_text() + 'same_data = ["name", "test_images"]\n')
    data = {"name": "Toy", "copy": "original", "test_images": 10}
    add(claimed, "toy/full", 0, 60.0, data={**data, "sha256": "1"})
    add(claimed, "toy/contradicted", 0, 50.0, data={**data, "sha256": "2"})
    add(claimed, "toy/full", 1, 60.0, data={**data, "sha256": "1"})
    add(claimed, "toy/contradicted", 1, 50.0, data={**data, "test_images": 9, "sha256": "2"})
    verdict, warnings = judge(claimed)
    assert verdict.mean == 10.0 and len(verdict.differences) == 1 and "seed 1" in warnings[0]
    path.write_text(path.read_text().replace('["name", "test_images"]', "[]"))
    with pytest.raises(UserError, match="names no key"):
        judge(claimed)


def test_records_outside_results_do_not_count(claimed):
    claimed.record("x", folder="outputs/x", cell="toy/full")
    claimed.record("y", cell="toy/contradicted")
    assert judge(claimed)[0].status == NOT_RUN


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("toy/contradicted", "toy/absent", "no cell 'toy/absent'"),
        ('metric = "acc"', 'metric = "f1"', "no metric 'f1'"),
        ('metric = "acc"', 'metric = "acc"\ndirection = "up"', "expected higher or lower"),
        ('metric = "acc"', 'metric = "acc"\ntests = ["tests/x.py"]', "either pairs of cells, or tests"),
        ('[["toy/full", "toy/contradicted"]]', '["toy/full"]', "no pair of cells"),
        ('source = "Table 1"\n', "", "source is missing"),
        ('paper = "toy"', 'paper = "other"', "other"),
    ],
)
def test_mistakes_are_one_line(claimed, call, old, new, expected):
    path = claimed.root / FOLDER / "toy.toml"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UserError, match=expected.replace("[", r"\[")):
        read_claims(claimed.root, read_registry(claimed.root)[0])
    code, _, err = call("claims")
    assert code == 2 and len(err.strip().splitlines()) == 1


def test_every_format_shows_verdict_and_interval(claimed, call):
    add_pairs(claimed, [3.0, 3.5, 4.0])
    for format in ("text", "md", "csv", "html"):
        code, out, _ = call("claims", "toy", "--format", format)
        assert code == 0 and "supported" in out and "+3.50" in out
    (row,) = json.loads(call("claims", "--format", "json")[1])[0]["rows"]
    assert row["verdict"] == SUPPORTED and row["mean"] == 3.5 and row["low"] < row["high"]
    assert row["differences"][0]["records"] == ["results/toy/full-s0.json", "results/toy/contradicted-s0.json"]


def test_a_block_of_claims_goes_stale_with_a_record(claimed, call):
    path = claimed.write("README.md", "<!-- repro:claims toy -->\n<!-- /repro:claims -->\n")
    assert call("readme")[0] == 0 and "not run" in path.read_text()
    add_pairs(claimed, [3.0, 3.5, 4.0])
    assert call("readme", "--check")[0] == 1


# --- claims about code -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("assert 1 + 1 == 2", SUPPORTED),
        ("assert 1 + 1 == 3", NOT_SUPPORTED),
        ("import pytest; pytest.skip('absent')", NOT_SUPPORTED),
        ("import pytest; pytest.xfail('known')", NOT_SUPPORTED),
    ],
)
def test_a_code_claim_is_decided_by_its_tests_on_demand_only(repository, call, body, status):
    repository.write("repro/claims/toy.toml", CODE)
    repository.write("tests/test_toy.py", f"def test_two():\n    {body}\n")
    (row,) = json.loads(call("claims", "--format", "json")[1])[0]["rows"]
    assert row["verdict"] == NOT_RUN
    (row,) = json.loads(call("claims", "--verify", "--format", "json")[1])[0]["rows"]
    assert row["verdict"] == status


def test_a_code_claim_is_decided_by_its_fixtures_too(toy_repository, recorder, toy_parity, call):
    recorder.add()
    toy_repository.write("repro/claims/toy.toml", CODE.replace("tests = [", 'fixtures = ["toy.*"]\n#'))
    (row,) = json.loads(call("claims", "--verify", "--format", "json")[1])[0]["rows"]
    assert row["verdict"] == SUPPORTED and "1 recorded fixtures" in row["reason"]
    recorder.add(id="toy.unanswered")
    (row,) = json.loads(call("claims", "--verify", "--format", "json")[1])[0]["rows"]
    assert row["verdict"] == NOT_SUPPORTED and "toy.unanswered" in row["reason"]


def test_a_fixture_pattern_that_names_nothing_is_no_evidence(toy_repository, recorder, toy_parity, call):
    recorder.add()
    claim = CODE.replace("tests = [", 'fixtures = ["toy.*", "toy.absent.*"]\n#')
    toy_repository.write("repro/claims/toy.toml", claim)
    (row,) = json.loads(call("claims", "--verify", "--format", "json")[1])[0]["rows"]
    assert row["verdict"] == NOT_SUPPORTED and "toy.absent.*" in row["reason"]
    code, out, _ = call("check")
    assert code == 1 and "no recorded fixture matches toy.absent.*" in out


def test_the_real_claims_are_sound_and_name_tests_that_exist():
    claims = [claim for one in read_registry(REPOSITORY) for claim in read_claims(REPOSITORY, one)]
    assert {"released-meta-gradient-inert", "class-incremental-last-task-only"} <= {claim.id for claim in claims}
    for claim in claims:
        assert all(names_a_test(REPOSITORY, name) for name in claim.tests), claim.id
