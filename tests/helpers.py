"""What tests of several packages need."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from common.training.checkpoint import read_newest_checkpoint

REPOSITORY = Path(__file__).resolve().parents[1]


def shared_archive(name: str) -> Path:
    """A big data archive beside the repository (`../shared/data/<name>`); skips the test where there is none."""
    path = REPOSITORY.parent / "shared" / "data" / name
    if not path.is_file():
        pytest.skip(f"{name} is not at ../shared/data; this test compares with the real archive")
    return path


def assert_equal(one: Any, other: Any, path: str = "") -> None:
    """Nested states are equal, tensors bit by bit (NaN equals NaN)."""
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype and one.shape == other.shape, path
        assert ((one == other) | ((one != one) & (other != other))).all(), path
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


def assert_same_run(one: Path, other: Path) -> None:
    """All saved state, the series, the metrics and the number of steps are equal to the last bit."""
    (first, _), (second, _) = (read_newest_checkpoint(folder) for folder in (one, other))
    assert_equal(first["parts"], second["parts"])
    assert_equal(first["generators"], second["generators"])
    assert (one / "series.jsonl").read_text() == (other / "series.jsonl").read_text()
    records = [json.loads((folder / "record.json").read_text()) for folder in (one, other)]
    assert records[0]["metrics"] == records[1]["metrics"] and records[0]["steps"] == records[1]["steps"]


def wait_for_saves(process: subprocess.Popen, folder: Path, saves: int) -> None:
    """Return once a running program has written `saves` checkpoints into its folder, or has ended."""
    last = None
    while saves and process.poll() is None:
        try:
            stamp = (folder / "checkpoint.pt").stat().st_mtime_ns
        except FileNotFoundError:  # before the first save, or between the two renames of a save
            stamp = last
        saves -= stamp != last
        last = stamp
        time.sleep(0.0005)
