"""The teacher's weights: found, read, and compared with what is known of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import nn

from common.training.checkpoint import load_weights, read_checkpoint
from common.training.errors import UserError

SUFFIXES = ("", ".safetensors", ".pth", ".pt")

TOLERANCE = 0.3
"""Percentage points by which a teacher's measured accuracy may fall short of its card."""


@dataclass(frozen=True)
class Teacher:
    """Weights that were found.

    Attributes:
        path: of the file.
        sha256: of its content.
        card: of the JSON file of the same name beside it; None without one. Its keys "accuracy" (percent),
            "test_sha256" (content of the test images) and "sha256" are looked at.
    """

    path: Path
    sha256: str
    card: dict[str, Any] | None


def find_teacher(folder: str, name: str) -> Path:
    """File `name` in `folder`, with one of the known suffixes.

    Raises:
        UserError: if there is none.
    """
    for suffix in SUFFIXES:
        path = Path(folder) / f"{name}{suffix}"
        if path.is_file():
            return path
    raise UserError(
        f"no teacher {name} ({', '.join(suffix or 'no suffix' for suffix in SUFFIXES)}) in {folder}; put one there, or "
        "give --set teacher_dir=FOLDER --set teacher_name=NAME (and --set teacher=NETWORK)"
    )


def load_teacher(path: Path, network: nn.Module) -> Teacher:
    """Load weights into a network: a bare state dict, or one under the key "state_dict".

    Raises:
        UserError: for a damaged file, weights that do not fit, a card of other weights, or a whole pickled module (the
            form of the original's CIFAR-100 teacher), which could run any code when it is opened.
    """
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    load_weights(network, _read_state(path, content), str(path))
    card = _read_card(path.with_suffix(".json"))
    if card is not None and card.get("sha256", digest) != digest:
        raise UserError(f"{path} is not the file that its card describes; restore it, or remove the card")
    return Teacher(path, digest, card)


def compare_with_card(teacher: Teacher, measured: float, test_sha256: str) -> str:
    """A line for the log.

    Raises:
        UserError: if the teacher is more than `TOLERANCE` worse than its card says on the same images.
    """
    if teacher.card is None or "accuracy" not in teacher.card:
        return f"teacher: {measured:.2f} % measured; {teacher.path.name} has no card to compare with"
    stated = float(teacher.card["accuracy"])
    if teacher.card.get("test_sha256") != test_sha256:
        return f"teacher: {measured:.2f} % measured, on other test images than its card's {stated:.2f} %"
    if measured < stated - TOLERANCE:
        raise UserError(
            f"the teacher {teacher.path.name} reaches {measured:.2f} %, its card says {stated:.2f} % (at most "
            f"{TOLERANCE} less is accepted); check data and weights"
        )
    return f"teacher: {measured:.2f} % measured, {stated:.2f} % on its card"


def _read_card(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not a teacher's card ({error})") from error
    return card if isinstance(card, dict) else None


def _read_state(path: Path, content: bytes) -> Any:
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load(content)
        except SafetensorError as error:
            raise UserError(f"cannot read {path}: {error}") from error
    try:
        state = read_checkpoint(path)
    except UserError as error:
        hint = "a pickled module has to be turned into its state dict where its classes are known"
        raise UserError(f"{error} ({hint})") from error
    state = state.get("state_dict", state) if isinstance(state, Mapping) else state
    if isinstance(state, Mapping):
        return {str(key).removeprefix("module."): value for key, value in state.items()}
    return state
