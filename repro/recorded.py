"""Recorded fixtures on disk: reading the manifest, and parting what an adapter may see from the answers."""

from __future__ import annotations

import copy
import json
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.parity import Fixture
from common.training.errors import UserError

MANIFEST = "manifest.json"
VISIBLE_PREFIXES = {"in.": "inputs", "param.": "params"}
_NUMBER = (int, float)
_ENTRY_KEYS = {"id": str, "file": str, "args": dict, "inputs": list, "outputs": list, "rtol": _NUMBER, "atol": _NUMBER}


class MalformedFixture(ValueError):
    """The recording's file and its manifest entry contradict each other."""


@dataclass(frozen=True)
class Entry:
    """One entry of a manifest.

    Attributes:
        id: name of the fixture.
        path: the .npz file.
        args: arguments as recorded, answers included.
        inputs, outputs: names of tensors in the file.
        rtol, atol: |a - b| <= atol + rtol * |b| must hold for every element b of the recording.
    """

    id: str
    path: Path
    args: dict[str, Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    rtol: float
    atol: float


@dataclass
class Recording:
    """A fixture, split.

    Attributes:
        fixture: what an adapter sees.
        tensors: recorded outputs by name.
        args: recorded arguments that are answers ("args.<key>"), as JSON values.
    """

    fixture: Fixture
    tensors: dict[str, Tensor]
    args: dict[str, Any] = field(default_factory=dict)


def find_folders(folder: Path) -> list[Path]:
    """The folder itself if it holds a manifest, else its sub-folders that do.

    Raises:
        UserError: if there is none.
    """
    if (folder / MANIFEST).is_file():
        return [folder]
    found = sorted(path.parent for path in folder.glob(f"*/{MANIFEST}"))
    if not found:
        raise UserError(f"{folder}: no {MANIFEST} in it or one folder below; give a folder of recorded fixtures")
    return found


def read_manifest(folder: Path) -> list[Entry]:
    """The entries of a folder's manifest, in its order.

    Raises:
        UserError: if the manifest is unreadable, an entry lacks a key, or an id occurs twice.
    """
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable manifest ({error})") from error
    if not isinstance(content, list):
        raise UserError(f"{path}: expected a list of fixtures")
    entries: dict[str, Entry] = {}
    for item in content:
        if not isinstance(item, dict):
            raise UserError(f"{path}: {str(item)[:40]!r} is no entry; expected objects")
        missing = [key for key in _ENTRY_KEYS if key not in item]
        if missing:
            raise UserError(f"{path}: entry {item.get('id', '?')!r} lacks {', '.join(missing)}")
        wrong = [key for key, types in _ENTRY_KEYS.items() if not isinstance(item[key], types)]
        if wrong:
            raise UserError(f"{path}: entry {item['id']!r}: {wrong[0]} is {str(item[wrong[0]])[:40]!r}; wrong type")
        if item["id"] in entries:
            raise UserError(f"{path}: fixture {item['id']!r} occurs twice")
        entries[item["id"]] = Entry(
            item["id"],
            folder / item["file"],
            item["args"],
            tuple(item["inputs"]),
            tuple(item["outputs"]),
            float(item["rtol"]),
            float(item["atol"]),
        )
    return list(entries.values())


def read_recording(entry: Entry, answers: Iterable[str], partly: Mapping[str, str]) -> Recording:
    """Read a fixture's file and separate the answers from what an adapter may see.

    Args:
        entry: of the manifest.
        answers: keys of `args` that were computed by the original; taken out.
        partly: answer key -> name of the field that is taken out of every item of that list, the rest of which
            stays visible (it is needed as an input).

    Raises:
        MalformedFixture: if a name of the manifest is missing from the file, or a name is none of input, parameter and
            output.
    """
    arrays = _read_arrays(entry)
    extra = sorted(name for name in arrays if name not in (*entry.inputs, *entry.outputs))
    visible: dict[str, dict[str, Tensor]] = {"inputs": {}, "params": {}}
    for name in (*entry.inputs, *extra):  # why: the manifest's order is the order of the original's state dict
        prefix = next((prefix for prefix in VISIBLE_PREFIXES if name.startswith(prefix)), None)
        if prefix is None or name in entry.outputs:
            raise MalformedFixture(f"{name!r} is neither an input (in.*), a parameter (param.*) nor a listed output")
        if name not in arrays:
            raise MalformedFixture(f"input {name!r} of the manifest is missing from {entry.path.name}")
        visible[VISIBLE_PREFIXES[prefix]][name[len(prefix) :]] = arrays[name]
    missing = sorted(set(entry.outputs) - set(arrays))
    if missing:
        raise MalformedFixture(f"output {missing[0]!r} of the manifest is missing from {entry.path.name}")
    args = copy.deepcopy(entry.args)
    hidden = {f"args.{key}": args.pop(key) for key in answers if key in args}
    for key, name in partly.items():
        if f"args.{key}" in hidden:
            args[key] = [{k: v for k, v in item.items() if k != name} for item in hidden[f"args.{key}"]]
    return Recording(Fixture(entry.id, args, **visible), {name: arrays[name] for name in entry.outputs}, hidden)


def _read_arrays(entry: Entry) -> dict[str, Tensor]:
    try:
        with np.load(entry.path, allow_pickle=False) as file:
            return {name: torch.from_numpy(np.array(file[name])) for name in file.files}
    except (OSError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise MalformedFixture(f"{entry.path.name} cannot be read: {error}") from error
