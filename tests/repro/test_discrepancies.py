"""The register of discrepancies: mistakes are named, and every switch, test and fixture of the real one exists."""

from __future__ import annotations

import json

import pytest

from common.training.errors import UserError
from repro.discrepancy import find_problems, program_helps, read_register, unknown_switches
from repro.registry import read_registry
from tests.helpers import REPOSITORY

pytestmark = pytest.mark.audit

REGISTER = """
paper = "toy"
programs = ["work/main.py"]

[[discrepancy]]
id = "D1"
says = "a sum"
released = "a mean | of *all*"
ours = "as released; `--reduce sum*`"
measured = "0.3 points"
switches = ["--reduce sum"]
tests = ["tests/test_toy.py::test_it"]
fixtures = ["toy.pro*"]
"""
PROGRAM = """
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--reduce", choices=["mean", "sum"])
parser.parse_args()
"""
REAL = [one for one in read_registry(REPOSITORY) if read_register(REPOSITORY, one.paper) is not None]


@pytest.fixture
def registered(repository, recorder):
    recorder.add()
    repository.write("repro/discrepancies/toy.toml", REGISTER)
    repository.write("work/main.py", PROGRAM)
    repository.write("tests/test_toy.py", "def test_it(): ...\n")
    return repository


def problems(repository) -> list[str]:
    register = read_register(repository.root, "toy")
    helps = program_helps(register, repository.root)
    (subproject,) = read_registry(repository.root)
    return find_problems(register, subproject, repository.root) + unknown_switches(register, helps)


def change(repository, old: str, new: str) -> None:
    path = repository.root / "repro/discrepancies/toy.toml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_a_sound_register_has_no_problem(registered):
    assert problems(registered) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('--reduce sum"', '--reduces"', "--reduces"),
        ('--reduce sum"', '--reduce max"', "--reduce max"),
        ("::test_it", "::test_that", "test_toy.py::test_that"),
        ("tests/test_toy.py::test_it", "tests/test_absent.py", "test_absent.py"),
        ("tests/test_toy.py::test_it", "work/main.py", "work/main.py"),
        ("toy.pro*", "toy.sum*", "toy.sum*"),
    ],
)
def test_what_does_not_exist_is_named(registered, old, new, expected):
    change(registered, old, new)
    (problem,) = problems(registered)
    assert expected in problem and "D1" in problem


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('paper = "toy"', 'paper = "other"', "other"),
        ('id = "D1"', 'id = "D1"\nid2 = "x"', "unknown key id2"),
        ('ours = "as released; `--reduce sum*`"\n', "", "ours is missing"),
        ('says = "a sum"\nreleased = "a mean | of *all*"\n', "", "give what the paper says"),
        ("[[discrepancy]]", '[[discrepancy]]\nid = "D1"\nsays = "x"\nours = "y"\n[[discrepancy]]', "occurs twice"),
        ("[[discrepancy]]", "[[discrepancy", "not valid TOML"),
    ],
)
def test_mistakes_in_the_file_are_one_line(registered, old, new, expected):
    change(registered, old, new)
    with pytest.raises(UserError, match=expected) as error:
        read_register(registered.root, "toy")
    assert "toy.toml" in str(error.value) and "\n" not in str(error.value).strip()


def test_readmes_hold_the_register_and_go_stale_with_it(registered, call):
    path = registered.write("work/README.md", "<!-- repro:deviations toy -->\n<!-- /repro:deviations -->\n")
    assert call("readme", "--check")[0] == 1
    assert call("readme")[0] == 0
    text = path.read_text()
    assert r"a mean \| of \*all\*" in text and "`--reduce sum*`" in text and "`test_toy.py::test_it`" in text
    assert call("readme", "--check")[0] == 0
    change(registered, "0.3 points", "0.4 points")
    assert call("readme", "--check")[0] == 1


def test_the_command_shows_and_checks(registered, call):
    code, out, _ = call("deviations", "toy", "--format", "json")
    (row,) = json.loads(out)[0]["rows"]
    assert code == 0 and row["measured"] == "0.3 points" and row["switches"] == ["--reduce sum"]
    assert call("deviations", "--check")[0] == 0
    assert call("check")[0] == 0
    change(registered, "::test_it", "::test_that")
    assert call("deviations", "--check")[0] == 1
    code, out, _ = call("check")
    assert code == 1 and "test_that" in out


def test_a_block_of_an_unknown_kind_or_paper_is_refused(registered, call):
    registered.write("README.md", "<!-- repro:nonsense toy -->\n<!-- /repro:nonsense -->\n")
    code, _, err = call("readme")
    assert code == 2 and "nonsense" in err and "deviations" in err
    registered.write("README.md", "<!-- repro:deviations absent -->\n<!-- /repro:deviations -->\n")
    assert call("readme")[0] == 2


@pytest.mark.parametrize("subproject", REAL, ids=lambda one: one.paper)
def test_every_switch_test_and_fixture_of_a_paper_exists(subproject):
    register = read_register(REPOSITORY, subproject.paper)
    assert register.entries
    assert find_problems(register, subproject, REPOSITORY) == []
    assert unknown_switches(register, program_helps(register, REPOSITORY)) == []


@pytest.mark.parametrize("subproject", REAL, ids=lambda one: one.paper)
def test_no_register_names_a_whole_file_of_tests(subproject):
    named = {test for entry in read_register(REPOSITORY, subproject.paper).entries for test in entry.tests}
    assert [test for test in named if "::" not in test and not test.startswith("benchmarks/")] == []


def test_every_built_paper_has_a_register():
    assert {one.paper for one in REAL} >= {"vdfd", "rfd", "cudfkd", "prompt_distill", "lra"}
