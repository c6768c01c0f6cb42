"""The checkpoint after each step, in the upstream layout.

Source: arthurdouillard/CVPR2021_PLOP@4b4a060 run.py `save_ckpt`: one file
`<folder>/<task>-<dataset>_<name>_<step>.pth` with epoch, model_state, optimizer_state, scheduler_state, best_score and
trainer_state. Keys of the model begin with "module.", as its wrapper for several processes writes them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.training.checkpoint import read_checkpoint
from common.training.errors import UserError
from common.training.files import write_atomically

WRAPPER = "module."


def checkpoint_path(folder: Path, task: str, dataset: str, name: str, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return folder / f"{task}-{dataset}_{name}_{step}.pth"


def write_step(
    path: Path,
    *,
    epoch: int,
    model: dict[str, Tensor],
    optimizer: dict[str, Any],
    scheduler: dict[str, Any],
    trainer: dict[str, Any],
    best_score: float = 0.0,
) -> None:
    """Write the checkpoint of a step, complete or not at all."""
    state = {
        "epoch": epoch,
        "model_state": {f"{WRAPPER}{key}": value for key, value in model.items()},
        "optimizer_state": optimizer,
        "scheduler_state": {key: value for key, value in scheduler.items() if not callable(value)},
        "best_score": best_score,
        "trainer_state": trainer,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: torch.save(state, file))


def read_step(path: Path) -> dict[str, Any]:
    """Read the checkpoint of a step; the model's keys come without "module.".

    Raises:
        UserError: if it is missing, damaged or of another kind.
    """
    state = read_checkpoint(path)
    if not isinstance(state, dict) or "model_state" not in state:
        raise UserError(f"{path} is no checkpoint of a step (it has no model_state)")
    return state | {"model_state": {key.removeprefix(WRAPPER): value for key, value in state["model_state"].items()}}
