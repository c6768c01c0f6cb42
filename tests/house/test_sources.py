"""Form of the sources: they parse, are short enough to read, say what they are for, and pass the linter."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib import util
from pathlib import Path

import pytest

from tests.helpers import REPOSITORY
from tests.house.sources import PACKAGES, python_files

pytestmark = pytest.mark.audit

LONGEST_FILE = 500
MARKERS = {"unit", "parity", "smoke", "audit"}
DOCUMENTED = ("common", "classification")
Function = ast.FunctionDef | ast.AsyncFunctionDef


def all_sources() -> list[Path]:
    return python_files(REPOSITORY, *PACKAGES, "tests")


def undocumented(tree: ast.Module, *, methods_too: bool = True) -> Iterator[str]:
    """Public functions, classes and methods without a docstring.

    Stubs of protocols need none, nor do adapters of fixtures: their decorator and the fixture's manifest say it.
    """
    if tree.body and not ast.get_docstring(tree):
        yield "module"
    for node in tree.body:
        if not isinstance(node, (Function, ast.ClassDef)) or node.name.startswith("_") or "reproduces" in _names(node):
            continue
        if not ast.get_docstring(node):
            yield f"{node.lineno}: {node.name}"
        if isinstance(node, ast.ClassDef) and methods_too and not _is_protocol(node):
            for method in node.body:
                if isinstance(method, Function) and not method.name.startswith("_") and not ast.get_docstring(method):
                    yield f"{method.lineno}: {node.name}.{method.name}"


def unmarked(tree: ast.Module) -> list[str]:
    """Tests of a file without a marker that says what they prove."""
    assigned = (node.targets[0] for node in tree.body if isinstance(node, ast.Assign))
    if any(ast.unparse(target) == "pytestmark" for target in assigned):
        return []
    tests = (node for node in tree.body if isinstance(node, (Function, ast.ClassDef)))
    return [n.name for n in tests if n.name.lower().startswith("test") and not MARKERS & _names(n)]


def _names(node: Function | ast.ClassDef) -> set[str]:
    """What decorates a function or class: unit for @pytest.mark.unit, reproduces for @reproduces("...")."""
    decorators = (item.func if isinstance(item, ast.Call) else item for item in node.decorator_list)
    return {ast.unparse(item).split(".")[-1] for item in decorators}


def _is_protocol(node: ast.ClassDef) -> bool:
    return any(ast.unparse(base).split(".")[-1].split("[")[0] == "Protocol" for base in node.bases)


def test_every_file_parses_and_is_short_enough_to_read() -> None:
    too_long = {}
    for path in all_sources():
        text = path.read_text(encoding="utf-8")
        ast.parse(text, str(path))
        if len(text.splitlines()) > LONGEST_FILE:
            too_long[str(path.relative_to(REPOSITORY))] = len(text.splitlines())
    assert too_long == {}


def test_everything_public_says_what_it_is_for() -> None:
    missing = []
    for path in python_files(REPOSITORY, *DOCUMENTED):
        methods_too = not path.is_relative_to(REPOSITORY / "classification" / "parity")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        missing += [f"{path.relative_to(REPOSITORY)}:{name}" for name in undocumented(tree, methods_too=methods_too)]
    assert missing == []


def test_every_test_file_says_what_it_proves() -> None:
    """A docstring, and a marker on all of its tests."""
    bad = []
    for path in python_files(REPOSITORY, "tests"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if not ast.get_docstring(tree):
            bad.append(f"{path.relative_to(REPOSITORY)}: no docstring")
        bad += [f"{path.relative_to(REPOSITORY)}: {name} has no marker" for name in unmarked(tree)]
    assert bad == []


def test_the_linter_is_content() -> None:
    if util.find_spec("ruff") is None:
        pytest.skip("ruff is not installed")
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format", "concise", "."]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr


# --- the checker ----------------------------------------------------------------------------------------------------

SOURCE = '''"""What it is for."""
class Shown:
    """Said."""
    def method(self): ...
    def said(self):
        """Said."""
    def _own(self): ...
    def __len__(self): ...
class Stub(Protocol):
    """Said."""
    def method(self): ...
class Silent: ...
class _Own:
    def method(self): ...
async def function(): ...
def outer():
    """Said."""
    def inner(): ...
@reproduces("toy.a")
def adapter(fixture): ...
'''


def test_missing_docstrings_are_found() -> None:
    found = list(undocumented(ast.parse(SOURCE)))
    assert found == ["4: Shown.method", "12: Silent", "15: function"]
    assert list(undocumented(ast.parse(SOURCE), methods_too=False)) == ["12: Silent", "15: function"]
    assert list(undocumented(ast.parse("X = 1"))) == ["module"]


def test_missing_markers_are_found() -> None:
    marked = "@pytest.mark.unit\ndef test_a(): ...\n"
    text = f"{marked}@pytest.mark.slow\ndef test_b(): ...\nclass TestC: ...\ndef helper(): ..."
    assert unmarked(ast.parse(text)) == ["test_b", "TestC"]
    assert unmarked(ast.parse(f"pytestmark = pytest.mark.unit\n{text}")) == []
