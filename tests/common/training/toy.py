"""A run in a folder, and a training loop small enough to compare bit by bit."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from common.training.options import RunOptions, machine_option
from common.training.run import Run

CPU = torch.device("cpu")
NEVER = 1e9


@dataclass(frozen=True)
class ToyOptions(RunOptions):
    """flags of the toy"""

    gpuid: list[int] = machine_option([-1])
    """device"""
    lr: float = 0.05
    """learning rate"""
    schedule: list[int] = field(default_factory=lambda: [5])
    """epochs"""
    seed: int = 0
    """seed"""


def open_run(folder: Path, **options: Any) -> Run:
    """A quiet run in a folder; every step is written to the series, and nothing is saved unless it is asked for."""
    options = {"checkpoint_interval": NEVER, "output_dir": str(folder)} | options
    config = ToyOptions(**options)
    return Run(config, method="Toy", paper="toy", device=CPU, seed=config.seed, write_every=1, quiet=True)


class Killed(Exception):
    """Stands for a process that ends in the middle of its work."""


class ToyTraining:
    """Noise in, zeros wanted: a network with batch norm and Adam, fed from all three global generators."""

    def __init__(self, run: Run) -> None:
        self.run, self.images = run, 0
        self.model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=run.config.lr)
        run.register("training", self)

    def step(self) -> None:
        """One optimiser step; Gaussians come in pairs from Python and NumPy, so that half a pair must survive too."""
        inputs = torch.randn(6, 4) * (1 + abs(random.gauss(0, 1))) + np.random.normal()
        loss = self.model(inputs).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.run.step += 1
        self.images += len(inputs)
        self.run.log(task=1, epoch=self.run.step // 10, loss=loss, spread=inputs.std())

    def state_dict(self) -> dict[str, Any]:
        """All of it."""
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "images": self.images}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.images = state["images"]
