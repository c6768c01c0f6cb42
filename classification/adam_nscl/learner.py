"""Adam-NSCL: later tasks move convolutions in the null space of earlier inputs, and batch norms under a penalty.

A baseline of VDFD's tables. Data, splits, network, heads (here with biases) and the training loop are VDFD's; the
optimiser, what is kept of a task, and the penalty on the batch norms are its own.

Source: Wang et al., "Training Networks in Null Space of Feature Covariance for Continual Learning" (CVPR 2021);
ShipengWang/Adam-NSCL@a2f39b4 svd_agent/svd_based.py, svd_agent/svd_agent.py.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from classification.adam_nscl.optimizer import ProjectedAdam
from classification.adam_nscl.projection import (
    adding_second_moments,
    convolutions,
    null_space_basis,
    projection_onto,
)
from classification.vdfd.learner import FineTuning
from classification.vdfd.optimization import backbone_names, head_names, make_group
from common.training.errors import UserError
from common.training.journal import progress_bar

BATCH_NORM = "bn"
"""What the names of batch norm parameters contain."""


class AdamNSCL(FineTuning):
    """Adam in the null space of the feature covariances, elastic weight consolidation (EWC) on batch norms.

    Attributes:
        moments: convolution weight -> second moment of its inputs, summed over all finished tasks.
        projections: convolution weight -> projection of its updates; empty in the first task.
        ewc_importance, ewc_weights: of each finished task, (N,) stacked over batch norm parameters.
    """

    name = "Adam-NSCL"
    head_bias = True
    # why: the null spaces of the full network's 4608 inputs take minutes on a CPU
    smoke_options: ClassVar[dict[str, Any]] = {"widths": [16, 32, 64, 128]}

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        if self.config.model_optimizer != "Adam":
            found = self.config.model_optimizer
            raise UserError(f"Adam-NSCL is a form of Adam; expected --model_optimizer Adam, found {found}")
        if not self.config.reset_model_opt:
            raise UserError("Adam-NSCL starts every task with a new optimiser; leave out --reset_model_opt")
        if self.config.svd_thres < 1:
            raise UserError(f"--svd_thres {self.config.svd_thres:g} leaves no direction to move in; expected 1 or more")
        parameters = dict(self.model.named_parameters())
        self.convolutions = convolutions(self.model)
        self.batch_norms = {name: parameters[name] for name in backbone_names(self.model) if BATCH_NORM in name}
        others = [n for n in backbone_names(self.model) if n not in self.convolutions and n not in self.batch_norms]
        if others:
            raise UserError(
                f"Adam-NSCL knows convolutions and batch norms; {self.config.model_name} also has {others[0]}"
                f"{f' and {len(others) - 1} more' if len(others) > 1 else ''}; use --model_type resnet"
            )
        self.moments: dict[str, Tensor] = {}
        self.projections: dict[str, Tensor] = {}
        self.ewc_importance: list[Tensor] = []
        self.ewc_weights: list[Tensor] = []
        self._moments_are_done = False
        self._squares: Tensor | None = None

    # --- before and during a task -------------------------------------------------------------------------------

    def network_groups(self) -> list[dict[str, Any]]:
        """Head, convolutions (slower from the second task on), batch norms."""
        config, heads = self.config, head_names(self.model, self.trained_heads())
        rate = config.model_lr if self.task == 1 else config.svd_lr
        return [
            make_group(self.model, heads, config.head_lr, config.head_weight_decay),
            make_group(self.model, list(self.convolutions), rate, config.model_weight_decay),
            make_group(self.model, list(self.batch_norms), config.bn_lr, config.model_weight_decay),
        ]

    def make_network_optimizer(self, groups: list[dict[str, Any]]) -> ProjectedAdam:
        """Adam that projects the convolutions once a task is finished."""
        groups = [{key: value for key, value in group.items() if key != "names"} for group in groups]
        projections = {self.convolutions[name].weight: matrix for name, matrix in self.projections.items()}
        return ProjectedAdam(groups, projections)

    def train_step(self, images: Tensor, target: Tensor) -> Tensor:
        """One step; the learning rates of a milestone epoch hold from its first step on (the schedule goes first)."""
        self.schedules[0].step(self.epoch)
        return super().train_step(images, target)

    def penalty(self) -> Tensor | None:
        """EWC: sum over finished tasks of importance * (weights - weights at the end of that task)^2."""
        if not self.ewc_weights:
            return None
        distance = self._stacked_batch_norms() - torch.stack(self.ewc_weights)
        return (torch.stack(self.ewc_importance) * distance.square()).sum()

    # --- after a task -------------------------------------------------------------------------------------------

    def finish_task(self) -> None:
        """After every task but the last: two passes over its images, for the null space and for the importances."""
        tasks = len(self.setting.sizes)
        if self.task == min(tasks, self.config.max_tasks or tasks):
            return
        self.model.eval()
        if not self._moments_are_done:
            self.add_second_moments()
            self.projections = self.compute_projections()
            self._moments_are_done = True
        self.ewc_importance.append(self.measure_batch_norm_importance())
        self.ewc_weights.append(self._stacked_batch_norms().detach().clone())
        self._moments_are_done, self._squares = False, None

    def add_second_moments(self) -> None:
        """One pass over the training loader: this task's inputs of every convolution join those of earlier tasks."""
        with adding_second_moments(self.convolutions, self.moments):
            for images, _ in self._one_pass("second moments"):
                self.model.embed(images)
                self.run.tick()

    def compute_projections(self) -> dict[str, Tensor]:
        """Weight name -> projection onto the null space of its second moment."""
        projections, sizes = {}, []
        for name, moment in self.moments.items():
            basis = null_space_basis(moment, self.config.svd_thres)
            projections[name] = projection_onto(basis)
            sizes.append(f"{name.removesuffix('.weight')} {basis.shape[1]}/{basis.shape[0]}")
        self.run.note(f"null spaces: {', '.join(sizes)}")
        return projections

    def measure_batch_norm_importance(self) -> Tensor:
        """(N,) sum over mini-batches of squared gradients * batch size / number of mini-batches.

        The gradient is that of the mean cross-entropy on the network's own predictions, by the head of the task.
        """
        head, parameters = self.model.last[self.setting.view(self.task).head], list(self.batch_norms.values())
        if self._squares is None:
            self._squares = torch.zeros_like(self._stacked_batch_norms())
        for images, _ in self._one_pass("batch norm importance"):
            logits = head(self.model.embed(images))
            loss = F.cross_entropy(logits, logits.argmax(dim=1))
            gradient = torch.cat(torch.autograd.grad(loss, parameters))
            self._squares = self._squares + gradient.square() * (len(images) / len(self.loader))
            self.run.tick()
        return self._squares

    def _one_pass(self, what: str) -> Any:
        return progress_bar(self.loader, f"task {self.task} {what}", len(self.loader), self.loader.position)

    def _stacked_batch_norms(self) -> Tensor:
        return torch.cat(list(self.batch_norms.values()))

    # --- resume -------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Also what is kept of finished tasks, and the passes after a task as far as they got."""
        return super().state_dict() | {
            "moments": self.moments,
            "projections": self.projections,
            "ewc_importance": self.ewc_importance,
            "ewc_weights": self.ewc_weights,
            "moments_are_done": self._moments_are_done,
            "squares": self._squares,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Stand where a saved learner stood."""
        self.moments = {name: value.to(self.device) for name, value in state["moments"].items()}
        self.projections = {name: value.to(self.device) for name, value in state["projections"].items()}
        self.ewc_importance = [value.to(self.device) for value in state["ewc_importance"]]
        self.ewc_weights = [value.to(self.device) for value in state["ewc_weights"]]
        self._moments_are_done = state["moments_are_done"]
        self._squares = None if state["squares"] is None else state["squares"].to(self.device)
        super().load_state_dict(state)  # last: the optimiser is built with the projections
