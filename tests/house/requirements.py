"""Reads the three files that name the libraries, and compares them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

import yaml

FILES = ("pyproject.toml", "constraints.txt", "environment.yml")


def canonical(name: str) -> str:
    """Spelling by which indexes compare names: docstring_parser -> docstring-parser."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(pyproject: str) -> set[str]:
    """Names of the dependencies in pyproject.toml, those of the tests included."""
    project = tomllib.loads(pyproject)["project"]
    requirements = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    return {canonical(re.split(r"[^\w.-]", requirement, maxsplit=1)[0]) for requirement in requirements}


def pins(lines: Iterable[str]) -> dict[str, str]:
    """name -> version of lines `name==version`; the version of any other line is empty."""
    found = {}
    for line in lines:
        text = line.split("#")[0].strip()
        if text:
            name, _, version = text.partition("==")
            found[canonical(re.split(r"[^\w.-]", name, maxsplit=1)[0])] = version
    return found


def conda_pins(environment: str) -> dict[str, str]:
    """The pip part of environment.yml."""
    dependencies = yaml.safe_load(environment)["dependencies"]
    return pins(line for entry in dependencies if isinstance(entry, dict) for line in entry["pip"])


def disagreements(folder: Path) -> list[str]:
    """One line for every library that the three files do not name alike."""
    pyproject, constraints, environment = ((folder / name).read_text(encoding="utf-8") for name in FILES)
    wanted, pinned, listed = declared(pyproject), pins(constraints.splitlines()), conda_pins(environment)
    problems = [f"constraints.txt: {name} is not pinned with ==" for name, version in pinned.items() if not version]
    problems += [f"constraints.txt lacks {name}" for name in sorted(wanted - set(pinned))]
    problems += [f"environment.yml lacks {name}" for name in sorted(wanted - set(listed))]
    for name, version in listed.items():
        if version != pinned.get(name):
            problems.append(f"environment.yml has {name} {version}, constraints.txt {pinned.get(name)}")
    return problems
