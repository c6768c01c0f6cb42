"""The real repository: cells, published values, fixtures and README tables are in order."""

from __future__ import annotations

import json
import os
import subprocess

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


def shown_command(directory: str, script: str, row: str) -> subprocess.CompletedProcess:
    """What a launch script would run, shown by `echo` in place of Python."""
    environment = {"PATH": os.environ["PATH"], "PYTHON": "echo"}
    command = ["sh", script, row, "--seed", "7", "--output_dir", "elsewhere"]
    return subprocess.run(command, cwd=REPOSITORY / directory, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("subproject", read_registry(REPOSITORY), ids=lambda one: one.paper)
def test_every_cell_has_a_command_that_names_it_and_takes_flags(subproject):
    for cell in subproject.cells:
        shown = shown_command(cell.directory, cell.script, cell.row)
        assert shown.returncode == 0, (cell.id, shown.stderr)
        assert f"--cell {cell.id} " in shown.stdout, cell.id
        assert "--seed 7" in shown.stdout and "elsewhere" in shown.stdout, cell.id


@pytest.mark.parametrize("subproject", read_registry(REPOSITORY), ids=lambda one: one.paper)
def test_every_script_refuses_a_row_that_it_does_not_have(subproject):
    for directory, script in {(cell.directory, cell.script) for cell in subproject.cells}:
        assert shown_command(directory, script, "no-such-row").returncode != 0, script


def test_nothing_but_the_next_issue_lacks_a_counterpart():
    assert all(pattern.startswith("vdfd.") for pattern in NEXT_ISSUE)
