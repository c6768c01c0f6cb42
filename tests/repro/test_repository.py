"""The real repository: cells, published values, fixtures and README tables are in order."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from repro.cli import app
from repro.parity import NEXT_ISSUE
from repro.registry import read_registry
from tests.helpers import REPOSITORY

pytestmark = pytest.mark.audit


def run(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


def test_every_cell_is_well_described():
    assert run("check").exit_code == 0


def test_readme_tables_are_up_to_date():
    result = run("readme", "--check")
    assert result.exit_code == 0, result.output


def test_published_headline_values_are_found():
    (section,) = json.loads(run("list", "vdfd", "--format", "json").output)
    cells = {row["cell"]: row for row in section["rows"]}
    text = json.dumps(cells["vdfd/ti-cifar100-10"])
    assert "79.23" in text and "-2.93" in text
    assert "80.97" in json.dumps(cells["vdfd/ti-cifar100-20"])
    assert "60.58" in json.dumps(cells["vdfd/ti-tinyimagenet-25"])


def test_every_script_and_row_of_a_cell_exists():
    for subproject in read_registry(REPOSITORY):
        for cell in subproject.cells:
            script = REPOSITORY / cell.directory / cell.script
            assert script.is_file(), cell.id
            assert f"wanted {cell.row}" in script.read_text(encoding="utf-8"), cell.id


def test_nothing_but_the_next_issue_lacks_a_counterpart():
    assert all(pattern.startswith("vdfd.") for pattern in NEXT_ISSUE)
