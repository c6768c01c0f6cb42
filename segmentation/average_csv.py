"""Summary of a results file: python average_csv.py FILE (the original's program of this name)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from common.training.errors import UserError, command_line
from segmentation.metrics import average_rows, read_rows, summary_text


def main(argv: Sequence[str] | None = None) -> str:
    """Print the summary of a results file; returns it."""
    words = sys.argv[1:] if argv is None else list(argv)
    if len(words) != 1:
        raise UserError("average_csv.py expects one results file")
    text = summary_text(average_rows(read_rows(Path(words[0]))))
    print(text)
    return text


if __name__ == "__main__":
    command_line(main)()
