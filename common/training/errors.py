"""Errors that a user can act on: one clear line on standard error, exit code 2, nothing half-written."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

BAD_INPUT_EXIT_CODE = 2
"""Exit code for bad input (the convention of argparse)."""

UNFINISHED_EXIT_CODE = 75
"""Exit code of a run that stopped cleanly at a checkpoint and can go on (EX_TEMPFAIL of sysexits.h)."""


class UserError(Exception):
    """Something the user can mend. The message says what was expected, what was found, and what to do."""


class NonFiniteLoss(UserError):
    """A loss term became infinite or not a number; the message names the step and the term."""


class RunStopped(Exception):
    """The run stopped cleanly at a checkpoint (time budget or a termination signal); the same command goes on."""


def command_line(main: Callable[..., Any]) -> Callable[..., Any]:
    """Turn the errors of a `main(argv=None)` into exit codes when it is run as a program.

    `main` itself stays callable from tests and raises ordinary exceptions; the wrapped function is for
    `if __name__ == "__main__"` and for console scripts.
    """

    @functools.wraps(main)
    def program(*args: Any, **kwargs: Any) -> None:
        try:
            main(*args, **kwargs)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(BAD_INPUT_EXIT_CODE)
        except OSError as error:
            if error.filename is None:
                raise
            print(f"error: {error.filename}: {error.strerror}; give another path, or free this one", file=sys.stderr)
            sys.exit(BAD_INPUT_EXIT_CODE)
        except RunStopped as stopped:
            print(f"stopped: {stopped}", file=sys.stderr)
            sys.exit(UNFINISHED_EXIT_CODE)

    return program
