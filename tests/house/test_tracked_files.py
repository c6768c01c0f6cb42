"""What is in the repository: no traces of a machine, nothing big, nothing binary that a run produced."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.helpers import REPOSITORY
from tests.house.sources import tracked_files

pytestmark = pytest.mark.audit

LARGEST_FILE, LARGEST_TOTAL = 6 * 2**20, 48 * 2**20
PRODUCED = {".pt", ".pth", ".pyc"}

# Built from pieces, so that this file does not contain what it forbids.
SLASH = "/"
MACHINE_FOLDERS = ("work", "root", "mnt", "home" + SLASH + r"\w+", "Users" + SLASH + r"\w+")
HOSTS = ("pypi" + ".org", "python" + "hosted.org", "anaconda" + ".org")
TRACES = re.compile(
    "|".join(
        [
            *(rf"(?<![\w.~$}}\])*-]){SLASH}{folder}{SLASH}" for folder in MACHINE_FOLDERS),  # at the start of a path
            SLASH + r"\.lib" + "rary" + SLASH,
            *(re.escape(host) for host in HOSTS),
        ]
    )
)


def is_text(content: bytes) -> bool:
    return b"\0" not in content


def traces_in(text: str) -> list[str]:
    return [match.group() for match in TRACES.finditer(text)]


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    files = tracked_files(REPOSITORY)
    assert len(files) > 50
    return files


def test_no_text_names_a_machine_or_a_package_index(tracked: list[Path]) -> None:
    found = []
    for path in tracked:
        content = path.read_bytes()
        if is_text(content):
            for number, line in enumerate(content.decode("utf-8", errors="replace").splitlines(), start=1):
                found += [f"{path.relative_to(REPOSITORY)}:{number}: {trace}" for trace in traces_in(line)]
    assert found == []


def test_no_file_name_is_hidden_rubbish_or_an_output(tracked: list[Path]) -> None:
    assert [path for path in tracked if path.suffix in PRODUCED] == []
    folders = {"__pycache__", ".venv", "outputs", ".pytest_cache", ".ruff_cache"}
    assert [path for path in tracked if folders & set(path.relative_to(REPOSITORY).parts)] == []


def test_nothing_is_big(tracked: list[Path]) -> None:
    sizes = {path: path.stat().st_size for path in tracked}
    assert [str(path) for path, size in sizes.items() if size > LARGEST_FILE] == []
    assert sum(sizes.values()) < LARGEST_TOTAL


@pytest.mark.parametrize(
    "line",
    [
        f"data = '{SLASH}work{SLASH}main'",
        f"cd {SLASH}root{SLASH}x",
        f"path: {SLASH}mnt{SLASH}node3{SLASH}x",
        f'"{SLASH}home{SLASH}me{SLASH}data"',
        f"({SLASH}Users{SLASH}me{SLASH}data)",
        f"x={SLASH}root{SLASH}.cache",
        f"see x{SLASH}.lib" + f"rary{SLASH}README",
        "https://pypi" + ".org/simple",
        "files.python" + "hosted.org",
    ],
)
def test_a_planted_trace_is_found(line: str) -> None:
    assert traces_in(line)


@pytest.mark.parametrize(
    "line",
    [
        "https://example.org/homework/1",
        f"tests{SLASH}work{SLASH}scripts",
        "../ro" + "ot/x is relative",
        f"$HOME{SLASH}work{SLASH}x",
        "network/roots",
        "the library in .librarian",
    ],
)
def test_ordinary_text_is_no_trace(line: str) -> None:
    assert traces_in(line) == []
