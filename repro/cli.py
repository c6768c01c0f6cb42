"""The command line of the audit desk; each command is a few lines around the module that does the work.

Exit codes: 0 fine, 1 a check or a run failed, 2 bad input, 75 a run stopped at a checkpoint (the same command goes on).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from common.training.errors import UserError, command_line
from repro.commands import app, auditing, data, running, showing

__all__ = ["app", "app_main", "auditing", "data", "main", "running", "showing"]


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command.

    Args:
        argv: arguments without the program's name; None takes those of the process. What follows "--" is handed to the
            scripts of `repro run`.

    Raises:
        SystemExit: with the exit code, also 0.
        UserError: for bad input.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    extra: list[str] = []
    if "--" in words:
        words, extra = words[: words.index("--")], words[words.index("--") + 1 :]
        if words[:1] != ["run"]:
            raise UserError("flags after -- go to the scripts of `repro run`; no other command takes them")
    typer.main.get_command(app).main(args=words, prog_name="repro", obj={"extra": tuple(extra)})


app_main = command_line(main)
"""The console script `repro`."""
