"""Reproduction statements: every built paper has one, in the usual form, with numbers in generated blocks only."""

from __future__ import annotations

import re

import pytest

from repro.discrepancy import read_register
from repro.registry import read_registry
from tests.helpers import REPOSITORY

pytestmark = pytest.mark.audit

BUILT = [one for one in read_registry(REPOSITORY) if read_register(REPOSITORY, one.paper) is not None]
SECTIONS = [
    "Scope of reproducibility",
    "Methodology",
    "Results",
    "What was easy",
    "What was difficult",
    "What could not be verified, and why",
    "Cost",
    "Shipped artefacts",
    "Communication with the original authors",
]
BLOCKS = ("scope", "claims", "cost", "artefacts")
BLOCK = re.compile(r"<!-- repro:(\w+) (\w+) -->\n.*?<!-- /repro:\1 -->", re.S)
NUMBER = re.compile(r"(?<![\w.-])\d+(?:[.,]\d+)*(?![\w-])")


def hand_written(text: str) -> str:
    """The text outside generated blocks and code."""
    return re.sub(r"`[^`]*`", "", BLOCK.sub("", text))


@pytest.mark.parametrize("subproject", BUILT, ids=lambda one: one.paper)
def test_a_statement_has_every_section_and_block_and_no_typed_number(subproject):
    text = (REPOSITORY / subproject.folder / "REPRODUCTION.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)$", text, re.M) == SECTIONS
    assert set(BLOCK.findall(text)) == {(kind, subproject.paper) for kind in BLOCKS}
    assert NUMBER.findall(hand_written(text)) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [("it took 3 hours", ["3"]), ("59.3 %", ["59.3"]), ("CIFAR-100 and ResNet-18", []), ("`--seed 1` of D1", [])],
)
def test_typed_numbers_are_found(text, found):
    assert NUMBER.findall(hand_written(text)) == found


def test_blocks_of_scope_cost_and_papers_follow_the_records(repository, call):
    kinds = ("scope toy", "cost toy", "papers")
    blocks = "\n".join(f"<!-- repro:{kind} -->\n<!-- /repro:{kind.split()[0]} -->\n" for kind in kinds)
    path = repository.write("work/REPRODUCTION.md", blocks)
    assert call("readme")[0] == 0
    text = path.read_text()
    assert "| of these within / outside / too few runs / not run | 0 / 0 / 0 / 2 |" in text
    assert "| estimate: every published cell once | one GPU | 1 | 2.5 |" in text
    assert "| measured: kept runs |  | 0 |  |" in text and "Toy paper" in text
    for seed in range(3):
        repository.record(f"toy-s{seed}", seed=seed, metrics=repository.result(80.5 + 0.1 * seed))
    repository.record("short", labels=["shortened"])
    assert call("readme", "--check")[0] == 1
    assert call("readme")[0] == 0
    text = path.read_text()
    assert "| 1 / 0 / 0 / 1 |" in text and "| measured: kept runs | cpu | 4 | 4.0 |" in text
    assert "| 3 / 1 |" in text
