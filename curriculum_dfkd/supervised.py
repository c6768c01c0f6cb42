"""Training on real images: from scratch (every teacher), or along a teacher (vanilla distillation)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from common.backbones.classifier import StagedClassifier
from common.training.journal import progress_bar
from curriculum_dfkd.data import EndlessBatches
from curriculum_dfkd.objectives import Terms
from curriculum_dfkd.training import Training


class SupervisedTraining(Training):
    """Epochs of labelled images.

    Source: ljrprocc/DataFree@bf3096b train_scratch.py and vanilla_kd.py `train`.

    Args:
        batches: training images, pass after pass.
        objective: (logits, target, teacher's logits or None, iteration) -> terms with the minimised "loss".
        teacher: None without distillation.
        updates: per epoch; None: one pass over the images.
        Others: see `Training`.
    """

    def __init__(
        self, *args: Any, batches: EndlessBatches, objective: Any, teacher: StagedClassifier | None = None,
        updates: int | None = None, **keywords: Any,
    ) -> None:
        super().__init__(*args, **keywords)
        self.batches, self.objective, self.teacher = batches, objective, teacher
        self.updates = len(batches) if updates is None else updates
        self.updates_done = 0

    def train_epoch(self) -> None:
        """Updates of the current epoch, from where it stands."""
        todo = range(self.updates_done, self.updates)
        for _ in progress_bar(todo, f"epoch {self.epoch + 1}", self.updates, self.updates_done):
            self.train_step(*self.batches.next())
            self.updates_done += 1
            self.run.tick()

    def close_epoch(self) -> None:
        """As every loop."""
        self.updates_done = 0
        super().close_epoch()

    def train_step(self, images: Tensor, target: Tensor) -> Terms:
        """One update; returns the terms of the loss."""
        self.model.train()
        with self.precision.autocast():
            logits = self.model(images)
            wanted = None
            if self.teacher is not None:
                with torch.no_grad():
                    wanted = self.teacher(images).float()
        terms = self.objective(logits.float(), target, wanted, self.run.step)
        self.descend(terms["loss"])
        self.run.log(task=1, epoch=self.epoch, **terms)
        return {name: value.detach() for name, value in terms.items()}

    def state_dict(self) -> dict[str, Any]:
        """Everything that an exact resume needs."""
        return super().state_dict() | {"batches": self.batches.state_dict(), "updates_done": self.updates_done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        super().load_state_dict(state)
        self.batches.load_state_dict(state["batches"])
        self.updates_done = state["updates_done"]
