"""Teachers: weights with a card beside them that says what they are and how good they were measured to be.

A teacher `<name>.safetensors` has its card in `<name>.json`. A run measures the teacher before it starts and refuses
one that falls short of its card.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from common.training.checkpoint import load_weights, read_checkpoint
from common.training.errors import UserError
from common.training.files import write_atomically, write_json

SHIPPED = Path(__file__).resolve().parents[1] / "teachers"
"""Small real teachers that come with the repository."""

SUFFIXES = ("", ".safetensors", ".pth", ".pt")
"""What may follow the name of a teacher, in the order of looking."""

TOLERANCE = 0.3
"""Percentage points by which a teacher's measured accuracy may fall short of its card."""


@dataclass(frozen=True)
class Card:
    """What is known of a teacher.

    Attributes:
        network, dataset, num_classes, in_channels: what it is.
        accuracy: test accuracy in percent, measured on the saved weights.
        test_images: number of images it was measured on.
        test_sha256: content hash of these.
        sha256: of the weights' file.
        parameters: number of them.
        recipe: all options that decide what its training computed.
        run_id: of the record of its training run.
    """

    network: str
    dataset: str
    num_classes: int
    in_channels: int
    accuracy: float
    test_images: int
    test_sha256: str
    sha256: str
    parameters: int
    recipe: dict[str, Any]
    run_id: str


@dataclass(frozen=True)
class Teacher:
    """Weights that were found, and their card if there is one."""

    path: Path
    sha256: str
    card: Card | None

    def describe(self) -> dict[str, Any]:
        """What a run's record says of it."""
        accuracy = None if self.card is None else self.card.accuracy
        about = {"teacher_file": self.path.name, "teacher_sha256": self.sha256, "teacher_card_accuracy": accuracy}
        recipe = None if self.card is None else self.card.recipe.get("recipe")
        return about if recipe is None else about | {"teacher_recipe": recipe}


def teacher_path(folder: Path, dataset: str, network: str) -> Path:
    """Where a teacher's weights belong."""
    return folder / f"{dataset}_{network}.safetensors"


def save_teacher(path: Path, model: nn.Module, **facts: Any) -> Card:
    """Write weights and card.

    Args:
        path: ends in .safetensors.
        model: the teacher.
        facts: the fields of `Card` except sha256 and parameters.
    """
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    content = safetensors.torch.save(state)
    write_atomically(path, lambda file: file.write(content))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    card = Card(**facts, sha256=hashlib.sha256(content).hexdigest(), parameters=parameters)
    write_json(path.with_suffix(".json"), asdict(card))
    return card


def find_teacher(name: str, folders: Iterable[Path], advice: str) -> Path:
    """The first file of that name, with one of `SUFFIXES`, in the first folder that has one.

    Args:
        name: of the file, with or without its suffix.
        folders: where to look.
        advice: what to do about a missing one, for the error line.

    Raises:
        UserError: if there is none.
    """
    folders = tuple(folders)
    for folder in folders:
        for suffix in SUFFIXES:
            path = folder / f"{name}{suffix}"
            if path.is_file():
                return path
    shipped = [path for suffix in SUFFIXES[1:] if (path := SHIPPED / f"{name}{suffix}").is_file()]
    hint = f"one of that name is shipped in {_from_here(SHIPPED)}; " if shipped else ""
    places = ", ".join(str(_from_here(folder)) for folder in folders)
    raise UserError(f"no teacher {name} (.safetensors, .pth, .pt) in {places}; {hint}{advice}")


def load_teacher(path: Path, network: nn.Module) -> Teacher:
    """Load weights into a network and read the card beside them.

    Args:
        path: .safetensors, or a state dict written by torch, bare or under "state_dict" as the originals write it.
        network: built for the data set.

    Raises:
        UserError: for a damaged file, weights that do not fit, a card that belongs to other weights, or a whole pickled
            module (the form of one released teacher), which could run any code when it is opened.
    """
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    load_weights(network, _read_state(path, content), str(path))
    card = read_card(path.with_suffix(".json"))
    if card is not None and card.sha256 != digest:
        raise UserError(f"{path} is not the file its card describes (sha256 {digest[:12]}, card {card.sha256[:12]}); "
                        "restore the file, or remove the card to use the weights without one")
    return Teacher(path, digest, card)


def read_card(path: Path) -> Card | None:
    """A card, or None where there is none.

    Raises:
        UserError: if it is damaged.
    """
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Card(**{field.name: content[field.name] for field in fields(Card)})
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a teacher's card ({error}); train the teacher again or remove it") from error


def check_accuracy(teacher: Teacher, measured: float, test_sha256: str) -> str:
    """Compare a teacher's measured accuracy with its card; returns a line for the log.

    Raises:
        UserError: if it is more than `TOLERANCE` below the card.
    """
    if teacher.card is None:
        return f"teacher: {measured:.2f} % measured; {teacher.path.name} has no card to compare with"
    if test_sha256 != teacher.card.test_sha256:
        stated = f"{teacher.card.accuracy:.2f} %"
        return f"teacher: {measured:.2f} % measured, on other test images than its card's {stated}"
    if measured < teacher.card.accuracy - TOLERANCE:
        raise UserError(
            f"the teacher {teacher.path.name} reaches {measured:.2f} %, its card says {teacher.card.accuracy:.2f} % "
            f"(at most {TOLERANCE} less is accepted); check the data and the weights, or train it again"
        )
    return f"teacher: {measured:.2f} % measured, {teacher.card.accuracy:.2f} % on its card"


def _read_state(path: Path, content: bytes) -> Mapping[str, Tensor]:
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


def _from_here(folder: Path) -> Path:
    """A folder as a user would type it, where it lies not far from the working directory."""
    here = Path.cwd()
    for base, prefix in ((here, Path()), (here.parent, Path(".."))):
        if folder.is_absolute() and folder.is_relative_to(base):
            return prefix / folder.relative_to(base)
    return folder
