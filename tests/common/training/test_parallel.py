"""Parting of batches among processes."""

from __future__ import annotations

import pytest
import torch

from common.training.errors import UserError
from common.training.parallel import Processes

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


def test_a_batch_with_fewer_items_than_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="a batch of 3 cannot be parted among 4 processes"):
        parts_of(3, 4, monkeypatch)
