"""Where a learner stands in its sequence of tasks, and how it gets on: everything but the steps themselves.

Source: IRVLUTD/CDL@d980577 learners/default.py `learn_batch`, trainer.py; July 2024: learners at 908e314.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from common.metrics.accuracy import RunningMean
from common.training.errors import UserError
from common.training.parallel import Processes
from common.training.precision import Precision
from common.training.run import Run
from prompt_distill.distillation import NoDistillation
from prompt_distill.network import PromptedViT
from prompt_distill.schedule import epoch_rates, make_optimizer, set_rate

TEACHER, STUDENT, JOINT = "teacher", "student", "joint"


class TaskData(Protocol):
    """Loaders of each task, counted from 1, and the classes of each task."""

    tasks: list[list[int]]

    def train_loader(self, task: int) -> Any: ...

    def test_loader(self, task: int) -> Any: ...


class TaskState:
    """Where a learner stands: networks, optimisers, task, phase and epoch.

    Args:
        config: flags of the program.
        student: on its device; its backbone also makes the queries.
        teacher: on the same device; None where the method has none.
        distillation: method, on the same device.
        data: loaders of each task.
        run: where steps are counted, logged and saved; the learner registers itself there.
        student_rates: "schedule" or "constant".
        devices: virtual devices; see `PromptSetting.devices`.
        processes: the processes of this run.
        hashes: network -> SHA-256 of its backbone; a saved run goes on with the same backbones only.

    Attributes:
        task: the task being learned or learned last, counted from 1; 0 before the first.
        phase, epoch: phases of the task that are done, epochs of the current one that are done.
    """

    def __init__(
        self,
        config: Any,
        student: PromptedViT,
        teacher: PromptedViT | None,
        distillation: NoDistillation,
        data: TaskData,
        run: Run,
        *,
        student_rates: str = "schedule",
        devices: int = 1,
        processes: Processes | None = None,
        hashes: Mapping[str, str] | None = None,
    ) -> None:
        self.config, self.data, self.run = config, data, run
        self.student, self.teacher, self.distillation = student, teacher, distillation
        self.devices, self.processes = devices, processes or Processes()
        self.hashes = dict(hashes or {})
        self.device = student.last.weight.device
        self.precision = Precision(config, self.device)
        self.phases = [STUDENT] if teacher is None else [JOINT] if distillation.joint else [TEACHER, STUDENT]
        self.rates = epoch_rates(config.schedule_type, config.lr, config.schedule)
        self.student_rates = self.rates if student_rates == "schedule" else [config.lr] * len(self.rates)
        self.task = self.phase = self.epoch = 0
        self.task_is_done = True
        self._test_queries: dict[int, list[Tensor]] = {}
        self._reset_meters()
        run.register("learner", self)

    # --- tasks, phases, epochs ----------------------------------------------------------------------------------

    def start_task(self, task: int) -> None:
        """Open a task: its prompts, loader and optimisers."""
        self.task, self.phase, self.epoch, self.task_is_done = task, 0, 0, False
        self.loader = self.data.train_loader(task)  # rng: takes the loader's seed
        if task > 1:
            for network in self.networks():  # rng: the teacher's new components first
                network.prompt.next_task()
            self.distillation.next_task(task - 1)
        self.make_optimizers()
        self._reset_meters()

    def networks(self) -> list[PromptedViT]:
        """Teacher, where there is one, and student."""
        return [network for network in (self.teacher, self.student) if network is not None]

    def make_optimizers(self) -> None:
        """New ones for both networks: moments do not outlive a task."""
        recipe = (self.config.optimizer, self.config.lr, self.config.momentum, self.config.weight_decay)

        def make(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
            return make_optimizer(recipe[0], parameters, *recipe[1:])

        self.student_optimizer = make(self.student_parameters())
        self.teacher_optimizer = make(self.teacher.trainable()) if self.teacher is not None else None

    def student_parameters(self) -> list[nn.Parameter]:
        """Everything that the student's optimiser moves."""
        return [*self.student.trainable(), *self.distillation.trainable()]

    def set_rates(self) -> None:
        """Rates of the current epoch."""
        if self.teacher_optimizer is not None:
            set_rate(self.teacher_optimizer, self.rates[self.epoch])
        set_rate(self.student_optimizer, self.student_rates[self.epoch])

    def current_rate(self) -> float:
        """The rate that the original prints for the current epoch."""
        return (self.student_rates if self.phases[self.phase] == STUDENT else self.rates)[self.epoch]

    def close_epoch(self) -> None:
        """Log the epoch, save."""
        where = {"task": self.task, "epoch": self.epoch}
        self.run.log_value("lr/head", self.current_rate(), **where)
        line = f"Epoch:{self.epoch + 1}/{len(self.rates)} LR: {self.current_rate():g}"
        for name, (loss, accuracy) in self.meters.items():
            if loss.count:
                self.run.log_value(f"train/{name}_epoch_loss", loss.value(), **where)
                self.run.log_value(f"train/{name}_accuracy", accuracy.value(), **where)
                line += f" * {name} loss {loss.value():.3f} | Train Acc {accuracy.value():.3f}"
        self.run.note(line)
        self.epoch += 1
        self._reset_meters()
        self.run.save()

    def close_phase(self) -> None:
        """After the last epoch of a phase; APT merges after the student's."""
        is_last = self.phase == len(self.phases) - 1
        teacher_merges = self.phase == 0 if self.config.merge_before_student else is_last
        if self.teacher is not None and teacher_merges:
            self.teacher.prompt.finish_task()  # original: (D9) in the last phase, so it distils from a stale buffer
        if is_last:
            self.student.prompt.finish_task()
        self.phase, self.epoch = self.phase + 1, 0
        self.run.save()

    # --- resume -------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything that an exact resume needs; of the backbones, which never change, only what tells them apart."""
        state: dict[str, Any] = {
            "task": self.task,
            "phase": self.phase,
            "epoch": self.epoch,
            "task_is_done": self.task_is_done,
            "student": self.student.learned_state(),
            "teacher": None if self.teacher is None else self.teacher.learned_state(),
            "distillation": self.distillation.state_dict(),
            "precision": self.precision.state_dict(),
            "backbones": self.hashes,
        }
        if self.task:
            state |= {
                "loader": self.loader.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in self._optimizers()],
                "meters": {name: [meter.state_dict() for meter in pair] for name, pair in self.meters.items()},
            }
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Stand where a saved learner stood, inside an epoch if need be.

        Raises:
            UserError: if it had another distillation method or other backbones.
        """
        for name, saved in state.get("backbones", {}).items():  # runs saved by an earlier version have none
            if saved != self.hashes.get(name, saved):
                raise UserError(
                    f"the saved run had another backbone of the {name} (expected sha256 {saved[:12]}, found "
                    f"{self.hashes[name][:12]}); give the --weights that it began with, or another --output_dir"
                )
        for name, network in (("student", self.student), ("teacher", self.teacher)):
            if (state[name] is None) != (network is None):
                raise UserError("the saved run has another distillation method; give another --output_dir")
            if network is not None:
                network.load_learned_state(state[name])
                network.prompt.task = max(0, state["task"] - 1)
        self.distillation.task = max(0, state["task"] - 1)
        self.distillation.load_state_dict(state["distillation"])
        self.precision.load_state_dict(state["precision"])
        self.task, self.phase, self.epoch = state["task"], state["phase"], state["epoch"]
        self.task_is_done = state["task_is_done"]
        if not self.task:
            return
        self.loader = self.data.train_loader(self.task)
        self.loader.load_state_dict(state["loader"])
        self.make_optimizers()
        for optimizer, saved in zip(self._optimizers(), state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        for name, pair in self.meters.items():
            for meter, saved in zip(pair, state["meters"][name], strict=True):
                meter.load_state_dict(saved)

    # --- inside -------------------------------------------------------------------------------------------------

    @property
    def old(self) -> int:
        """Classes before the current task."""
        return sum(map(len, self.data.tasks[: self.task - 1]))

    @property
    def seen(self) -> int:
        """Classes including those of the current task."""
        return sum(map(len, self.data.tasks[: self.task]))

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        return [each for each in (self.teacher_optimizer, self.student_optimizer) if each is not None]

    def _reset_meters(self) -> None:
        self.meters = {name: (RunningMean(self.device), RunningMean(self.device)) for name in (TEACHER, STUDENT)}
