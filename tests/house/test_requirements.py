"""pyproject.toml, constraints.txt and environment.yml agree with each other, the sources, and what is installed."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from tests.helpers import REPOSITORY
from tests.house.requirements import FILES, canonical, conda_pins, declared, disagreements, pins
from tests.house.sources import PACKAGES, imports_of, python_files

pytestmark = pytest.mark.audit

PINNED = pins((REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines())
DISTRIBUTIONS = {"PIL": "pillow", "yaml": "pyyaml"}
"""Modules whose distribution has another name."""

BUILT_NOT_DOWNLOADED = {"apex", "inplace-abn"}
"""Optional packages of the papers' stack: environment.yml says how they are built."""


def test_the_three_files_agree() -> None:
    assert disagreements(REPOSITORY) == []
    assert len(declared((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))) > 10


@pytest.mark.parametrize(("name", "version"), [("torch", "2.11.0"), ("torchvision", "0.26.0"), ("timm", "1.0.31")])
def test_the_libraries_that_decide_about_numbers(name: str, version: str) -> None:
    assert PINNED[name] == version
    assert conda_pins((REPOSITORY / "environment.yml").read_text(encoding="utf-8"))[name] == version


def test_the_python_versions_agree() -> None:
    pyproject = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    oldest = re.fullmatch(r">=(\d+)\.(\d+)", pyproject["project"]["requires-python"])
    assert oldest is not None
    assert pyproject["tool"]["ruff"]["target-version"] == f"py{oldest[1]}{oldest[2]}"
    conda = re.search(r"^\s*- python=(\d+)\.(\d+)$", (REPOSITORY / "environment.yml").read_text("utf-8"), re.MULTILINE)
    assert conda is not None
    assert (int(conda[1]), int(conda[2])) >= (int(oldest[1]), int(oldest[2]))


@pytest.mark.parametrize("name", sorted(PINNED))
def test_the_installed_version_is_the_pinned_one(name: str) -> None:
    try:
        installed = metadata.version(name)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{name} is not installed")
    assert installed.split("+")[0] == PINNED[name]  # the part after + names a build: 2.11.0+cpu


def test_every_imported_library_is_declared() -> None:
    """Else it is there only by chance, as a dependency of another."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {canonical(name) for name in [*project["dependencies"], *project["optional-dependencies"]["slurm"]]}
    with_tests = declared((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    own = {*PACKAGES, "tests", *sys.stdlib_module_names}
    undeclared, seen = [], set()
    for path in python_files(REPOSITORY, *PACKAGES, "tests"):
        allowed = with_tests if path.is_relative_to(REPOSITORY / "tests") else needed
        for entry in imports_of(path, REPOSITORY):
            module = entry.module.split(".")[0]
            name = canonical(DISTRIBUTIONS.get(module, module))
            seen.add(name)
            if module not in own and name not in allowed | BUILT_NOT_DOWNLOADED:
                undeclared.append(f"{path.relative_to(REPOSITORY)}:{entry.line}: {module}")
    assert undeclared == []
    assert {"torch", "numpy", "pytest"} <= seen


# --- the comparison -------------------------------------------------------------------------------------------------


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / name).write_bytes((REPOSITORY / name).read_bytes())
    return tmp_path


@pytest.mark.parametrize(
    ("file", "old", "new", "problem"),
    [
        ("constraints.txt", "timm==1.0.31", "timm==1.0.30", "environment.yml has timm 1.0.31, constraints.txt 1.0.30"),
        ("constraints.txt", "timm==1.0.31\n", "", "constraints.txt lacks timm"),
        ("constraints.txt", "torch==2.11.0", "torch>=2.11.0", "constraints.txt: torch is not pinned with =="),
        ("environment.yml", "torch==2.11.0", "torch==2.10.0", "environment.yml has torch 2.10.0"),
        ("environment.yml", "      - tqdm==", "      # - tqdm==", "environment.yml lacks tqdm"),
        ("environment.yml", "      - tqdm==", "      - wandb==0.1\n      - tqdm==", "environment.yml has wandb 0.1"),
        ("pyproject.toml", '    "tqdm",\n', '    "tqdm",\n    "wandb>=1",\n', "constraints.txt lacks wandb"),
        ("pyproject.toml", '"pytest", ', '"pytest", "wandb[media]", ', "environment.yml lacks wandb"),
    ],
)
def test_a_planted_disagreement_is_found(copy: Path, file: str, old: str, new: str, problem: str) -> None:
    text = (copy / file).read_text(encoding="utf-8")
    assert old in text
    (copy / file).write_text(text.replace(old, new, 1), encoding="utf-8")
    assert any(line.startswith(problem) for line in disagreements(copy)), disagreements(copy)


def test_names_are_compared_as_indexes_do() -> None:
    assert canonical("docstring_parser") == canonical("Docstring-Parser") == "docstring-parser"
    assert pins(["A_b==1.0  # why", "", "# c==2", "d >= 3"]) == {"a-b": "1.0", "d": ""}
