"""VDFD with Swin-T, task-incremental: the original's second entry point (main_swin.py).

Not there yet: it says so and stops.
"""

from __future__ import annotations

from collections.abc import Sequence

from common.training.errors import UserError, command_line


def main(argv: Sequence[str] | None = None) -> None:
    """Refuse.

    Raises:
        UserError: always.
    """
    raise UserError("the Swin variant of VDFD is not part of this repository yet; the other rows of scripts/vdfd.sh are")


if __name__ == "__main__":
    command_line(main)()
