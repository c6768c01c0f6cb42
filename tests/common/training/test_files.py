"""Files are written whole or not at all."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest

from common.training.files import write_atomically, write_json

pytestmark = pytest.mark.unit


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_writes_new_and_replaces_old(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "file.bin"
    write_atomically(path, lambda file: file.write(b"first, and long"))
    write_atomically(path, lambda file: file.write(b"second"))
    assert path.read_bytes() == b"second"
    assert names(path.parent) == ["file.bin"]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_an_interrupted_writer_leaves_the_old_content_and_no_litter(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")

    def write(file) -> None:
        file.write(b"half of the n")
        file.flush()
        raise error

    with pytest.raises(type(error)):
        write_atomically(path, write)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file.bin"]


def test_the_new_content_is_not_visible_before_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    seen = []

    def write(file) -> None:
        file.write(b"new")
        file.flush()
        seen.append(path.read_bytes())

    write_atomically(path, write)
    assert seen == [b"old"]
    assert path.read_bytes() == b"new"


def test_content_is_on_the_disk_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (order.append("fsync"), fsync(descriptor)))
    monkeypatch.setattr(os, "replace", lambda *paths: (order.append("replace"), replace(*paths)))
    write_atomically(tmp_path / "file.bin", lambda file: file.write(b"x"))
    assert order == ["fsync", "replace", "fsync"]  # the content, the name, the folder's entry


def test_others_may_read_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    write_atomically(path, lambda file: file.write(b"x"))
    assert path.stat().st_mode & 0o777 == 0o644


def test_json_keeps_order_and_ends_with_a_newline(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    content = {"b": [1, None, True], "a": {"accuracy": 61.25}}
    write_json(path, content)
    text = path.read_text(encoding="utf-8")
    assert text.endswith("}\n")
    assert list(json.loads(text)) == ["b", "a"]
    assert json.loads(text) == content


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_json_refuses_what_is_no_number_and_leaves_the_old_file(tmp_path: Path, value: float) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"loss": 1.0})
    before = path.read_bytes()
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"loss": value})
    assert path.read_bytes() == before
    assert names(tmp_path) == ["file.json"]
