"""What tests of whole runs need: runs cut into pieces, and whether two runs are the same to the last bit."""

from __future__ import annotations

import json
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


def assert_same_run(one: Path, other: Path) -> None:
    """All saved state, the series, the metrics and the number of steps are equal to the last bit."""
    (first, _), (second, _) = (read_newest_checkpoint(folder) for folder in (one, other))
    assert_equal(first["parts"], second["parts"])
    assert_equal(first["generators"], second["generators"])
    assert (one / "series.jsonl").read_text() == (other / "series.jsonl").read_text()
    records = [json.loads((folder / "record.json").read_text()) for folder in (one, other)]
    assert records[0]["metrics"] == records[1]["metrics"] and records[0]["steps"] == records[1]["steps"]


def assert_equal(one: Any, other: Any, path: str = "") -> None:
    """Nested states are equal, tensors bit by bit."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), path
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            assert_equal(one[key], other[key], f"{path}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), path
        for index, (left, right) in enumerate(zip(one, other, strict=True)):
            assert_equal(left, right, f"{path}[{index}]")
    else:
        assert one == other, path
