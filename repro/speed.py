"""Measured speed against the literal formulas: kept results of `benchmarks`, read, checked and shown.

`python -m benchmarks.<program> --save` writes results/benchmarks/<paper>.json; one file holds every kept measurement of
a paper. `repro` measures nothing itself.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.training.errors import UserError
from common.training.files import write_json
from repro.formats import Sheet

SCHEMA = 1
FOLDER = Path("results") / "benchmarks"
COLUMNS = {"what": "what", "ours": "ours, s", "literal": "literal, s", "ratio": "literal / ours"}
_TEXT = (str, type(None))
_TYPES: dict[str, Any] = {
    **dict.fromkeys(("command", "title", "method", "date"), str),
    **dict.fromkeys(("options", "hardware", "versions"), dict),
    "load": (int, float), "commit": _TEXT, "dirty": (bool, type(None)), **dict.fromkeys(("rows", "figures"), list),
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One pair: seconds of ours and of the literal way, and literal / ours as the program averages it."""

    what: str
    ours: float
    literal: float
    ratio: float


@dataclass(frozen=True)
class Figure:
    """Another measured number; `what` tells its unit."""

    what: str
    value: float


@dataclass(frozen=True)
class Measurement:
    """One run of a benchmark.

    Attributes:
        command: the program with its flags, without those that say where the result goes.
        title: network and sizes.
        method: what the seconds are.
        options: every flag's value.
        hardware: as run records describe it.
        load: processes that the machine ran or held ready when it began, mean of a minute.
        versions: of Python and the libraries.
        date: UTC, ISO 8601.
        commit: of the code.
        dirty: whether tracked code was changed or files were added, `results/` aside.
        rows: the pairs.
        figures: numbers other than times.
    """

    command: str
    title: str
    method: str
    options: dict[str, Any]
    hardware: dict[str, Any]
    load: float
    versions: dict[str, str]
    date: str
    commit: str | None
    dirty: bool | None
    rows: tuple[Row, ...]
    figures: tuple[Figure, ...] = ()

    @property
    def setting(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What was measured on what; how often does not matter."""
        return {name: value for name, value in self.options.items() if name != "rounds"}, self.hardware


def read_paper(root: Path, paper: str) -> list[Measurement]:
    """The kept measurements of a paper of a repository; see `read_speed`."""
    shown = FOLDER / f"{paper}.json"
    return read_speed(root / shown, shown)


def read_speed(path: Path, shown: Path) -> list[Measurement]:
    """The kept measurements of one paper; none if there is no such file.

    Args:
        path: <paper>.json.
        shown: its name in messages.

    Raises:
        UserError: if the file cannot be read or is not of the form that is written, naming what is wrong.
    """
    if not path.is_file():
        return []
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{shown}: not a readable JSON file ({error}); measure again with --save") from error
    try:
        if content["schema"] != SCHEMA:
            raise ValueError(f"schema {content['schema']!r}, expected {SCHEMA}")
        return [_measurement(entry) for entry in content["measurements"]]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{shown}: not a result of a benchmark ({error}); measure again with --save") from error


def keep_speed(path: Path, paper: str, measurement: Measurement) -> None:
    """Add a measurement to a paper's file; it takes the place of an older one of the same setting."""
    kept = [other for other in read_speed(path, path) if other.setting != measurement.setting]
    ordered = sorted([*kept, measurement], key=lambda one: one.command)
    content = {"schema": SCHEMA, "paper": paper, "measurements": [dataclasses.asdict(one) for one in ordered]}
    write_json(path, content)


def speed_sheets(measurements: list[Measurement]) -> list[Sheet]:
    """One table for each measurement, with where it comes from below; a second one, above that, for its figures."""
    sheets = []
    for number, one in enumerate(measurements):
        sheet = Sheet(f"speed-{number}", f"`{one.command}`: {one.title}", COLUMNS, data=[])
        for row in one.rows:
            shown = {"ours": seconds(row.ours), "literal": seconds(row.literal), "ratio": ratio(row.ratio)}
            sheet.rows.append({"what": row.what, **shown})
            sheet.data.append(dataclasses.asdict(row))
        sheets.append(sheet)
        if one.figures:
            figures = [{"what": figure.what, "value": f"{figure.value:,.1f}"} for figure in one.figures]
            data = [dataclasses.asdict(figure) for figure in one.figures]
            sheets.append(Sheet(f"figures-{number}", "", {"what": "what", "value": "measured"}, figures, data))
        sheets[-1].note = _origin(one)
    return sheets


def seconds(value: float) -> str:
    """Three digits that count, or whole seconds."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}"


def ratio(value: float) -> str:
    """Two decimals below ten, one below a hundred."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _origin(one: Measurement) -> str:
    hardware = one.hardware
    place = [str(hardware.get("name") or hardware.get("device", "?"))]
    if hardware.get("device") == "cpu":
        place.append(f"{hardware.get('threads')} of {hardware.get('cores')} threads, load {one.load:.1f} before")
    commit = f"commit {one.commit[:8]}" if one.commit else "no commit"
    state = " with changes" if one.dirty else ""
    return f"{one.method}. {', '.join(place)}; torch {one.versions['torch']}; {one.date[:10]}; {commit}{state}."


def _measurement(entry: Any) -> Measurement:
    if set(entry) != set(_TYPES):
        raise ValueError(f"expected the keys {', '.join(_TYPES)}")
    for name, types in _TYPES.items():
        if not isinstance(entry[name], types):
            raise ValueError(f"{name} is {entry[name]!r}")
    if not isinstance(entry["versions"].get("torch"), str):
        raise ValueError("versions lack torch")
    rows, figures = (tuple(map(lambda one, kind=kind: kind(**one), entry[name])) for name, kind in
                     (("rows", Row), ("figures", Figure)))  # fmt: skip
    for row in rows:
        numbers = (row.ours, row.literal, row.ratio)
        if not all(isinstance(one, (int, float)) and math.isfinite(one) and one > 0 for one in numbers):
            raise ValueError(f"{row.what}: expected three positive numbers, found {numbers}")
    for figure in figures:
        if not isinstance(figure.value, (int, float)) or not math.isfinite(figure.value):
            raise ValueError(f"{figure.what}: expected a number, found {figure.value!r}")
    return Measurement(**{**entry, "rows": rows, "figures": figures})
