"""Logs of a form of their own: the subproject's function is found through the registry, never by reaching inside."""

from __future__ import annotations

import json

import pytest

from tests.helpers import REPOSITORY

pytestmark = pytest.mark.unit

VIEW = """
def rows(folders):
    return [
        {"log": "a", "setting": "ten tasks", "cell": "toy/full", "who": "student", "quantity": "A",
         "authors": 80.0, "ours": 81.5 if folders else None},
        {"log": "a", "setting": "ten tasks", "cell": "toy/full", "who": "student", "quantity": "F",
         "authors": 3.0, "ours": None, "digits": 3, "missing": "needs patience"},
    ]

def broken(folders):
    return [{"log": "a"}]
"""


@pytest.fixture
def viewed(repository, monkeypatch, request):
    name = f"toy_view_{request.node.name.split('[')[0]}"
    repository.write(f"{name}.py", VIEW)
    monkeypatch.syspath_prepend(str(repository.root))

    def declare(view: str) -> None:
        text = repository.experiments.read_text()
        head = f'aliases = ["tiny"]\nlogs = "{view.replace("VIEW", name)}"\n'
        repository.experiments.write_text(text.replace('title = "Toy paper"', 'title = "Toy paper"\n' + head))

    return declare


def test_the_declared_function_is_shown_in_every_format(repository, viewed, call):
    viewed("VIEW:rows")
    repository.record()
    code, out, _ = call("logs", "tiny", "--format", "json")
    assert code == 0
    (section,) = json.loads(out)
    assert [row["difference"] for row in section["rows"]] == [1.5, None]
    for format in ("text", "md", "csv", "html"):
        code, out, _ = call("logs", "toy", "--format", format)
        assert code == 0 and "81.50" in out and "+1.50" in out and "needs patience" in out and "3.000" in out


@pytest.mark.parametrize(("view", "expected"), [("absent:rows", "absent"), ("VIEW:x", "x"), ("VIEW:broken", "setting")])
def test_a_wrong_declaration_is_one_line(repository, viewed, call, view, expected):
    viewed(view)
    code, _, err = call("logs", "toy")
    assert code == 2 and expected in err and len(err.strip().splitlines()) == 1


def test_options_that_do_not_apply_are_refused(repository, viewed, call):
    viewed("VIEW:rows")
    code, _, err = call("logs", "toy", "--any")
    assert code == 2 and "--any" in err


def test_the_real_logs_of_prompt_distillation_are_shown(call, monkeypatch):
    monkeypatch.setenv("REPRO_ROOT", str(REPOSITORY))
    code, out, _ = call("logs", "cdl", "--format", "json")
    assert code == 0
    sections = json.loads(out)
    values = {(row["log"], row["who"], row["quantity"]): row["authors"] for s in sections for row in s["rows"]}
    assert values["log_base_small_c100", "student", "A"] == 83.58
    assert values["log_large_base_c100", "student", "A after task 1"] == 99.5
