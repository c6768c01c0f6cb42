"""Learners: plain fine-tuning, and the loop that every method of this paper shares.

One batch on its way: loader -> (rotations) -> network with the task's own head -> cross-entropy on the task's columns
-> + weight * penalty of the method -> backward -> optimiser steps -> schedules. A method is a subclass that says
what it prepares before a task, what it optimises, what it adds to the loss, and what it keeps afterwards.

Source: XiaorongLi-95/VDFD@2c0dfce agents/agent.py `train_task`, `train_model`, `validation` (MIT).
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from classification.vdfd.losses import local_cross_entropy
from classification.vdfd.optimization import (
    LaggedMultiStep,
    Schedule,
    clear_gradients,
    make_optimizer,
    parameter_groups,
)
from classification.vdfd.rotation import COPIES, rotate_four_ways
from classification.vdfd.setting import ClassIncremental, TaskIncremental
from common.backbones.heads import Backbone
from common.metrics.accuracy import RunningMean, count_correct
from common.training.graph import (
    StepGraph,
    is_capturable,
    load_optimizer_state,
    make_capturable,
    optimizer_state,
)
from common.training.journal import progress_bar
from common.training.precision import Precision, evaluating
from common.training.run import Run

Setting = TaskIncremental | ClassIncremental


class BatchSource(Protocol):
    """A loader of one task: iterating goes on where an interrupted pass stood, or starts a new one."""

    position: int
    dataset_size: int

    def __iter__(self) -> Any: ...

    def __len__(self) -> int: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class TaskData(Protocol):
    """Loaders of each task, counted from 1; images normalised, labels as the setting wants them."""

    def train_loader(self, task: int) -> BatchSource: ...

    def test_loader(self, task: int) -> BatchSource: ...


class FineTuning:
    """Train on one task after the other and do nothing about forgetting.

    Args:
        config: flags of the program (`OriginalOptions`, `MethodOptions`, and the setting's `gamma`, `temp`).
        model: backbone with its heads, on its device.
        setting: which head and columns each task uses.
        data: loaders of each task.
        run: where steps are counted, logged and saved; the learner registers itself there.
        reg_coef: weight of the method's penalty; unused here.

    Attributes:
        task: the task being learned or learned last, counted from 1; 0 before the first.
        epoch: epochs of that task that are done.
    """

    name = "fine-tuning"
    head_bias: ClassVar[bool] = False
    """Whether the method's heads have biases."""
    smoke_options: ClassVar[dict[str, Any]] = {}
    """What --smoke also changes, where the short form of every method would take more than a minute."""

    def __init__(
        self, config: Any, model: Backbone, setting: Setting, data: TaskData, run: Run, reg_coef: float = 0.0
    ) -> None:
        self.config, self.model, self.setting, self.data, self.run = config, model, setting, data, run
        self.reg_coef = reg_coef
        self.device = next(model.parameters()).device
        self.precision = Precision(config, self.device)
        self.epochs = config.schedule[-1]
        self.task = self.epoch = 0
        self.task_is_done = True
        self.loader: BatchSource
        self.optimizers: list[torch.optim.Optimizer] = []
        self.schedules: list[Schedule] = []
        self.step_graph = StepGraph(
            self.compute_step, self.device, enabled=False, guard=self._what_a_capture_fixes, note=run.note
        )
        self._modules = list(model.modules())
        self._reset_meters()
        run.register("learner", self)

    # --- the algorithm ------------------------------------------------------------------------------------------

    def fit_task(self, task: int) -> None:
        """Learn a task, or what is left of it after a resume."""
        if task != self.task:
            self.run.note(f"=== task {task} of {len(self.setting.sizes)} ===")
            self.start_task(task)
        while self.epoch < self.epochs:
            self.model.train()
            if self.loader.position == 0:
                self.log_rates()
            bar = progress_bar(self.loader, f"task {task} epoch {self.epoch}", len(self.loader), self.loader.position)
            for images, target in bar:
                self.train_step(images, target)
                self.run.tick()
            self.close_epoch()
        if not self.task_is_done:
            self.finish_task()
            self.task_is_done = True
            self.run.save()

    def train_step(self, images: Tensor, target: Tensor) -> Tensor:
        """One optimiser step, its schedules and its log; returns the loss, a () tensor that the next step may reuse."""
        outputs = self.step_graph(images, target)
        for schedule in reversed(self.schedules):
            schedule.step(self.epoch)

        self.run.step += 1
        terms = {name: value for name, value in outputs.items() if name != "correct"}
        self.run.log(task=self.task, epoch=self.epoch, **terms)
        count = len(target) * self.setting.copies
        self.loss_meter.add(outputs["loss"], count)
        if "reg" in outputs:
            self.penalty_meter.add(outputs["reg"], count)
        self.accuracy_meter.add_sum(100 * outputs["correct"], count)
        return outputs["loss"]

    def compute_step(self, images: Tensor, target: Tensor) -> dict[str, Tensor]:
        """The arithmetic of a step: tensors only, no waiting for the device, so that --fast can capture it.

        Returns:
            () tensors: the terms of the loss and the number of correct predictions.
        """
        if self.setting.copies == COPIES:
            images, target = rotate_four_ways(images, target)
        with self.precision.autocast():
            logits = self.training_logits(images, target)
        terms = {"ce": self.classification_loss(logits.float(), target)}
        loss = terms["ce"]
        penalty = self.penalty()
        if penalty is not None:
            loss = loss + self.reg_coef * penalty
            terms["reg"] = penalty
        terms["loss"] = loss

        clear_gradients(*self.optimizers)
        self.precision.backward(loss, self.optimizers)
        for optimizer in reversed(self.optimizers):
            self.precision.step(optimizer)  # the hypermodel's before the network's, as released
        self.precision.update()
        terms["correct"] = count_correct(logits, target)
        return {name: value.detach() for name, value in terms.items()}

    def evaluate(self, task: int, seen: int) -> float:
        """Test accuracy on one task after `seen` tasks, percent."""
        head, columns = self.setting.evaluation(task, seen)
        meter = RunningMean(self.device)
        with evaluating(self.model):
            for images, target in self.data.test_loader(task):
                with self.precision.autocast():
                    logits = self.model.last[head](self.model.embed(images))
                meter.add_sum(100 * count_correct(logits[:, columns], target), len(target))
        return meter.value()

    # --- what a method adds -------------------------------------------------------------------------------------

    def start_task(self, task: int) -> None:
        """Open a task: its loader, optimisers and schedules."""
        self.task, self.epoch, self.task_is_done = task, 0, False
        self.loader = self.data.train_loader(task)  # rng: takes the loader's seed
        self.make_optimizers()
        self.prepare_steps()
        self._reset_meters()

    def prepare_steps(self) -> None:
        """Once new optimisers exist: precision, and with --fast what a captured step needs of them."""
        self.precision.prepare(self.model, self.optimizers)
        self.step_graph.reset()
        if not self.config.fast or self.config.eager:
            return
        obstacle = self._obstacle()
        self.step_graph.enabled = obstacle is None
        if obstacle is None:
            for optimizer in self.optimizers:
                make_capturable(optimizer)
        else:
            self.run.note(f"--fast: steps of task {self.task} are not captured as a CUDA graph ({obstacle})")

    def make_optimizers(self) -> None:
        """New optimisers for the current task; with --reset_model_opt given, the old one and the new head."""
        groups = self.network_groups()
        if self.config.reset_model_opt or not self.optimizers:
            network = self.make_network_optimizer(groups)
            self.optimizers = [network]
            self.schedules = [self.make_network_schedule(network)]
        else:
            self._add_head_group(groups[0])

    def network_groups(self) -> list[dict[str, Any]]:
        """What the network's optimiser moves: the heads in training first, then the backbone."""
        return parameter_groups(
            self.model,
            self.trained_heads(),
            head_lr=self.config.head_lr,
            model_lr=self.config.model_lr,
            head_weight_decay=self.config.head_weight_decay,
            model_weight_decay=self.config.model_weight_decay,
        )

    def trained_heads(self) -> list[str]:
        """Names of the heads that learn in the current task."""
        return [self.setting.view(self.task).head]

    def make_network_optimizer(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """The optimiser of the network."""
        return make_optimizer(self.config.model_optimizer, groups, self.config.momentum)

    def make_network_schedule(self, optimizer: torch.optim.Optimizer) -> Schedule:
        """The learning rates of the network."""
        return LaggedMultiStep(optimizer, self.config.schedule, self.config.gamma)

    def training_logits(self, images: Tensor, target: Tensor) -> Tensor:
        """(B, outputs) logits of a training batch; the target is one of the columns."""
        return self.model.last[self.setting.view(self.task).head](self.model.embed(images))

    def classification_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """() cross-entropy of a training batch."""
        return local_cross_entropy(logits, target, self.setting.view(self.task).loss_columns, self.config.temp)

    def penalty(self) -> Tensor | None:
        """Added to the loss with weight `reg_coef`; None: nothing."""
        return None

    def finish_task(self) -> None:
        """Keep what later tasks need of this one."""

    # --- bookkeeping --------------------------------------------------------------------------------------------

    def log_rates(self, suffix: str = "") -> None:
        """Log the rates in force; at the beginning of an epoch (where the original prints them) without suffix."""
        rates = self.schedules[0].rates()
        for name, value in (("lr/head", rates[0]), ("lr/backbone", rates[1])):
            self.run.log_value(name + suffix, value, task=self.task, epoch=self.epoch)

    def close_epoch(self) -> None:
        """Log the epoch, test on the current task, save."""
        where = {"task": self.task, "epoch": self.epoch}
        loss, accuracy = self.loss_meter.value(), self.accuracy_meter.value()
        values = {"train/epoch_loss": loss, "train/accuracy": accuracy}
        if self.penalty_meter.count:
            values["train/epoch_reg"] = self.penalty_meter.value()
        for name, value in values.items():
            self.run.log_value(name, value, **where)
        self.log_rates("_end")
        line = f"task {self.task} epoch {self.epoch}: loss {loss:.4f}, train accuracy {accuracy:.2f} %"
        interval = self.config.validation_interval
        if interval and (self.epoch + 1) % interval == 0:
            validation = self.evaluate(self.task, self.task)
            self.run.log_value("val/accuracy", validation, **where)
            line += f", test accuracy {validation:.2f} %"
        self.run.note(f"{line}, {self.run.seconds():.0f} s")
        self.epoch += 1
        self._reset_meters()
        self.run.save()

    def state_dict(self) -> dict[str, Any]:
        """Everything that an exact resume needs."""
        state: dict[str, Any] = {
            "task": self.task,
            "epoch": self.epoch,
            "task_is_done": self.task_is_done,
            "model": self.model.state_dict(),
            "precision": self.precision.state_dict(),
        }
        if self.task:
            state |= {
                "loader": self.loader.state_dict(),
                "optimizers": [optimizer_state(optimizer) for optimizer in self.optimizers],
                "schedules": [schedule.state_dict() for schedule in self.schedules],
                "loss_meter": self.loss_meter.state_dict(),
                "penalty_meter": self.penalty_meter.state_dict(),
                "accuracy_meter": self.accuracy_meter.state_dict(),
            }
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Stand where a saved learner stood, inside an epoch if need be."""
        self.model.load_state_dict(state["model"])
        if state["task"]:
            self.optimizers, self.schedules = [], []
            first = state["task"] if self.config.reset_model_opt else 1
            for task in range(first, state["task"] + 1):
                self.task = task
                self.make_optimizers()
            self.prepare_steps()
            self.precision.load_state_dict(state["precision"])
            self.loader = self.data.train_loader(self.task)
            self.loader.load_state_dict(state["loader"])
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                load_optimizer_state(optimizer, saved)
            for part, saved in zip(self.schedules, state["schedules"], strict=True):
                part.load_state_dict(saved)
            self.loss_meter.load_state_dict(state["loss_meter"])
            self.penalty_meter.load_state_dict(state["penalty_meter"])
            self.accuracy_meter.load_state_dict(state["accuracy_meter"])
        self.task, self.epoch, self.task_is_done = state["task"], state["epoch"], state["task_is_done"]

    def _obstacle(self) -> str | None:
        """Why the step cannot be captured; None if it can."""
        if not self.precision.is_capturable:
            return "loss scaling decides on the host which steps to skip"
        others = [type(optimizer).__name__ for optimizer in self.optimizers if not is_capturable(optimizer)]
        return f"{others[0]} computes on the host" if others else None

    def _what_a_capture_fixes(self) -> Hashable:
        """Addresses of what learns and whether it does, and the mode of every module."""
        parameters = [p for optimizer in self.optimizers for group in optimizer.param_groups for p in group["params"]]
        return (
            tuple(map(id, self.optimizers)),
            tuple((parameter.data_ptr(), parameter.requires_grad) for parameter in parameters),
            tuple(module.training for module in self._modules),
        )

    def _add_head_group(self, group: dict[str, Any]) -> None:
        optimizer, schedule = self.optimizers[0], self.schedules[0]
        known = {id(parameter) for g in optimizer.param_groups for parameter in g["params"]}
        new = [parameter for parameter in group["params"] if id(parameter) not in known]
        if new:
            optimizer.add_param_group({"params": new, "lr": group["lr"], "weight_decay": group["weight_decay"]})
            schedule.base_rates.append(group["lr"])

    def _reset_meters(self) -> None:
        self.loss_meter, self.accuracy_meter = RunningMean(self.device), RunningMean(self.device)
        self.penalty_meter = RunningMean(self.device)
