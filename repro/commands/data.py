"""Data sets: what is there, and how to get the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from repro import formats
from repro.commands import app, examples
from repro.registry import repository_root

data_app = typer.Typer(no_args_is_help=True, help="Data sets: what is there, and how to get the rest.")
app.add_typer(data_app, name="data")


@data_app.command("list", epilog=examples("repro data list", "repro data list --root /scratch/data"))
def data_list(
    root: Annotated[Path | None, typer.Option(help="Folder of the data sets.", show_default="data")] = None,
) -> None:
    """Which data sets are there, where, and how to get the others."""
    from common.data.prepare import list_datasets  # why: torch takes seconds to import

    listing = Table()
    for heading in ("name", "present", "where", "size", "how to get it"):
        listing.add_column(heading, overflow="fold")
    for status in list_datasets(root or repository_root() / "data"):
        size = f"{status.size / 1e6:.1f} MB" if status.size else ""
        listing.add_row(status.name, "yes" if status.present else "no", str(status.where), size, status.how)
    formats.print_table(listing)


@data_app.command(
    "prepare", epilog=examples("repro data prepare CIFAR100", "repro data prepare CIFAR100 --from cifar100.zip")
)
def data_prepare(
    name: Annotated[str, typer.Argument(help="Name of the data set; see `repro data list`.")],
    source: Annotated[Path | None, typer.Option("--from", help="Archive that was downloaded by hand.")] = None,
    root: Annotated[Path | None, typer.Option(help="Folder of the data sets.", show_default="data")] = None,
) -> None:
    """Check, unpack or download one data set."""
    from common.data.prepare import prepare

    print(prepare(name, root or repository_root() / "data", source))
