"""What every benchmark does with its pairs: a table on the screen and, with --save, a file for the READMEs."""

from __future__ import annotations

import dataclasses
import datetime
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from common.training.device import describe_hardware
from common.training.options import as_dict, is_machine_option, machine_option
from common.training.record import describe_code, describe_versions
from repro import speed
from repro.speed import Figure, Measurement, Row

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class SaveOptions:
    """result"""

    save: bool = machine_option(False)
    """keep the result, for the Speed sections that `repro readme` writes"""
    save_to: str = machine_option(str(speed.FOLDER))
    """folder of kept results, from the repository's root; one of the same options and hardware is replaced"""


@dataclass(frozen=True)
class Start:
    """What is to be known before the first round: the time, the load, the code."""

    date: str
    load: float
    code: dict[str, Any]


def start() -> Start:
    """Now."""
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return Start(date, round(os.getloadavg()[0], 2), describe_code())


def report(
    paper: str,
    program: str,
    options: SaveOptions,
    begun: Start,
    rows: Sequence[Row],
    *,
    title: str,
    method: str,
    device: str = "cpu",
    figures: Sequence[Figure] = (),
) -> None:
    """Print the table and, if it is asked for, keep it.

    Args:
        paper: its name in `repro`.
        program: module below `benchmarks`.
        options: flags of the program.
        begun: what `start` returned.
        rows: the pairs.
        title: network and sizes.
        method: what the seconds are.
        device: where both ways ran.
        figures: numbers other than times.
    """
    table = Table(*speed.COLUMNS.values(), title=title)
    for row in rows:
        table.add_row(row.what, speed.seconds(row.ours), speed.seconds(row.literal), speed.ratio(row.ratio))
    console = Console()
    (console if console.is_terminal else Console(width=110)).print(table)
    for figure in figures:
        print(f"{figure.what}: {figure.value:,.1f}")
    if options.save:
        path = ROOT / options.save_to / f"{paper}.json"
        values = {name: value for name, value in as_dict(options).items() if not is_machine_option(type(options), name)}
        hardware, versions = describe_hardware(torch.device(device)), describe_versions()
        speed.keep_speed(path, paper, Measurement(
            command_of(program, options), title, method, values, hardware, begun.load, versions, begun.date,
            begun.code["commit"], begun.code["dirty"], tuple(rows), tuple(figures),
        ))  # fmt: skip
        print(f"kept in {options.save_to}/{paper}.json; `repro readme` shows it")


def command_of(program: str, options: SaveOptions) -> str:
    """The command line of a program with these options, without those that say where the result goes."""
    words = [f"python -m benchmarks.{program}"]
    defaults = as_dict(type(options)())
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if value != defaults[field.name] and not is_machine_option(type(options), field.name):
            values = [] if isinstance(value, bool) else value if isinstance(value, list) else [value]
            words += [f"--{field.name}", *map(str, values)]
    return " ".join(words)
