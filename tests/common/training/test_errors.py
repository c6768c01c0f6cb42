"""Errors of a program: exit codes, and one line on standard error."""

from __future__ import annotations

import subprocess
import sys

import pytest

from common.training.errors import NonFiniteLoss, RunStopped, UserError, command_line
from tests.helpers import REPOSITORY

pytestmark = pytest.mark.unit

PROGRAM = """
from common.training.errors import NonFiniteLoss, RunStopped, UserError, command_line

def main(argv=None):
    {body}

command_line(main)()
"""


def run_program(body: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body=body)], cwd=REPOSITORY, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize(
    ("body", "code", "stderr"),
    [
        ('raise UserError("--lr: expected a number")', 2, "error: --lr: expected a number\n"),
        ('raise NonFiniteLoss("ce is nan")', 2, "error: ce is nan\n"),
        ('raise RunStopped("time is up")', 75, "stopped: time is up\n"),
        ("open('/dev/null/x')", 2, "error: /dev/null/x: Not a directory; give another path, or free this one\n"),
        ("return 7", 0, ""),
    ],
)
def test_a_program_ends_with_a_code_and_one_line(body: str, code: int, stderr: str) -> None:
    result = run_program(body)
    assert (result.returncode, result.stderr, result.stdout) == (code, stderr, "")


def test_a_mistake_in_the_code_keeps_its_traceback() -> None:
    result = run_program("raise KeyError('x')")
    assert result.returncode == 1
    assert "Traceback" in result.stderr


def test_main_itself_still_raises_and_returns() -> None:
    def main(argv: list[str] | None = None) -> int:
        if argv:
            raise UserError(argv[0])
        return 3

    program = command_line(main)
    assert main() == 3
    with pytest.raises(UserError, match="bad"):
        main(["bad"])
    with pytest.raises(SystemExit) as exit_:
        program(["bad"])
    assert exit_.value.code == 2
    assert program.__name__ == "main"


def test_kinds_of_errors() -> None:
    assert issubclass(NonFiniteLoss, UserError)
    assert not issubclass(RunStopped, UserError)  # a stopped run is no failure
