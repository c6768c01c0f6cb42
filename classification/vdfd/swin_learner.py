"""VDFD on a Swin transformer: matrices keep their whole gradient, learning rates warm up and follow a cosine.

Source: XiaorongLi-95/VDFD@2c0dfce task_incremental/agents/vdfd_swin.py (MIT).
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from classification.vdfd.optimization import Schedule, WarmupCosine
from classification.vdfd.vdfd_learner import VDFD
from common.continual.summary import WHOLE_MATRICES


class VDFDSwin(VDFD):
    """VDFD with one rank-q factorisation per output row of every matrix, and the Swin recipe.

    What is stored of a task exceeds the backbone itself (D20); the log says so after every task.

    Attributes:
        updates_per_epoch: mini-batches of the first task; the schedule of every task counts with them.
    """

    name = "VDFDSwin"
    summary = WHOLE_MATRICES
    smoke_options: ClassVar[dict[str, Any]] = {"images_per_class": 1}

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.updates_per_epoch = 0

    def start_task(self, task: int) -> None:
        """Also restarts the clock of the learning rates."""
        super().start_task(task)
        self.schedules[0].restart()

    def make_network_schedule(self, optimizer: torch.optim.Optimizer) -> Schedule:
        """Warm-up and cosine over the updates of one task."""
        if not self.updates_per_epoch:
            self.updates_per_epoch = len(self.loader)
        return WarmupCosine(
            optimizer,
            self.epochs * self.updates_per_epoch,
            self.config.warmup_epochs * self.updates_per_epoch,
            self.config.min_lr,
            self.config.warmup_lr,
        )

    def state_dict(self) -> dict[str, Any]:
        """Also the number of updates that an epoch of the first task had."""
        return super().state_dict() | {"updates_per_epoch": self.updates_per_epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Stand where a saved learner stood."""
        self.updates_per_epoch = state["updates_per_epoch"]  # first: the schedules are built from it
        super().load_state_dict(state)
