"""The loop of data-free distillation, the same for every method.

One round: a call of the synthesiser (it makes or improves images for the current student), then student steps on what
it offers. Methods differ in the synthesiser and in the student's objective.

Source: ljrprocc/DataFree@bf3096b and zju-vipa/CMI@9e79fa9 datafree_kd.py `main_worker`, `train`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from common.backbones.classifier import StagedClassifier
from common.training.journal import progress_bar
from curriculum_dfkd.objectives import Terms
from curriculum_dfkd.synthesis.base import Report, Synthesiser
from curriculum_dfkd.training import Training

Objective = Callable[[Tensor, Tensor], Terms]


@dataclass
class StudentReport:
    """What one student step did; tensors on the device, detached.

    Attributes:
        terms: of the loss.
        images: (B, C, H, W) normalised.
        student, teacher: (B, K) logits.
    """

    terms: Terms
    images: Tensor
    student: Tensor
    teacher: Tensor


class DataFreeDistillation(Training):
    """Trains a student on synthetic images only.

    Args:
        teacher: in evaluation mode, without gradients for its weights.
        synthesiser: where images come from.
        objective: what the student minimises.
        rounds: per epoch.
        student_steps: per round.
        on_epoch: called at the end of every epoch with the loop, e.g. to write an image grid.
        Others: see `Training`.
    """

    def __init__(
        self, *args: Any, teacher: StagedClassifier, synthesiser: Synthesiser, objective: Any, rounds: int,
        student_steps: int, on_epoch: Callable[[DataFreeDistillation], None] | None = None, **keywords: Any,
    ) -> None:
        super().__init__(*args, **keywords)
        self.teacher, self.synthesiser, self.objective = teacher, synthesiser, objective
        self.rounds, self.student_steps, self.on_epoch = rounds, student_steps, on_epoch
        self.round = 0
        self._open_round()

    # --- the algorithm ------------------------------------------------------------------------------------------

    def train_epoch(self) -> None:
        """Rounds of synthesis and distillation, from where the epoch stands."""
        for _ in progress_bar(range(self.round, self.rounds), f"epoch {self.epoch + 1}", self.rounds, self.round):
            self.synthesise()
            self.distil()
            self.round += 1
            self._open_round()

    def synthesise(self) -> None:
        """One call of the synthesiser, or what is left of it."""
        if self.call_is_done:
            return
        if self.synthesis_steps == 0:
            self.synthesiser.begin()
        while self.synthesis_steps < self.synthesiser.steps:
            self.log_synthesis(self.synthesiser.step())
            self.synthesis_steps += 1
            self.run.tick()
        self.synthesiser.finish()
        self.call_is_done = True

    def distil(self) -> None:
        """Student steps on what the synthesiser offers now, or those that are left."""
        while self.steps_done < self.student_steps:
            self.student_step()
            self.steps_done += 1
            self.run.tick()

    def student_step(self) -> StudentReport:
        """One student update."""
        images = self.synthesiser.training_images()
        self.model.train()
        with self.precision.autocast():
            with torch.no_grad():
                wanted = self.teacher(images)
            logits = self.model(images)
        logits, wanted = logits.float(), wanted.float()
        terms = self.objective(logits, wanted)
        self.descend(terms["loss"])
        self.run.log(task=1, epoch=self.epoch, **terms)
        return StudentReport({name: value.detach() for name, value in terms.items()}, images, logits.detach(), wanted)

    # --- bookkeeping --------------------------------------------------------------------------------------------

    def log_synthesis(self, report: Report) -> None:
        """Note the terms of a call's last step, and the sum of the call's losses so that none passes unexamined."""
        loss = report.terms["loss"]
        self.call_loss = loss if self.call_loss is None else self.call_loss + loss
        if self.synthesis_steps + 1 == self.synthesiser.steps:
            terms = {f"synthesis_{name}": value for name, value in report.terms.items()}
            mean = self.call_loss / self.synthesiser.steps
            self.run.log(task=1, epoch=self.epoch, **terms, synthesis_loss_of_call=mean)

    def close_epoch(self) -> None:
        """As every loop, and let the synthesiser and the grid writer follow."""
        self.synthesiser.close_epoch(self.epoch + 1)
        if self.on_epoch is not None:
            self.on_epoch(self)
        self.round = 0
        super().close_epoch()

    def _open_round(self) -> None:
        self.synthesis_steps = self.steps_done = 0
        self.call_is_done = False
        self.call_loss: Tensor | None = None

    def state_dict(self) -> dict[str, Any]:
        """Everything that an exact resume needs, inside a round too."""
        return super().state_dict() | {
            "synthesiser": self.synthesiser.state_dict(),
            "objective": self.objective.state_dict(),
            "place": [self.round, self.synthesis_steps, self.steps_done, self.call_is_done],
            "call_loss": self.call_loss,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        super().load_state_dict(state)
        self.synthesiser.load_state_dict(state["synthesiser"])
        self.objective.load_state_dict(state["objective"])
        self.round, self.synthesis_steps, self.steps_done, self.call_is_done = state["place"]
        loss = state["call_loss"]
        self.call_loss = None if loss is None else loss.to(next(self.model.parameters()).device)
