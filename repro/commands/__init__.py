"""The commands of `repro`, one module per group; here is what they share."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from common.training.errors import UserError
from repro import records, tables

app = typer.Typer(
    name="repro",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Audit desk: what the papers published, what we ran, and whether our code computes what theirs computes.",
)

Paper = Annotated[str | None, typer.Argument(help="One paper, e.g. vdfd; all if left out.", show_default=False)]
Format = Annotated[str, typer.Option("--format", help="text, md, csv, html or json")]
Records = Annotated[list[Path] | None, typer.Option("--records", help="One more folder with run records; repeatable.")]


def examples(*lines: str) -> str:
    """Examples below a command's help, one per line."""
    return "Examples:\n\n" + "\n\n".join(f"  {line}" for line in lines)


def existing_folders(folders: Sequence[Path] | None) -> list[Path]:
    """The folders given by --records, or a UserError for one that is not there."""
    for folder in folders or ():
        if not folder.is_dir():
            raise UserError(f"--records {folder}: no such folder")
    return list(folders or ())


def parse_seeds(text: str) -> list[int]:
    """Seeds such as "0,1,2" as numbers, each once."""
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"--seeds {text!r}: expected whole numbers separated by commas, e.g. 0,1,2") from None
    return list(dict.fromkeys(seeds))


def warn(runs: Sequence[tables.PaperRuns]) -> None:
    """Every warning about records once, on standard error."""
    records.print_warnings(dict.fromkeys(warning for one in runs for warning in one.warnings))


def write(text: str) -> None:
    """Text to standard output as it is."""
    sys.stdout.write(text)
