"""TOML files with known keys: every mistake is one line that names file, place and key."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from common.training.errors import UserError

_REQUIRED = object()


class CheckedTable:
    """A TOML table with known keys: an unknown, missing or ill-typed key is an error that names its place."""

    def __init__(self, content: Any, place: str, types: dict[str, Any]):
        if not isinstance(content, dict):
            raise UserError(f"{place}: expected a table, found {type(content).__name__}")
        unknown = sorted(set(content) - set(types))
        if unknown:
            raise UserError(f"{place}: unknown key {', '.join(unknown)}; known: {', '.join(types)}")
        for key, value in content.items():
            if not isinstance(value, types[key]) or (isinstance(value, bool) and types[key] is not bool):
                raise UserError(f"{place}: {key} = {value!r} has the wrong type ({type(value).__name__})")
        self.content, self.place = content, place

    def get(self, key: str, default: Any = _REQUIRED) -> Any:
        if key not in self.content and default is _REQUIRED:
            raise UserError(f"{self.place}: {key} is missing")
        return self.content.get(key, default)


def read_toml(path: Path, shown: Path) -> dict[str, Any]:
    """The content of a TOML file; `shown` is its name in messages.

    Raises:
        UserError: if it cannot be read.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{shown}: not valid TOML ({error})") from error
