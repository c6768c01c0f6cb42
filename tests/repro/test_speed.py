"""Speeds come from kept measurements only: read, checked, shown in generated blocks, never typed."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest

from common.training.errors import UserError
from repro.readme import find_readmes
from repro.registry import read_registry
from repro.speed import FOLDER, keep_speed, ratio, read_speed, seconds
from tests.helpers import REPOSITORY
from tests.repro.speeds import MEASURED

NAME = FOLDER / "toy.json"


@pytest.fixture
def shown(repository, call):
    """What `repro readme` writes between the markers, after a check that it was out of date."""
    path = repository.write("work/README.md", "<!-- repro:speed toy -->\n<!-- /repro:speed -->\n")

    def read() -> str:
        assert call("readme", "--check")[0] == 1
        assert call("readme")[0] == 0 and call("readme", "--check")[0] == 0
        return path.read_text()

    return read


@pytest.mark.unit
def test_a_block_follows_the_kept_measurements(repository, shown):
    assert "Not measured: there is no `results/benchmarks/toy.json`." in shown()
    keep_speed(repository.root / NAME, "toy", MEASURED)
    text = shown()
    assert "**`python -m benchmarks.toy`: toy network**" in text
    assert "| step | 0.0123 | 0.300 | 24.3 |" in text and "| all steps | 1,234 | 2,469 | 2.00 |" in text
    assert "| kept, MB | 12.3 |" in text
    assert (
        "Median wall seconds of 3 rounds, in turns. processor, 1 of 2 threads, load 0.2 before; torch 2.0; 2026-01-02; "
        "commit 01234567.\n" in text
    )
    changed = (repository.root / NAME).read_text().replace("24.31", "26.31")
    (repository.root / NAME).write_text(changed)
    assert "| 26.3 |" in shown()


@pytest.mark.unit
def test_a_measurement_of_the_same_setting_is_replaced_and_others_stay(repository):
    path = repository.root / NAME
    again = dataclasses.replace(MEASURED, options={"rounds": 9, "batch": 4}, command=f"{MEASURED.command} --rounds 9")
    wider = dataclasses.replace(MEASURED, options={"rounds": 3, "batch": 8}, command=f"{MEASURED.command} --batch 8")
    elsewhere = dataclasses.replace(MEASURED, hardware={"device": "cuda", "name": "another"}, dirty=True)
    for one in (MEASURED, wider, again, elsewhere):
        keep_speed(path, "toy", one)
    assert read_speed(path, NAME) == [elsewhere, wider, again]


@pytest.mark.unit
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda content: content.update(schema=9), "schema 9, expected 1"),
        (lambda content: content.pop("measurements"), "'measurements'"),
        (lambda content: content["measurements"][0].pop("hardware"), "expected the keys"),
        (lambda content: content["measurements"][0].update(load="low"), "load is 'low'"),
        (lambda content: content["measurements"][0]["versions"].clear(), "versions lack torch"),
        (lambda content: content["measurements"][0]["rows"][0].update(ratio=-1), "step: expected three positive"),
        (lambda content: content["measurements"][0]["rows"][0].pop("ours"), "ours"),
        (lambda content: content["measurements"][0]["figures"][0].update(value=None), "kept, MB: expected a number"),
    ],
)
def test_a_file_of_another_form_is_one_line(repository, shown, call, change, expected):
    shown()
    keep_speed(repository.root / NAME, "toy", MEASURED)
    content = json.loads((repository.root / NAME).read_text())
    change(content)
    repository.write(str(NAME), json.dumps(content))
    with pytest.raises(UserError, match="measure again with --save") as caught:
        read_speed(repository.root / NAME, NAME)
    assert expected in str(caught.value)
    code, _, err = call("readme")
    assert code == 2 and "work/README.md, block repro:speed" in err and len(err.strip().splitlines()) == 1


@pytest.mark.unit
def test_digits_that_count():
    assert [seconds(value) for value in (4.5e-5, 0.0989, 1.0, 13.44, 99.9, 17564.2)] == [
        "0.0000450", "0.0989", "1.00", "13.4", "99.9", "17,564",
    ]  # fmt: skip
    assert [ratio(value) for value in (0.954, 9.994, 24.31, 379.2)] == ["0.95", "9.99", "24.3", "379"]


# --- the real repository ---------------------------------------------------------------------------------------------

BLOCK = re.compile(r"<!-- repro:(\w+)[^>]*-->\n.*?<!-- /repro:\1 -->", re.S)
MEASURED_VALUE = re.compile(r"\d+\.\d+|\d+(?:\.\d+)? (?:s|ms|MB|GB|GiB|times)\b")
COUNTED = re.compile(r"\d+ (?:recorded )?fixtures|\d+ of \d+ (?:fixtures|recorded)")


@pytest.mark.audit
@pytest.mark.parametrize("subproject", read_registry(REPOSITORY), ids=lambda one: one.paper)
def test_the_section_on_speed_is_generated(subproject):
    text = (REPOSITORY / subproject.folder / "README.md").read_text(encoding="utf-8")
    (section,) = re.findall(r"^## Speed.*?(?=^## |\Z)", text, re.M | re.S)
    assert f"<!-- repro:speed {subproject.paper} -->" in section
    assert MEASURED_VALUE.findall(BLOCK.sub("", section)) == []


@pytest.mark.audit
@pytest.mark.parametrize("path", find_readmes(REPOSITORY), ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_no_count_of_fixtures_is_typed(path):
    assert COUNTED.findall(BLOCK.sub("", path.read_text(encoding="utf-8"))) == []


@pytest.mark.unit
def test_typed_numbers_are_found():
    assert MEASURED_VALUE.findall("1.57 times as fast, 638 MB, 3 s; batch 32, ResNet-18") == ["1.57", "638 MB", "3 s"]
    assert COUNTED.findall("all 77 recorded fixtures, every fixture") == ["77 recorded fixtures"]
