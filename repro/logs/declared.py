"""Logs of another form: a function of the subproject, named in its experiments.toml, sets them beside its runs.

`logs = "module:function"`: the function gets the folders that hold run records and returns one dictionary per compared
number, in reading order: "log" (name of the logged run), "setting", "cell", "who", "quantity", "authors", "ours" (None
where there is no run) and, where they differ from "not run" and 2, "missing" (what to show without a run) and "digits"
(decimals worth showing).
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.training.errors import UserError
from repro.formats import Sheet
from repro.registry import Subproject

COLUMNS = {name: name for name in ("log", "who", "quantity", "authors", "ours", "difference")}
KEYS = ("log", "setting", "cell", "who", "quantity", "authors", "ours")


def declared_sheets(subproject: Subproject, folders: Sequence[Path]) -> list[Sheet]:
    """One table per logged run, from the subproject's own function.

    Raises:
        UserError: if the function does not exist or returns something else than it should.
    """
    sheets: dict[str, Sheet] = {}
    for row in _call(subproject, folders):
        missing = [key for key in KEYS if key not in row]
        if missing:
            raise UserError(f"{subproject.paper}: {subproject.log_view} returned a row without {missing[0]!r}")
        title = f"{row['log']}: {row['setting']} ({row['cell']})"
        sheet = sheets.setdefault(row["log"], Sheet(f"{subproject.paper}-logs-matrix", title, COLUMNS, data=[]))
        ours = row["ours"]
        digits = row.get("digits", 2)
        sheet.rows.append(
            {
                **{key: str(row[key]) for key in ("log", "who", "quantity")},
                "authors": f"{row['authors']:.{digits}f}",
                "ours": row.get("missing", "not run") if ours is None else f"{ours:.{digits}f}",
                "difference": "" if ours is None else f"{ours - row['authors']:+.{digits}f}",
            }
        )
        sheet.data.append({**row, "difference": None if ours is None else ours - row["authors"]})
    for sheet in sheets.values():
        sheet.note = "Shown, not judged: these numbers depend on random numbers. Differences are ours - authors."
    return list(sheets.values())


def _call(subproject: Subproject, folders: Sequence[Path]) -> Sequence[dict[str, Any]]:
    module_name, _, name = subproject.log_view.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise UserError(
            f"paper {subproject.paper!r}: logs = {subproject.log_view!r} cannot be found ({error}); "
            'correct its experiments.toml ("module:function")'
        ) from error
    return function([folder for folder in folders if folder.is_dir()])
