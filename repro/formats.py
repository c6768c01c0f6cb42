"""Sheets (a title, named columns, rows of text) written as terminal text, Markdown, CSV, HTML or JSON."""

from __future__ import annotations

import csv
import html
import io
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from common.training.errors import UserError

FORMATS = ("text", "md", "csv", "html", "json")
WIDTH_OF_FILES = 200
"""Columns of a text table that is not printed on a terminal."""


@dataclass(frozen=True)
class Link:
    """A file, shown by a short name; formats without links show its path."""

    text: str
    path: Path


CellValue = str | tuple[Link, ...]


@dataclass
class Sheet:
    """One table.

    Attributes:
        key: short name of the table for machine-readable formats.
        title: heading.
        columns: key -> heading. In CSV, columns of the same key share a column, so numbers that must never be mixed
            need different keys.
        rows: key -> text or links; an absent key is an empty cell.
        data: per row, what JSON gets instead of the texts; None takes the texts.
        note: a line below the table.
    """

    key: str
    title: str
    columns: dict[str, str]
    rows: list[dict[str, CellValue]] = field(default_factory=list)
    data: list[dict[str, Any]] | None = None
    note: str = ""


def check_format(name: str, known: Sequence[str] = FORMATS) -> str:
    """The format's name, or a UserError that lists the known ones."""
    if name not in known:
        raise UserError(f"unknown format {name!r}; known: {', '.join(known)}")
    return name


def render(sheets: Iterable[Sheet], format: str, base: Path) -> str:
    """Write sheets in one of FORMATS.

    Args:
        sheets: what to write.
        format: "text", "md", "csv", "html" or "json".
        base: folder that links are relative to.
    """
    writers = {"text": _text, "md": _markdown, "csv": _csv, "html": _html, "json": _json}
    return writers[check_format(format)](list(sheets), base)


def print_table(table: Table, console: Console | None = None) -> None:
    """Print a rich table; in a pipe or file it gets room instead of being cut to 80 columns."""
    console = console or Console()
    if not console.is_terminal:
        console = Console(file=console.file, width=WIDTH_OF_FILES)
    console.print(table)


def _text(sheets: list[Sheet], base: Path) -> str:
    buffer = io.StringIO()
    screen = Console()
    console = Console(file=buffer, width=screen.width if screen.is_terminal else WIDTH_OF_FILES)
    for sheet in sheets:
        table = Table(title=sheet.title, title_justify="left", box=box.SIMPLE_HEAD, show_lines=False)
        for heading in sheet.columns.values():
            table.add_column(heading, overflow="fold")
        for row in sheet.rows:
            table.add_row(*(_plain(row.get(key, ""), base).replace("[", r"\[") for key in sheet.columns))
        console.print(table)
        if sheet.note:
            console.print(sheet.note, markup=False, highlight=False)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def _markdown(sheets: list[Sheet], base: Path) -> str:
    parts = []
    for sheet in sheets:
        lines = [
            *([f"**{sheet.title}**", ""] if sheet.title else []),
            _markdown_row(_markdown_cell(heading, base) for heading in sheet.columns.values()),
            _markdown_row("---" for _ in sheet.columns),
        ]
        for row in sheet.rows:
            lines.append(_markdown_row(_markdown_cell(row.get(key, ""), base) for key in sheet.columns))
        lines += ["", sheet.note] if sheet.note else []
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _markdown_row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _markdown_cell(value: CellValue, base: Path) -> str:
    if isinstance(value, str):
        pieces = value.replace("|", r"\|").replace("\n", " ").split("`")  # every second one is code: taken as it is
        if len(pieces) % 2 == 0:
            return "`".join(pieces).replace("*", r"\*")
        return "`".join(piece if n % 2 else piece.replace("*", r"\*") for n, piece in enumerate(pieces))
    return ", ".join(f"[{link.text}]({_relative(link.path, base)})" for link in value)


def _csv(sheets: list[Sheet], base: Path) -> str:
    columns = list(dict.fromkeys(key for sheet in sheets for key in sheet.columns))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["section", *columns])
    for sheet in sheets:
        for row in sheet.rows:
            writer.writerow([sheet.key, *(_plain(row.get(key, ""), base) for key in columns)])
    return buffer.getvalue()


def _html(sheets: list[Sheet], base: Path) -> str:
    parts = []
    for sheet in sheets:
        head = "".join(f"<th>{html.escape(heading)}</th>" for heading in sheet.columns.values())
        body = "\n".join(
            "<tr>" + "".join(f"<td>{_html_cell(row.get(key, ''), base)}</td>" for key in sheet.columns) + "</tr>"
            for row in sheet.rows
        )
        note = f"<p>{html.escape(sheet.note)}</p>\n" if sheet.note else ""
        parts.append(
            f'<table class="{html.escape(sheet.key)}">\n<caption>{html.escape(sheet.title)}</caption>\n'
            f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n{note}"
        )
    return "\n".join(parts)


def _html_cell(value: CellValue, base: Path) -> str:
    if isinstance(value, str):
        return html.escape(value)
    return ", ".join(
        f'<a href="{html.escape(_relative(link.path, base))}">{html.escape(link.text)}</a>' for link in value
    )


def _json(sheets: list[Sheet], base: Path) -> str:
    content = [
        {
            "section": sheet.key,
            "title": sheet.title,
            "rows": sheet.data
            if sheet.data is not None
            else [{key: _plain(row.get(key, ""), base) for key in sheet.columns} for row in sheet.rows],
            **({"note": sheet.note} if sheet.note else {}),
        }
        for sheet in sheets
    ]
    return json.dumps(content, indent=1) + "\n"


def _plain(value: CellValue, base: Path) -> str:
    return value.replace("`", "") if isinstance(value, str) else " ".join(_relative(link.path, base) for link in value)


def _relative(path: Path, base: Path) -> str:
    return Path(os.path.relpath(path, base)).as_posix()
