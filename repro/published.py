"""Published values: looked up in repro/paper/<paper>/*.csv, never written anywhere else."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from common.training.errors import UserError
from repro.registry import PublishedRef, Subproject

SOURCE_COLUMNS = ("table", "figure", "run")
"""Columns that say where in a paper a row comes from; the first one present names a value's source."""


@dataclass(frozen=True)
class Published:
    """One published number.

    Attributes:
        value: the number.
        text: as it stands in the CSV file (keeps the published number of digits).
        sources: tables or figures that state it, each once.
        file: name of the CSV file of the first one.
        origins: where the CSV files' authors read it (their column "source"), each once.
    """

    value: float
    text: str
    sources: tuple[str, ...]
    file: str
    origins: tuple[str, ...] = ()


@dataclass
class PublishedTables:
    """The CSV files of the papers, each read once.

    Attributes:
        root: repository root; the files lie in <root>/repro/paper/<paper>/.
    """

    root: Path
    _rows: dict[Path, list[dict[str, str]]] = field(default_factory=dict, repr=False)
    _index: dict[tuple[Path, tuple[str, ...]], dict[tuple[str, ...], list[dict[str, str]]]] = field(
        default_factory=dict, repr=False
    )

    def values(self, paper: str, references: Iterable[PublishedRef], place: str = "") -> list[Published]:
        """All different numbers that the references find, in their order.

        Sources that agree become one entry; more than one entry means that the sources contradict each other, and the
        caller has to show all of them.

        Raises:
            UserError: if a file or column does not exist, no row matches, or the matching entry is no number; the
                message starts with `place`.
        """
        found: list[Published] = []
        for reference in references:
            for row in self.rows(paper, reference, place):
                published = _entry(row, reference, place)
                same = [n for n, other in enumerate(found) if other.value == published.value]
                if same:
                    old = found[same[0]]
                    sources, origins = (
                        tuple(dict.fromkeys((*getattr(old, name), *getattr(published, name))))
                        for name in ("sources", "origins")
                    )
                    found[same[0]] = Published(old.value, old.text, sources, old.file, origins)
                else:
                    found.append(published)
        return found

    def rows(self, paper: str, reference: PublishedRef, place: str) -> list[dict[str, str]]:
        """The rows that a reference finds; raises as `values` does."""
        path = self.root / "repro" / "paper" / paper / reference.file
        rows = self.read(path, place)
        columns = list(rows[0]) if rows else []
        for column in (*reference.where, reference.column):
            if column not in columns:
                raise UserError(f"{place}: {reference.file} has no column {column!r}; it has {', '.join(columns)}")
        keys = tuple(reference.where)
        if (path, keys) not in self._index:
            index = self._index.setdefault((path, keys), {})
            for row in rows:
                index.setdefault(tuple(row[key] for key in keys), []).append(row)
        matches = self._index[path, keys].get(tuple(reference.where.values()), [])
        if not matches:
            raise UserError(f"{place}: no row matches {reference}; correct `where` (it is compared letter by letter)")
        return matches

    def read(self, path: Path, place: str) -> list[dict[str, str]]:
        """All rows of a CSV file, the same objects at every call.

        Raises:
            UserError: if it does not exist.
        """
        if path not in self._rows:
            if not path.is_file():
                raise UserError(
                    f"{place}: {path.relative_to(self.root)} does not exist; published values live in such CSV files"
                )
            with path.open(encoding="utf-8", newline="") as file:
                self._rows[path] = list(csv.DictReader(file))
        return self._rows[path]


def check_published(subprojects: Iterable[Subproject], tables: PublishedTables) -> None:
    """Look up every published value of every cell.

    Raises:
        UserError: for the first one that cannot be found, naming cell and metric.
    """
    for subproject in subprojects:
        for cell in subproject.cells:
            for metric in cell.metrics:
                tables.values(subproject.paper, metric.published, f"cell {cell.id!r}, metric {metric.key!r}")


def _entry(row: dict[str, str], reference: PublishedRef, place: str) -> Published:
    text = row[reference.column].strip()
    try:
        value = float(re.split(r"\+-|±", text)[0])  # a mean with its spread: the mean
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{place}: {reference} finds {text!r} in column {reference.column!r}; expected a number")
    source = next((row[column] for column in SOURCE_COLUMNS if row.get(column)), reference.file)
    return Published(value, text, (source,), reference.file, (row["source"],) if row.get("source") else ())
