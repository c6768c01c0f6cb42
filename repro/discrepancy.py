"""The register of discrepancies: what a paper says, what its released code does, and what we do.

One file per paper, `repro/discrepancies/<paper>.toml` (its format: README.md there). READMEs and the report are
rendered from it; its switches are looked up in the programs' own help, its tests and fixtures in the repository.
"""

from __future__ import annotations

import ast
import fnmatch
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.training.errors import UserError
from repro.formats import Sheet
from repro.registry import Subproject
from repro.toml_tables import CheckedTable, read_toml

FOLDER = Path("repro") / "discrepancies"
NOT_MEASURED = "not measured"
HELP_SECONDS = 300

SHOW_HELP = """
import contextlib, io, json, os, runpy, sys
texts = []
for path in sys.argv[1:]:
    folder, file = os.path.split(path)
    os.chdir(folder)
    sys.path[0], sys.argv = folder, [file, "--help"]
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        try:
            runpy.run_path(path, run_name="__main__")
        except SystemExit as ended:
            if ended.code:
                raise
    texts.append(text.getvalue())
print(json.dumps(texts))
"""
"""Shows the help of several programs in one process: each imports torch, which takes seconds."""

COLUMNS = {
    "id": "id",
    "says": "paper says",
    "released": "released code does",
    "ours": "we do",
    "effect": "effect",
    "measured": "measured",
    "switches": "switch",
    "checks": "tests and fixtures",
}


@dataclass(frozen=True)
class Discrepancy:
    """One entry.

    Attributes:
        id: name of the entry, unique within its paper.
        says: the paper; empty where it is silent or was not available.
        released: the released code; empty where nothing was released.
        ours: what this repository does by default.
        effect: what the difference is expected to change; empty where unknown.
        measured: what was measured of that effect, and where it stands; NOT_MEASURED otherwise.
        switches: flags that choose the other behaviour, with their value if they take one.
        tests: "tests/.../file.py::function", or a file of benchmarks/.
        fixtures: patterns of recorded fixtures that hold our side to the released code.
    """

    id: str
    ours: str
    says: str = ""
    released: str = ""
    effect: str = ""
    measured: str = NOT_MEASURED
    switches: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    fixtures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Register:
    """The entries of one paper.

    Attributes:
        paper: its short name.
        programs: programs, relative to the repository root, whose help lists the switches.
        entries: in the order of the file.
    """

    paper: str
    programs: tuple[str, ...]
    entries: tuple[Discrepancy, ...]


def read_register(root: Path, paper: str) -> Register | None:
    """The register of a paper; None if it has none.

    Raises:
        UserError: for a mistake in the file, naming the entry.
    """
    path = root / FOLDER / f"{paper}.toml"
    if not path.is_file():
        return None
    shown = path.relative_to(root)
    top = CheckedTable(read_toml(path, shown), str(shown), {"paper": str, "programs": list, "discrepancy": list})
    if top.get("paper") != paper:
        raise UserError(f"{shown}: paper is {top.get('paper')!r}; the file's name says {paper!r}")
    entries = tuple(_read_entry(entry, str(shown)) for entry in top.get("discrepancy", []))
    ids = [entry.id for entry in entries]
    twice = [id for id in ids if ids.count(id) > 1]
    if twice:
        raise UserError(f"{shown}: discrepancy {twice[0]!r} occurs twice; ids must differ")
    return Register(paper, tuple(top.get("programs", [])), entries)


def _read_entry(entry: Any, shown: str) -> Discrepancy:
    name = entry.get("id", "without id") if isinstance(entry, dict) else "?"
    texts = ("id", "says", "released", "ours", "effect", "measured")
    lists = ("switches", "tests", "fixtures")
    table = CheckedTable(
        entry, f"{shown}, discrepancy {name!r}", {**dict.fromkeys(texts, str), **dict.fromkeys(lists, list)}
    )
    for key in ("id", "ours"):
        if not table.get(key).strip():
            raise UserError(f"{shown}, discrepancy {name!r}: {key} is empty")
    if not (table.get("says", "") or table.get("released", "")):
        raise UserError(f"{shown}, discrepancy {name!r}: give what the paper says or what the released code does")
    return Discrepancy(**{key: tuple(value) if key in lists else value for key, value in table.content.items()})


