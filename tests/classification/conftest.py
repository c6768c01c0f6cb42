"""Fixtures of several test modules."""

from __future__ import annotations

import pytest
import torch

from classification.vdfd import vdfd_learner
from common.continual.compression import draw_start


@pytest.fixture
def equal_draws(monkeypatch):
    """Starts of the factors that neither depend on which parameters came before nor move the global generator.

    Without this a flag that adds parameters changes a run by shifting its random numbers alone.
    """

    def draw(matrix: torch.Tensor, rank: int) -> torch.Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return draw_start(matrix, rank)

    monkeypatch.setattr(vdfd_learner, "draw_start", draw)
