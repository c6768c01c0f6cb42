"""The command line as a whole: help with examples, data sets, one entry point."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

COMMANDS = ["list", "run", "table", "logs", "claims", "deviations", "report", "parity", "check", "manifest", "readme"]
COMMANDS += ["keep", "compare", "data list", "data prepare"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_examples(repository, call, command):
    code, out, _ = call(*command.split(), "--help")
    assert code == 0
    assert "Examples:" in out and f"repro {command}" in out.split("Examples:")[1]


def test_unknown_commands_and_options_are_bad_input(repository, call):
    assert call("frobnicate")[0] == 2
    assert call("list", "--frobnicate")[0] == 2


def test_runs_as_a_module_from_any_folder(repository):
    environment = {"PYTHONPATH": str(Path(__file__).resolve().parents[2]), "REPRO_ROOT": str(repository.root)}
    command = [sys.executable, "-m", "repro", "list", "toy", "--format", "csv"]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=repository.root / "work")
    assert process.returncode == 0, process.stderr
    assert "toy/demo" in process.stdout


def test_reading_the_tables_does_not_load_torch(repository):
    environment = {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    code = "import sys, repro.cli; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


def test_data_sets_are_listed_and_unknown_ones_refused(repository, call):
    code, out, _ = call("data", "list", "--root", "data")
    assert code == 0
    (line,) = [line for line in out.splitlines() if " CIFAR100 " in line]
    assert " no " in line
    code, _, err = call("data", "prepare", "NoSuchData", "--root", "data")
    assert code == 2 and err.startswith("error: ") and len(err.strip().splitlines()) == 1