# --- checks -----------------------------------------------------------------------------------------------------------


def find_problems(register: Register, subproject: Subproject, root: Path) -> list[str]:
    """One line for every test, fixture or program of a register that does not exist."""
    problems = [f"program {name} does not exist" for name in register.programs if not (root / name).is_file()]
    ids = fixture_ids(subproject, root)
    for entry in register.entries:
        if entry.switches and not register.programs:
            problems.append(f"{entry.id}: it has switches, but the file names no program")
        problems += [f"{entry.id}: test {name} does not exist" for name in entry.tests if not names_a_test(root, name)]
        for pattern in entry.fixtures:
            if not fnmatch.filter(ids, pattern):
                problems.append(f"{entry.id}: no recorded fixture matches {pattern}")
    return [f"{FOLDER.as_posix()}/{register.paper}.toml: {problem}" for problem in problems]


def fixture_ids(subproject: Subproject, root: Path) -> list[str]:
    """Ids of a paper's recorded fixtures; empty where nothing was recorded."""
    path = root / subproject.fixtures / "manifest.json"
    if not path.is_file():
        return []
    try:
        return [str(entry["id"]) for entry in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path}: not a readable manifest ({type(error).__name__}: {error})") from error


def names_a_test(root: Path, name: str) -> bool:
    """Whether "tests/.../file.py" or "tests/.../file.py::function" is there."""
    file, _, function = name.partition("::")
    path = root / file
    if Path(file).parts[:1] not in (("tests",), ("benchmarks",)) or not path.is_file():
        return False
    if not function:
        return True
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return any(isinstance(node, ast.FunctionDef) and node.name == function for node in nodes)


def unknown_switches(register: Register, helps: Iterable[str]) -> list[str]:
    """One line for every switch, or value of one, that no help text offers."""
    helps = list(helps)
    problems = []
    for entry in register.entries:
        for switch in entry.switches:
            if not any(_offers(text, switch) for text in helps):
                problems.append(
                    f"{FOLDER.as_posix()}/{register.paper}.toml: {entry.id}: no program offers {switch!r}; "
                    f"looked in the help of {', '.join(register.programs)}"
                )
    return problems


def program_helps(register: Register, root: Path) -> list[str]:
    """The help texts of a register's programs, all shown by one process.

    Raises:
        UserError: if a program cannot show its help.
    """
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "COLUMNS": "200"}
    command = [sys.executable, "-c", SHOW_HELP, *(str(root / name) for name in register.programs)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HELP_SECONDS)
    if result.returncode:
        last = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"--help of {', '.join(register.programs)} cannot be shown: {last}")
    return json.loads(result.stdout)


def _offers(text: str, switch: str) -> bool:
    flag, _, value = switch.partition(" ")
    found = re.findall(rf"(?<![\w.-]){re.escape(flag)}(?![\w.-])(?: \{{([^}}]*)\}})?", text)
    choices = {choice for listed in found for choice in listed.split(",") if choice}
    return bool(found) and (not value or not choices or value in choices)


# --- rendering --------------------------------------------------------------------------------------------------------


def register_sheet(register: Register, title: str) -> Sheet:
    """All entries as one table."""
    sheet = Sheet(f"{register.paper}-deviations", title, COLUMNS, data=[])
    for entry in register.entries:
        row = {key: getattr(entry, key) for key in ("id", "says", "released", "ours", "effect", "measured")}
        row["switches"] = ", ".join(f"`{switch}`" for switch in entry.switches)
        row["checks"] = ", ".join(f"`{name}`" for name in (*map(_short, entry.tests), *entry.fixtures))
        sheet.rows.append(row)
        lists = {key: list(getattr(entry, key)) for key in ("switches", "tests", "fixtures")}
        sheet.data.append({**{key: row[key] for key in row if key not in ("switches", "checks")}, **lists})
    return sheet


def count_measured(entries: Sequence[Discrepancy]) -> int:
    """How many entries have a measured effect."""
    return sum(entry.measured != NOT_MEASURED for entry in entries)


def _short(test: str) -> str:
    return test.removeprefix("tests/")
