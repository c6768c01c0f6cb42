"""Checkpoints: one file, written atomically, the one before it kept, and loaded without running any code in it."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from common.training.errors import UserError
from common.training.files import sync_folder, write_atomically

NEWEST = "checkpoint.pt"
PREVIOUS = "checkpoint.previous.pt"


def save_checkpoint(folder: Path, state: Mapping[str, Any]) -> Path:
    """Write the newest checkpoint of a run; the one that was newest becomes the previous one.

    At every moment the folder holds at least one complete checkpoint (once the first was written): the new file
    is complete on the disk before the old one is renamed.
    """
    newest, previous, incoming = folder / NEWEST, folder / PREVIOUS, folder / f"{NEWEST}.incoming"
    write_atomically(incoming, lambda file: torch.save(dict(state), file))
    if newest.exists():
        os.replace(newest, previous)
    os.replace(incoming, newest)
    sync_folder(folder)
    return newest


def read_checkpoint(path: Path, map_location: torch.device | str = "cpu") -> Any:
    """Read one checkpoint file with `weights_only=True`.

    Raises:
        UserError: if the file is missing, damaged, or holds anything but tensors and plain values.
    """
    if not path.is_file():
        raise UserError(f"no checkpoint file at {path}")
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # damaged bytes make the unpickler raise nearly anything, IndexError included
        reason = str(error).strip().splitlines()
        raise UserError(f"cannot read checkpoint {path}: {reason[0] if reason else type(error).__name__}") from error


def has_checkpoint(folder: Path) -> bool:
    """Whether a folder holds a checkpoint file, sound or not."""
    return any((folder / name).exists() for name in (NEWEST, f"{NEWEST}.incoming", PREVIOUS))


def read_newest_checkpoint(folder: Path, map_location: torch.device | str = "cpu") -> tuple[Any, list[str]]:
    """Read the newest sound checkpoint of a run.

    A damaged newest file is renamed out of the way, so that the next save does not push it over the sound one.

    Returns:
        The state, or None if the folder holds no checkpoint, and one line for every damaged file passed over.

    Raises:
        UserError: if there are checkpoint files and none of them can be read.
    """
    # A kill between the two renames of `save_checkpoint` leaves the complete new file under its incoming name.
    candidates = [folder / NEWEST, folder / f"{NEWEST}.incoming", folder / PREVIOUS]
    problems: list[str] = []
    damaged: list[Path] = []
    for path in candidates:
        if not path.exists():
            continue
        try:
            _check_sums(path)
            state = read_checkpoint(path, map_location)
        except UserError as error:
            problems.append(f"{error}; falling back to the checkpoint before it")
            damaged.append(path)
            continue
        for other in damaged:
            os.replace(other, other.with_name(f"{other.name}.damaged"))
        return state, problems
    if problems:
        raise UserError(
            f"every checkpoint in {folder} is damaged ({len(problems)} files); start over with --resume never"
        )
    return None, []


def remove_litter(folder: Path) -> None:
    """Delete what a kill during a write left behind; only for the holder of the folder's lock."""
    for leftover in folder.glob(f".{NEWEST}.incoming.*"):
        leftover.unlink(missing_ok=True)


def load_weights(module: nn.Module, state: Mapping[str, Any], source: str) -> None:
    """Load a state dict into a module, naming everything that does not match.

    Raises:
        UserError: if `state` is no state dict, or listing missing keys, unknown keys and shapes that differ; the module
            is left as it was.
    """
    if not isinstance(state, Mapping):
        raise UserError(f"{source} holds a {type(state).__name__}; expected a state dict (names and tensors)")
    own = module.state_dict()
    missing = [key for key in own if key not in state]
    unknown = [key for key in state if key not in own]
    differing = [
        f"{key} (expected {tuple(own[key].shape)}, found {_shape(state[key])})"
        for key in own
        if key in state and tuple(own[key].shape) != _shape(state[key])
    ]
    problems = {"missing": missing, "unknown": unknown, "of another shape": differing}
    found = "; ".join(
        f"{what}: {', '.join(map(str, keys[:5]))}{f' and {len(keys) - 5} more' if len(keys) > 5 else ''}"
        for what, keys in problems.items()
        if keys
    )
    if found:
        raise UserError(f"the weights in {source} do not fit this network: {found}")
    module.load_state_dict(state)


def _check_sums(path: Path) -> None:
    """Compare the stored check sums with the content, which `torch.load` does not do.

    Raises:
        UserError: naming the damaged entry.
    """
    try:
        if not zipfile.is_zipfile(path):
            return  # `read_checkpoint` will say what is wrong
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # as there
        raise UserError(f"cannot read checkpoint {path}: {error}") from error
    if damaged is not None:
        raise UserError(f"cannot read checkpoint {path}: the check sum of {damaged} is wrong")


def _shape(value: Any) -> tuple[int, ...] | str:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
