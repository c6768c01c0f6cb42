"""Who may import whom, read from the sources; the checker itself must find planted violations."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers import REPOSITORY
from tests.house.sources import PACKAGES, broken_laws, import_cycle, imports_of, python_files, tracked_files

pytestmark = pytest.mark.audit


def test_every_import_keeps_the_laws() -> None:
    assert len(python_files(REPOSITORY, *PACKAGES)) > 30
    assert broken_laws(REPOSITORY) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert import_cycle(REPOSITORY) is None


def test_no_package_escapes_the_laws() -> None:
    packages = {path.relative_to(REPOSITORY).parts[0] for path in tracked_files(REPOSITORY) if path.suffix == ".py"}
    assert packages <= {*PACKAGES, "tests"}


# --- the checker ----------------------------------------------------------------------------------------------------


def plant(root: Path, files: dict[str, str]) -> Path:
    """A tree of sources; every folder on the way is a package."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        for folder in path.relative_to(root).parents:
            if folder != Path():
                (root / folder / "__init__.py").touch()
        path.write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("common/data/x.py", "import classification"),
        ("common/x.py", "from repro import cli"),
        ("common/x.py", "import torch, rfd.model"),
        ("common/x.py", "def late():\n    from segmentation.tasks import split"),
        ("common/x.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import benchmarks.timing"),
        ("common/x.py", "import importlib\nimportlib.import_module('classification.vdfd')"),
        ("common/x.py", "from tests.helpers import REPOSITORY"),
        ("classification/main.py", "from rfd.main import main"),
        ("classification/main.py", "import repro.records"),
        ("curriculum_dfkd/main.py", "import adversarial_dfkd as a"),
        ("repro/cli.py", "from classification.vdfd import learner"),
        ("repro/cli.py", "def late():\n    import prompt_distill"),
        ("common/x.py", "from math import *"),
        ("classification/vdfd/x.py", "from .losses import *"),
        ("tests/test_x.py", "from common.data import *"),
    ],
)
def test_a_planted_violation_is_found(tmp_path: Path, file: str, text: str) -> None:
    broken = broken_laws(plant(tmp_path, {file: text}))
    assert len(broken) == 1
    assert broken[0].startswith(f"{file}:{len(text.splitlines())}: ")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("common/x.py", "import torch\nfrom common.data import loader\n# import classification\nX = 'import rfd'"),
        ("classification/main.py", "from common.training.run import Run\nfrom classification.vdfd import learner"),
        ("classification/vdfd/x.py", "from . import losses\nfrom ..main import main\nimport common"),
        ("repro/cli.py", "import importlib\nimportlib.import_module(name)\nfrom common.parity import ADAPTERS"),
        ("benchmarks/x.py", "import classification.vdfd.learner"),
        ("tests/test_x.py", "import repro, classification"),
        ("common/x.py", "import classification_tools"),
    ],
)
def test_what_is_allowed_is_not_found(tmp_path: Path, file: str, text: str) -> None:
    assert broken_laws(plant(tmp_path, {file: text})) == []


@pytest.mark.parametrize(
    "files",
    [
        {"common/a.py": "import common.b", "common/b.py": "from common.a import x"},
        {"common/a.py": "from common import b", "common/b.py": "from . import c", "common/c.py": "from .a import x"},
        {"common/p/__init__.py": "from common.p.a import x", "common/p/a.py": "from common.p import x"},
        {
            "common/p/__init__.py": "from common.q import x",
            "common/q.py": "from common.p.a import x",
            "common/p/a.py": "",
        },
        {
            "common/a.py": "class A:\n    from common.b import x",
            "common/b.py": "try:\n    import common.a\nfinally:\n    pass",
        },
    ],
    ids=["two", "three", "own package", "package on the way", "nested"],
)
def test_a_planted_cycle_is_found(tmp_path: Path, files: dict[str, str]) -> None:
    cycle = import_cycle(plant(tmp_path, files))
    assert cycle is not None
    assert cycle[0] == cycle[-1]


@pytest.mark.parametrize(
    "files",
    [
        {"common/a.py": "import common.b", "common/b.py": "import common.c", "common/c.py": ""},
        {"common/a.py": "import common.b", "common/b.py": "def late():\n    import common.a"},
        {
            "common/a.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from common.b import x",
            "common/b.py": "import common.a",
        },
        {
            "common/p/__init__.py": "from common.p import a",
            "common/p/a.py": "from common.p import b",
            "common/p/b.py": "",
        },
    ],
    ids=["line", "late", "types only", "siblings"],
)
def test_what_is_no_cycle_is_not_found(tmp_path: Path, files: dict[str, str]) -> None:
    assert import_cycle(plant(tmp_path, files)) is None


def test_relative_imports_are_resolved(tmp_path: Path) -> None:
    text = "from . import b\nfrom .b import x\nfrom ..q import y"
    root = plant(tmp_path, {"common/p/a.py": text, "common/p/b.py": "", "common/q.py": ""})
    modules = [entry.module for entry in imports_of(root / "common/p/a.py", root)]
    assert modules == ["common.p.b", "common.p.b", "common.q"]
