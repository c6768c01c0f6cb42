"""VDFD: distil the old tasks through a linear functional of the weights, in a learned metric.

Source: VDFD supplement; XiaorongLi-95/VDFD@2c0dfce agents/vdfd.py, agents/vdfd_la.py (MIT).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from classification.vdfd.importance import class_gradients
from classification.vdfd.learner import FineTuning
from classification.vdfd.optimization import LaggedMultiStep, backbone_names, make_optimizer, used_names
from classification.vdfd.variant import Variant
from common.continual.compression import draw_start, low_rank_factors
from common.continual.hypermodel import HYPERMODELS, normalised_adjacency
from common.continual.memory import Basis, Memory
from common.continual.regulariser import (
    class_affinity,
    precision_matrices,
    prototypes_of,
    quadratic_regulariser,
    squared_distance,
)
from common.continual.summary import ROW_MEANS
from common.training.journal import progress_bar

SMALL_SIDE, SMALL_IMAGES = 64, 128
"""Images that the importance is measured on at once, up to this many pixels a side."""


@dataclass
class RegularisedTasks:
    """Constants of the regulariser during one task, for stored tasks with equally many classes.

    Attributes:
        basis: the factors, arranged for one product per step.
        gw_star: (T, C) stored functionals.
        prototypes: (T, C, F) unit classifier rows.
        adjacency: (T, C, C) normalised adjacency of each class graph.
    """

    basis: Basis
    gw_star: Tensor
    prototypes: Tensor
    adjacency: Tensor


class VDFD(FineTuning):
    """Fine-tuning plus the data-free distillation penalty.

    With the variant's precision "identity" the metric is the identity instead of the hypermodel's: the sum of squared
    distances, without log-determinant. The hypermodel is then drawn and re-drawn but neither used nor trained, so that
    both kinds of run draw the same random numbers.

    Args:
        variant: which of the method's variants (`resolve_variant`).

    Attributes:
        hypermodel: the graph network.
        memory: what is kept of finished tasks.
    """

    name = "VDFD"
    summary = ROW_MEANS
    """What is kept of a parameter's gradient."""

    def __init__(self, *arguments: Any, variant: Variant, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.variant = variant
        self.hypermodel = HYPERMODELS[variant.gcn](self.model.num_features).to(self.device)
        self.learns_precision = variant.precision_matrix == "gcn"
        names = used_names(self.model) if self.config.with_head else backbone_names(self.model)
        self.memory = Memory(self.model, names, self.summary)
        self.prototypes: list[Tensor] = []
        self.regularised: list[RegularisedTasks] = []
        self._importance: Tensor | None = None

    # --- before a task ------------------------------------------------------------------------------------------

    def start_task(self, task: int) -> None:
        """Also, from the second task on: prototypes of the old classes, and a freshly drawn hypermodel."""
        super().start_task(task)
        if self.memory.tasks:
            self.prototypes = [self.stored_prototypes(position) for position in range(len(self.memory.tasks))]
            self.hypermodel.reset()  # rng
            self.set_constants()

    def make_optimizers(self) -> None:
        """Also the hypermodel's optimiser, from the second task on."""
        super().make_optimizers()
        if self.learns_precision and self.task > 1 and (self.config.reset_model_opt or len(self.optimizers) == 1):
            group = {
                "params": list(self.hypermodel.parameters()),
                "lr": self.config.hypermodel_lr,
                "weight_decay": self.config.hypermodel_weight_decay,
            }
            optimizer = make_optimizer(self.config.hypermodel_optimizer, [group], self.config.momentum)
            self.optimizers.append(optimizer)
            self.schedules.append(LaggedMultiStep(optimizer, self.config.schedule))

    def stored_prototypes(self, position: int) -> Tensor:
        """(C, F) unit classifier rows of the stored task at this position, as they are now."""
        view = self.setting.view(position + 1)
        return prototypes_of(self.model.last[view.head].weight[view.class_columns])

    def set_constants(self) -> None:
        """Arrange what the regulariser needs, once per task."""
        stored = range(len(self.memory.tasks))
        chosen = stored if self.variant.reg_tasks == "sum" else stored[-1:]
        self.regularised = []
        self.step_graph.reset()
        for classes in dict.fromkeys(len(self.memory.tasks[position].gw_star) for position in chosen):
            alike = [position for position in chosen if len(self.memory.tasks[position].gw_star) == classes]
            basis, gw_star = self.memory.stacked(alike)
            prototypes = torch.stack([self.prototypes[position] for position in alike])
            adjacency = normalised_adjacency(class_affinity(prototypes))
            self.regularised.append(RegularisedTasks(basis, gw_star, prototypes, adjacency))

    # --- during a task ------------------------------------------------------------------------------------------

    def penalty(self) -> Tensor | None:
        """The regulariser at the current weights; None while nothing is stored."""
        if not self.memory.tasks:
            return None
        weights = self.memory.weights()
        scale = float(len(self.memory.tasks) ** 2) if self.variant.quad_scale == "tasks_squared" else 1.0
        terms = [self.penalty_of(stored, stored.basis.functional(weights), scale) for stored in self.regularised]
        return torch.stack(terms).sum()

    def penalty_of(self, stored: RegularisedTasks, gw: Tensor, scale: float) -> Tensor:
        """() regulariser of stored tasks whose functionals are now `gw`, (T, C)."""
        if not self.learns_precision:
            return squared_distance(gw, stored.gw_star, scale)
        term = quadratic_regulariser(
            gw.double(),
            stored.gw_star.double(),
            self.precision_of(stored),
            self.config.epsilons,
            quad_scale=scale,
            eps_in_quadratic=self.variant.precision_eps == "both",
        )
        return term.to(gw.dtype)

    def precision_of(self, stored: RegularisedTasks) -> Tensor:
        """(T, C, C) precision matrices of stored tasks.

        In double precision: prototypes may be almost collinear, and the gradient of the log-determinant magnifies
        what is rounded before. The matrices are small.
        """
        unit = self.variant.precision_rows == "unit"
        return precision_matrices(self.hypermodel, stored.adjacency, stored.prototypes, unit, torch.float64)

    # --- after a task -------------------------------------------------------------------------------------------

    def finish_task(self) -> None:
        """Measure the importance, compress it, and store it with the functional's value."""
        self.model.eval()
        self.step_graph.reset()  # its memory is needed here
        importance = self.measure_importance()
        shapes = self.memory.shapes()
        factors = {}
        for name, rows, shape in zip(self.memory.names, importance.split(_sizes(shapes)), shapes, strict=True):
            matrix = rows.unflatten(0, shape)
            rank = min(self.config.singular, *matrix.shape[-2:])
            factors[name] = low_rank_factors(matrix, rank, draw_start(matrix, rank))  # rng: parameter by parameter
        task = self.memory.add(factors)
        self._importance = None
        rank = max(factor.singular.shape[-1] for factor in factors.values())
        self.run.note(f"storage: {task.storage():,} numbers for task {self.task}, rank {rank}")
        if rank < self.config.singular:
            self.run.note(f"warning: --singular {self.config.singular}, but this task's gradients have rank {rank}")
        backbone = sum(parameter.numel() for parameter in self.memory.parameters)
        if task.storage() > backbone:
            self.run.note(f"warning: that is more than the {backbone:,} parameters they stand for (D20)")

    def measure_importance(self) -> Tensor:
        """(R, C) mean over the training mini-batches of the summarised class gradients, stacked over parameters.

        Goes over the (augmented, shuffled) training loader once; images are not rotated. R counts rows, or, of
        matrices that are kept whole, entries. fp16 is not used here: these gradients, small and without loss scaling,
        would vanish in it.
        """
        view, names = self.setting.view(self.task), self.memory.names
        total_batches = len(self.loader)
        loader = progress_bar(self.loader, f"task {self.task} importance", total_batches, self.loader.position)
        sizes = _sizes(self.memory.shapes())
        for images, weights in self._groups_of_batches(loader, total_batches):
            with self.precision.autocast() if self.precision.name == "bf16" else contextlib.nullcontext():
                gradients = class_gradients(
                    self.model, names, view.head, view.class_columns, images, weights, self.memory.summary
                )
            if self._importance is None:
                classes = gradients[names[0]].shape[-1]
                self._importance = images.new_zeros(sum(sizes), classes)
            for name, rows in zip(names, self._importance.split(sizes), strict=True):
                rows += gradients[name].flatten(0, -2)
            self.run.tick()
        assert self._importance is not None
        return self._importance

    def _groups_of_batches(self, loader: Any, total_batches: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Several mini-batches as one, every sample weighted 1 / (mini-batches * size of its own mini-batch)."""
        images: list[Tensor] = []
        weights: list[Tensor] = []
        for batch, _ in loader:
            images.append(batch)
            weights.append(batch.new_full((len(batch),), 1 / (total_batches * len(batch))))
            # why by size: the gradients of a class by all outputs of all layers lie in memory at once
            together = self.config.importance_batch or (SMALL_IMAGES if batch.shape[-1] <= SMALL_SIDE else len(batch))
            if sum(map(len, images)) >= together or self.loader.position == total_batches:
                yield torch.cat(images), torch.cat(weights)
                images, weights = [], []

    # --- resume -------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Also the hypermodel, the memory, the prototypes and an importance pass under way."""
        return super().state_dict() | {
            "hypermodel": self.hypermodel.state_dict(),
            "memory": self.memory.state_dict(),
            "prototypes": self.prototypes,
            "importance": self._importance,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Stand where a saved learner stood."""
        super().load_state_dict(state)
        self.hypermodel.load_state_dict(state["hypermodel"])
        self.memory.load_state_dict(state["memory"])
        self.prototypes = [prototype.to(self.device) for prototype in state["prototypes"]]
        importance = state["importance"]
        self._importance = None if importance is None else importance.to(self.device)
        if self.prototypes and not self.task_is_done:
            self.set_constants()


def _sizes(shapes: list[tuple[int, ...]]) -> list[int]:
    return [math.prod(shape) for shape in shapes]
