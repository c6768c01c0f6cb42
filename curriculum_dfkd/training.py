"""What every training loop here shares: rates set per epoch, a test after every epoch, best weights, exact resume."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from common.metrics.streams import stream_statistics
from common.training.errors import UserError
from common.training.files import write_atomically
from common.training.precision import Precision
from common.training.run import Run
from curriculum_dfkd.evaluation import Evaluator

Rate = Callable[[int], float]
"""Epoch counted from 0 -> learning rate."""

BEST = "best_student.safetensors"
"""File of the weights with the best test accuracy, in the run's folder."""


def cosine_rate(lr: float, epochs: int) -> Rate:
    """Half a cosine from `lr` to 0 over the epochs."""
    return lambda epoch: lr * (1 + math.cos(math.pi * epoch / epochs)) / 2


def multistep_rate(lr: float, milestones: list[int], factor: float = 0.1) -> Rate:
    """`lr`, times `factor` from every milestone on."""
    return lambda epoch: lr * factor ** sum(epoch >= milestone for milestone in milestones)


def warm_cosine_rate(lr: float, epochs: int, warm_up: int) -> Rate:
    """Linear rise over `warm_up` epochs, then half a cosine to 0."""
    decay = cosine_rate(lr, max(1, epochs - warm_up))
    return lambda epoch: lr * (epoch + 1) / (warm_up + 1) if epoch < warm_up else decay(epoch - warm_up)


class Training:
    """Base of the loops.

    Args:
        model: learns, on its device.
        optimizer: of its weights.
        rate: epoch -> learning rate.
        epochs: in total.
        evaluator: of the test set.
        precision: number format.
        run: where steps are counted, logged and saved; the loop registers itself there.
        validation_interval: epochs between two tests; 0: only after the last one.
        teacher_sha256: of the teacher's weights; a run goes on with the same ones only. None: not compared.

    Attributes:
        epoch: epochs that are done.
        history: metric -> one value per test.
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, rate: Rate, epochs: int, evaluator: Evaluator,
        precision: Precision, run: Run, validation_interval: int = 1, *, teacher_sha256: str | None = None,
    ) -> None:
        self.model, self.optimizer, self.rate, self.epochs = model, optimizer, rate, epochs
        self.evaluator, self.precision, self.run = evaluator, precision, run
        self.validation_interval, self.teacher_sha256 = validation_interval, teacher_sha256
        self.epoch = 0
        self.history: dict[str, list[float]] = {}
        run.register("training", self)

    def fit(self) -> None:
        """Train for what is left of the epochs."""
        while self.epoch < self.epochs:
            self.set_rate()
            self.train_epoch()
            self.close_epoch()

    def train_epoch(self) -> None:
        """What is left of the current epoch."""
        raise NotImplementedError

    def set_rate(self) -> None:
        """Learning rate of the current epoch."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(self.epoch)

    def descend(self, loss: Tensor) -> None:
        """One optimiser step down the gradient of a loss."""
        self.optimizer.zero_grad()
        self.precision.backward(loss, [self.optimizer])
        self.precision.step(self.optimizer)
        self.precision.update()
        self.run.step += 1

    def close_epoch(self) -> None:
        """Test, log, keep the best weights, save."""
        where = {"task": 1, "epoch": self.epoch}
        self.run.log_value("lr", self.rate(self.epoch), **where)
        line = f"epoch {self.epoch + 1} of {self.epochs}"
        interval = self.validation_interval
        if self.epoch + 1 == self.epochs or (interval and (self.epoch + 1) % interval == 0):
            values = self.evaluator.test(self.model)
            is_best = values["acc1"] > max(self.history.get("acc1", []), default=-math.inf)  # the first of equals
            for name, value in values.items():
                self.history.setdefault(name, []).append(value)
                self.run.log_value(f"test/{name}", value, **where)
            line += "".join(f", {name} {value:.4g}" for name, value in values.items())
            if is_best:
                self.keep_best()
        self.run.note(f"{line}, {self.run.step} updates, {self.run.seconds():.0f} s")
        self.epoch += 1
        self.run.save()

    def keep_best(self) -> None:
        """Write the weights as the best ones so far."""
        state = {key: value.detach().cpu().contiguous() for key, value in self.model.state_dict().items()}
        content = safetensors.torch.save(state)
        write_atomically(self.run.folder / BEST, lambda file: file.write(content))

    def summary(self) -> dict[str, Any]:
        """Metrics for the record: last, best, mean and spread over the tests; percent unless named otherwise."""
        metrics: dict[str, Any] = stream_statistics(self.history.get("acc1", []))
        for name in ("agreement", "loyalty"):
            if name in self.history:
                metrics |= {name: self.history[name][-1], f"best_{name}": max(self.history[name])}
        if self.history:
            metrics["acc5"] = self.history["acc5"][-1]
        return metrics | {"acc_history": self.history.get("acc1", []), "epochs_done": self.epoch,
                          "student_updates": self.run.step}

    def state_dict(self) -> dict[str, Any]:
        """Everything that an exact resume needs."""
        return {
            "epoch": self.epoch,
            "history": {name: list(values) for name, values in self.history.items()},
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "precision": self.precision.state_dict(),
            "teacher_sha256": self.teacher_sha256,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state.

        Raises:
            UserError: if the run was begun with another teacher.
        """
        earlier = state.get("teacher_sha256")  # None in checkpoints from before it was saved
        if None not in (earlier, self.teacher_sha256) and earlier != self.teacher_sha256:
            raise UserError(
                f"{self.run.folder} was begun with another teacher (sha256: expected {earlier[:12]}, found "
                f"{self.teacher_sha256[:12]}); restore its weights, or give another --output_dir or --resume never"
            )
        self.epoch, self.history = state["epoch"], state["history"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.precision.load_state_dict(state["precision"])
