"""Several processes: parting of batches, one budget for all runs of a program."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from common.training.errors import RunStopped, UserError
from common.training.parallel import Processes, SharedRun
from tests.common.training.toy import CPU, ToyOptions

pytestmark = pytest.mark.unit


def parts_of(batch: int, count: int, monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    monkeypatch.setenv("WORLD_SIZE", str(count))
    parts = []
    for rank in range(count):
        monkeypatch.setenv("RANK", str(rank))
        (part,) = Processes().part(torch.arange(batch))
        parts.append(part)
    return parts


@pytest.mark.parametrize(("batch", "count"), [(5, 4), (6, 4), (9, 4), (10, 8), (33, 8), (64, 8), (4, 4), (7, 1)])
def test_every_process_gets_a_part_and_nothing_is_lost(batch: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = parts_of(batch, count, monkeypatch)
    assert torch.cat(parts).tolist() == list(range(batch))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(
    ("gpu_ids", "count", "expected"),
    [([0], 1, [[0]]), ([2, 3], 1, [[2]]), ([0], 3, [[0], [1], [2]]), ([-1], 2, [[-1], [-1]]), ([4, 2], 2, [[4], [2]])],
)
def test_every_process_has_a_device_of_its_own(
    gpu_ids: list[int], count: int, expected: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(count))
    found = []
    for rank in range(count):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        found.append(Processes().device_number(gpu_ids))
    assert found == expected


def test_fewer_devices_than_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UserError, match="--gpuid 0 1: 3 processes need a device each"):
        Processes().device_number([0, 1])


def test_a_batch_with_fewer_items_than_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="a batch of 3 cannot be parted among 4 processes"):
        parts_of(3, 4, monkeypatch)


class Lonely(Processes):
    """The first of two processes, whose other one always agrees."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 2

    def agree(self, flag: bool) -> bool:
        return flag

    def wait(self) -> None:
        pass


def test_the_time_budget_counts_from_the_begin_of_the_program(tmp_path: Path) -> None:
    config = ToyOptions(output_dir=str(tmp_path), time_budget=1000.0)
    about = {"method": "Toy", "paper": "toy", "device": CPU, "seed": 0, "quiet": True}
    with SharedRun(config, processes=Lonely(), folder=tmp_path, **about) as run:
        run.tick()
    with pytest.raises(RunStopped, match="time budget of 1000 s"):
        with SharedRun(config, processes=Lonely(), folder=tmp_path, begin=time.monotonic() - 2000, **about) as run:
            run.tick()
