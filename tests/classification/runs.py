"""What tests of whole runs need: runs cut into pieces, and whether two runs are the same to the last bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from common.training.checkpoint import read_newest_checkpoint
from common.training.errors import RunStopped

MOST_PIECES = 80


def run_in_pieces(main: Callable[[list[str]], Any], argv: list[str]) -> int:
    """Run until it finishes, stopping at every opportunity; returns how often it stopped."""
    for stops in range(MOST_PIECES):
        try:
            main([*argv, "--time_budget", "0"])
        except RunStopped:
            continue
        return stops
    raise AssertionError(f"not finished after {MOST_PIECES} pieces")


def learner_state(folder: Path) -> dict[str, Any]:
    """The learner's part of a run's newest checkpoint."""
    state, problems = read_newest_checkpoint(folder)
    assert not problems
    return state["parts"]["learner"]


def model_state(folder: Path) -> dict[str, torch.Tensor]:
    """Final weights and buffers of a run."""
    return learner_state(folder)["model"]


def differs(one: Path, other: Path) -> bool:
    """Whether the final weights of two runs of the same network differ."""
    first, second = model_state(one), model_state(other)
    return any(not torch.equal(first[key], second[key]) for key in first)
