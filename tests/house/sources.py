"""The repository's own Python sources, and what they import, read from the text alone."""

from __future__ import annotations

import ast
import graphlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SUBPROJECTS = ("classification", "segmentation", "rfd", "prompt_distill", "adversarial_dfkd", "curriculum_dfkd")
PACKAGES = ("common", *SUBPROJECTS, "repro", "benchmarks")


def tracked_files(root: Path) -> list[Path]:
    """Files that git tracks and that are there; skips the test where git or the checkout is missing."""
    try:
        result = subprocess.run(["git", "-C", str(root), "ls-files", "-z"], capture_output=True, text=True)
    except OSError:
        pytest.skip("git is not installed")
    if result.returncode:
        pytest.skip(f"not a git checkout: {result.stderr.strip()}")
    return [root / name for name in result.stdout.split("\0") if name and (root / name).is_file()]


def python_files(root: Path, *packages: str) -> list[Path]:
    """The Python files of packages below a root; those that are missing have none."""
    return sorted(path for package in packages for path in (root / package).rglob("*.py"))


@dataclass(frozen=True)
class Import:
    """One imported name.

    Attributes:
        file: where it is imported.
        line: on which line.
        module: full name of the imported module.
        at_import: whether it happens when the file itself is imported (not inside a function, not for types only).
        is_star: from module import *.
    """

    file: Path
    line: int
    module: str
    at_import: bool
    is_star: bool = False


def module_name(path: Path, root: Path) -> str:
    """a/b/__init__.py -> a.b, a/b/c.py -> a.b.c"""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path, root: Path) -> list[Import]:
    """Every import statement in a file, and every `import_module("...")` of a name that stands in the text."""
    found: list[Import] = []
    _collect(ast.parse(path.read_text(encoding="utf-8")), path, root, True, found)
    return found


def _collect(node: ast.AST, path: Path, root: Path, at_import: bool, found: list[Import]) -> None:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            found += [Import(path, child.lineno, alias.name, at_import) for alias in child.names]
        elif isinstance(child, ast.ImportFrom):
            base = _base(child, path, root)
            for alias in child.names:
                full = f"{base}.{alias.name}"
                module = full if _is_module(full, root) else base
                found.append(Import(path, child.lineno, module, at_import, alias.name == "*"))
        elif isinstance(child, ast.Call) and _called(child) in ("import_module", "__import__"):
            name = child.args[0] if child.args else None
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                found.append(Import(path, child.lineno, name.value, at_import))
        runs_later = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for_types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        _collect(child, path, root, at_import and not runs_later and not for_types, found)


def _base(node: ast.ImportFrom, path: Path, root: Path) -> str:
    if not node.level:
        return node.module or ""
    package = path.relative_to(root).parent.parts
    parts = package[: len(package) - node.level + 1]
    return ".".join([*parts, *([node.module] if node.module else [])])


def _is_module(name: str, root: Path) -> bool:
    path = root.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def _called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


# --- laws -----------------------------------------------------------------------------------------------------------


def forbidden_packages(package: str) -> set[str]:
    """What the files of a top-level package may not import."""
    if package == "common":
        return {*PACKAGES, "tests"} - {"common"}
    if package in SUBPROJECTS:
        return {*PACKAGES, "tests"} - {"common", package}
    if package == "repro":
        return {*SUBPROJECTS, "benchmarks", "tests"}
    return {"tests"}


def broken_laws(root: Path) -> list[str]:
    """One line for every import that a law forbids, and for every star import."""
    broken = []
    for path in python_files(root, *PACKAGES, "tests"):
        place = path.relative_to(root)
        forbidden = forbidden_packages(place.parts[0]) if place.parts[0] != "tests" else set()
        for entry in imports_of(path, root):
            if entry.is_star:
                broken.append(f"{place}:{entry.line}: star import of {entry.module}")
            if entry.module.split(".")[0] in forbidden:
                broken.append(f"{place}:{entry.line}: {place.parts[0]} must not import {entry.module}")
    return broken


def import_cycle(root: Path) -> list[str] | None:
    """Modules of a cycle of imports that happen at import time, or None.

    Importing a.b.c runs a and a.b first; a module's own packages are under way already and count only where they are
    imported by name.
    """
    files = python_files(root, *PACKAGES, "tests")
    modules = {module_name(path, root): path for path in files}
    graph = {module: set(_runs(module, path, root)) & set(modules) for module, path in modules.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return None


def _runs(module: str, path: Path, root: Path) -> Iterator[str]:
    own = {module.rsplit(".", up)[0] for up in range(1, module.count(".") + 1)}
    for entry in imports_of(path, root):
        if entry.at_import:
            yield entry.module
            parts = entry.module.split(".")
            yield from ({".".join(parts[:count]) for count in range(1, len(parts))} - own - {module})
