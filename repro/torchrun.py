"""Stands in for "python" in a launch script: `python -u main.py ...` becomes a torchrun of several processes.

Scripts call "$PYTHON"; `repro run --launcher torchrun` lets it name a small executable that calls this module. A worker
that stopped at a checkpoint ends with exit code 75, which torchrun itself would turn into 1.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from common.training.errors import UNFINISHED_EXIT_CODE

PROCESSES = "REPRO_PROCESSES"
"""Environment variable with the number of processes."""


def write_interpreter(folder: Path) -> Path:
    """Write the executable that scripts call instead of Python; returns its path."""
    path = folder / "python-torchrun"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m repro.torchrun "$@"\n', encoding="utf-8")
    path.chmod(0o755)
    return path


def main(argv: Sequence[str] | None = None) -> None:
    """Run a program in as many processes as REPRO_PROCESSES says; anything but a program goes to Python as it is.

    Raises:
        SystemExit: with the workers' exit code.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    program = words[1:] if words[:1] == ["-u"] else words
    if not program or not program[0].endswith(".py"):
        os.execv(sys.executable, [sys.executable, *words])
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    flags = ["--standalone", "--nproc_per_node", os.environ.get(PROCESSES, "1")]
    try:
        run(parse_args([*flags, *program]))
    except ChildFailedError as error:
        codes = [failure.exitcode for failure in error.failures.values()]
        print(f"workers ended with {', '.join(map(str, codes))}", file=sys.stderr)
        # why: where one worker fails, torchrun ends the others by signals, which count as negative codes
        own = [code for code in codes if code > 0]
        sys.exit(UNFINISHED_EXIT_CODE if UNFINISHED_EXIT_CODE in own else own[0] if own else 1)


if __name__ == "__main__":
    main()
