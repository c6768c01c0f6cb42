"""Shipped artefacts: the manifest is what the files are, every binary file is covered, and changes are noticed."""

from __future__ import annotations

import hashlib
import json

import pytest

from common.training.errors import UserError
from repro.artefacts import MANIFEST, find_problems, measure, read_artefacts, uncovered, write_manifest
from tests.helpers import REPOSITORY
from tests.house.sources import tracked_files

pytestmark = pytest.mark.audit

DECLARED = """
[[artefact]]
id = "one"
what = "a file"
files = ["work/weights.npz"]
licence = "MIT"
rebuild = "`make weights`"

[[artefact]]
id = "two"
what = "a folder"
files = ["work/sample/**/*"]
licence = "none stated"
rebuild = "cut by hand"
papers = ["toy"]

[[artefact]]
id = "later"
what = "not made yet"
files = ["work/later/*"]
licence = "MIT"
rebuild = "later"
optional = true
"""


@pytest.fixture
def shipped(repository):
    repository.write("repro/artefacts.toml", DECLARED)
    repository.write("work/weights.npz", "abc")
    repository.write("work/sample/a/x.webp", "x")
    repository.write("work/sample/y.webp", "yy")
    return repository


def test_hashes_can_be_computed_by_hand(shipped):
    one, two = read_artefacts(shipped.root)
    assert measure(one, shipped.root) == {"files": 1, "bytes": 3, "sha256": hashlib.sha256(b"abc").hexdigest()}
    names = {"work/sample/a/x.webp": b"x", "work/sample/y.webp": b"yy"}
    lines = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in names.items())
    expected = {"files": 2, "bytes": 3, "sha256": hashlib.sha256(lines.encode()).hexdigest()}
    assert measure(two, shipped.root) == expected


@pytest.mark.parametrize("change", ["content", "name", "licence", "removed", "added"])
def test_every_change_is_noticed(shipped, call, change):
    assert write_manifest(shipped.root) and not write_manifest(shipped.root)
    assert find_problems(shipped.root) == [] and call("check")[0] == 0 and call("manifest", "--check")[0] == 0
    sample = shipped.root / "work/sample/y.webp"
    if change == "content":
        sample.write_text("zz")
    elif change == "name":
        sample.rename(sample.with_name("z.webp"))
    elif change == "added":
        shipped.write("work/sample/z.webp", "z")
    elif change == "removed":
        sample.unlink()
    else:
        shipped.write("repro/artefacts.toml", DECLARED.replace("none stated", "CC0"))
    (problem,) = find_problems(shipped.root)
    assert "two differs in" in problem
    code, out, _ = call("check")
    assert code == 1 and "two differs in" in out
    assert call("manifest", "--check")[0] == 1


def test_a_pattern_without_a_file_is_a_mistake_unless_it_is_optional(shipped):
    (shipped.root / "work/weights.npz").unlink()
    with pytest.raises(UserError, match=r"no file matches work/weights.npz"):
        find_problems(shipped.root)
    shipped.write("work/weights.npz", "abc")
    shipped.write("work/later/z.npz", "z")
    assert [artefact.id for artefact in read_artefacts(shipped.root)] == ["one", "two", "later"]


def test_an_unreadable_manifest_is_one_line(shipped, call):
    shipped.write(str(MANIFEST), "{")
    code, _, err = call("check")
    assert code == 2 and "repro manifest" in err and len(err.strip().splitlines()) == 1


def test_the_command_writes_and_shows(shipped, call):
    code, out, _ = call("manifest", "--format", "json")
    assert code == 0 and [row["id"] for row in json.loads(out)[0]["rows"]] == ["one", "two"]
    assert set(json.loads((shipped.root / MANIFEST).read_text())) == {"one", "two"}
    path = shipped.write("README.md", "<!-- repro:artefacts toy -->\n<!-- /repro:artefacts -->\n")
    assert call("readme")[0] == 0
    assert "a folder" in path.read_text() and "make weights" in path.read_text()


def test_binary_files_without_an_artefact_are_found(shipped):
    artefacts = read_artefacts(shipped.root)
    names = ["work/weights.npz", "work/sample/a/b/c.webp", "work/other.safetensors", "work/code.py"]
    assert uncovered(names, artefacts) == ["work/other.safetensors"]


# --- the real repository ---------------------------------------------------------------------------------------------


def test_the_real_manifest_is_up_to_date():
    assert find_problems(REPOSITORY) == []


def test_every_tracked_binary_file_belongs_to_an_artefact():
    names = [path.relative_to(REPOSITORY).as_posix() for path in tracked_files(REPOSITORY)]
    names = [name for name in names if not name.startswith("results/")]  # records, series and pictures of runs
    assert uncovered(names, read_artefacts(REPOSITORY)) == []
