"""Learners with outputs for all classes from the start: the original ABD and the baselines of its paper.

After each task but the last the network is frozen as the teacher and, where the method replays, the one generator is
trained on against it; its weights and its optimiser go on from task to task.

Source: GT-RIPL/AlwaysBeDreaming-DFCIL@9295039 learners/default.py, datafree.py, kd.py.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from common.backbones.heads import Backbone
from common.training.checkpoint import load_weights
from rfd.inversion import GenerativeInversion, Replay
from rfd.learning.base import SAVED, IncrementalLearner
from rfd.losses import (
    distillation_loss,
    multi_class_binary_loss,
    padded_probabilities,
    soft_cross_entropy,
    weighted_cross_entropy,
)
from rfd.networks import frozen

_MOMENTUM = 0.1
_TWICE = 1 - (1 - _MOMENTUM) ** 2
"""Momentum of a norm layer's statistics whose one update stands for two with the same batch."""


class FineTuning(IncrementalLearner):
    """Base: cross-entropy over the classes seen, on the images of the current task; nothing against forgetting.

    Args:
        make_network: builds a fresh network on the device. # rng: its weights
        make_generator: the same for the generator; called once, and only by methods that replay.
        batch_size: synthetic images per step.
        more: see `IncrementalLearner`.
    """

    name = "fine-tuning"
    replays = False
    """Whether the method trains a generator."""
    network: Backbone

    def __init__(
        self, *arguments: Any, make_network: Callable[[], Backbone], make_generator: Callable[[], nn.Module],
        batch_size: int, **more: Any,
    ) -> None:  # fmt: skip
        super().__init__(*arguments, **more)
        self.make_network, self.batch_size = make_network, batch_size
        self.taught = 0
        if self.replays:
            nothing_yet = frozen(copy.deepcopy(self.network))
            self.inversion = GenerativeInversion(
                make_generator(), nothing_yet, nothing_yet, self.recipe.inversion, self.precision
            )

    # --- a task -------------------------------------------------------------------------------------------------

    def start_task(self, task: int) -> None:
        """A new optimiser and the images of the task."""
        super().start_task(task)
        self.optimizer = self.make_optimizer(list(self.network.parameters()))
        self.loader = self.make_loader(task)  # rng: takes the loader's seed

    def make_loader(self, task: int) -> Any:
        """Batches of the task's own images."""
        return self.data.train_loader(task)

    @property
    def needs_replay(self) -> bool:  # type: ignore[override]
        """From the second task on, if the method replays."""
        return self.replays and self.task > 1

    def finish_task(self) -> None:
        """Freeze the teacher and train the generator on against it; not after the last task."""
        if self.task == len(self.data.sizes):
            return
        if self.taught != self.task:
            self.take_teacher(copy.deepcopy(self.network), self.task)
            if self.inversion is not None:
                self.inversion.restart()
            self.run.save()
        self.train_generator()

    def take_teacher(self, network: Backbone, task: int) -> None:
        """Keep a frozen network that knows the classes up to a task."""
        self.keep_teacher(network)
        self.taught = task
        if self.inversion is not None:
            self.inversion.watch(network, self.logits_of(network))

    def logits_of(self, teacher: nn.Module) -> Callable[[Tensor], Tensor]:
        """Images -> logits of the classes that the teacher has met; its other outputs are not used."""
        classes = self.data.boundaries[self.taught]
        return lambda images: teacher(images)[:, :classes]

    def keeps_inversion_optimizer(self) -> bool:
        """Adam's state goes on into the next task."""
        return True

    def terms(self, images: Tensor, target: Tensor, replay: Replay | None) -> dict[str, Tensor]:
        """`class` and, once there is a teacher, `kd`."""
        with self.precision.autocast():
            logits = self.network(images).float()[:, : self.seen]
        return {"class": weighted_cross_entropy(logits, target)}

    def seen_logits(self, images: Tensor) -> Tensor:
        """Logits of the classes seen so far."""
        return self.network(images)[:, : self.seen]

    def old_logits(self, images: Tensor) -> Tensor:
        """(N, n_old) logits of the teacher."""
        with torch.no_grad(), self.precision.autocast():
            return self.frozen_network()(images).float()[:, : self.n_old]

    # --- resume -------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """As in the base class, with the teacher."""
        state = super().state_dict() | {"taught": self.taught}
        return state if self.teacher is None else state | {"teacher": self.teacher.state_dict()}

    def rebuild(self, state: dict[str, Any]) -> None:
        """Networks of the saved task."""
        self.task = state["task"]
        if state["taught"]:
            self.take_teacher(copy.deepcopy(self.network), state["taught"])
            assert self.teacher is not None
            load_weights(self.teacher, state["teacher"], SAVED)
        load_weights(self.network, state["network"], SAVED)
        self.optimizer = self.make_optimizer(list(self.network.parameters()))
        self.loader = self.make_loader(self.task)


class Joint(FineTuning):
    """Oracle, the upper bound: for every task a fresh network learns the images of all classes seen."""

    name = "joint"

    def start_task(self, task: int) -> None:
        """A fresh network. # rng: its weights"""
        self.network.load_state_dict(self.make_network().state_dict())
        super().start_task(task)

    def make_loader(self, task: int) -> Any:
        """Batches of the images of all tasks so far."""
        return self.data.joint_loader(task)


class LwF(FineTuning):
    """Learning without forgetting: soft targets of the teacher on the new images."""

    name = "LwF"

    def terms(self, images: Tensor, target: Tensor, replay: Replay | None) -> dict[str, Tensor]:
        """CE over the classes seen, and the distillation of the old ones."""
        with self.precision.autocast():
            logits = self.network(images).float()[:, : self.seen]
        found = {"class": weighted_cross_entropy(logits, target)}
        if self.task > 1 and self.recipe.mu:
            distilled = distillation_loss(logits, self.old_logits(images), self.recipe.temperature)
            found["kd"] = self.recipe.mu * distilled
        return found


class LwFMC(FineTuning):
    """LwF.MC: sigmoid outputs, the old classes' targets are the teacher's."""

    name = "LwF.MC"

    def terms(self, images: Tensor, target: Tensor, replay: Replay | None) -> dict[str, Tensor]:
        """One term."""
        with self.precision.autocast():
            logits = self.network(images).float()[:, : self.seen]
        teacher = self.old_logits(images) if self.task > 1 else None
        return {"class": multi_class_binary_loss(logits, target, teacher)}


class LwFSynthetic(FineTuning):
    """LwF on real and synthetic images (the original's DeepInversionLWF)."""

    name = "LwF-synthetic"
    replays = True

    def terms(self, images: Tensor, target: Tensor, replay: Replay | None) -> dict[str, Tensor]:
        """CE over the classes seen on real images, distillation of the old ones on all images."""
        if replay is None:
            return super().terms(images, target, replay)
        logits = self.both_logits(images, replay)
        old = torch.cat([self.old_logits(images), replay.logits])
        return {
            "class": weighted_cross_entropy(logits[: len(target)], target),
            "kd": self.recipe.mu * distillation_loss(logits, old, self.recipe.temperature),
        }

    def both_logits(self, images: Tensor, replay: Replay) -> Tensor:
        """(2 N, seen) logits of real and synthetic images in one pass."""
        with self.precision.autocast():
            return self.network(torch.cat([images, replay.images])).float()[:, : self.seen]


class DeepInversionReplay(LwFSynthetic):
    """DeepInversion as a baseline (the original's DeepInversionGenBN): the real images' old classes and the synthetic
    images' classes each have a distillation of their own."""

    name = "DeepInversion"

    def terms(self, images: Tensor, target: Tensor, replay: Replay | None) -> dict[str, Tensor]:
        """CE over the classes seen on real images; old classes on real images; all classes on synthetic images."""
        if replay is None:
            return super().terms(images, target, replay)
        count, temperature = len(target), self.recipe.temperature
        logits = self.both_logits(images, replay)
        wanted = padded_probabilities(replay.logits, self.seen, temperature)
        old = distillation_loss(logits[:count], self.old_logits(images), temperature)
        new = soft_cross_entropy(logits[count:], wanted, temperature)
        return {
            "class": weighted_cross_entropy(logits[:count], target),
            "kd": self.recipe.mu * old + self.recipe.mu * new,
        }


class AlwaysBeDreaming(FineTuning):
    """ABD: local CE for the features, balanced CE for the last layer alone, old outputs kept through the old layer.

    original: a second pass without gradient gives the same features to the balanced CE; all it changes is a second
    update of the norm layers' statistics with the same batch. Here one update of momentum 0.19 (README, Deviations A1).
    """

    name = "ABD"
    replays = True

    def start_task(self, task: int) -> None:
        """As in the base class."""
        super().start_task(task)
        self._set_momentum()

    def rebuild(self, state: dict[str, Any]) -> None:
        """As in the base class."""
        super().rebuild(state)
        self._set_momentum()

    def terms(self, images: Tensor, target: Tensor, replay: Replay | None) -> dict[str, Tensor]:
        """original: logits of classes that are still to come take part in the CE terms."""
        if replay is None:
            with self.precision.autocast():
                return {"class": weighted_cross_entropy(self.network(images).float(), target)}
        network, teacher, n_old = self.network, self.teacher, self.n_old
        assert teacher is not None
        share = n_old / self.seen
        everything = torch.cat([images, replay.images])
        labels = torch.cat([target, replay.labels])
        with self.precision.autocast():
            features = network.embed(everything)
            logits = network.last(features).float()
            frozen_logits = network.last(features.detach()).float()
            kept = teacher.last(features).float()[:, :n_old]
        wanted = torch.cat([self.old_logits(images), replay.logits])
        local = (1 - share) * weighted_cross_entropy(logits[: len(target), n_old : self.seen], target - n_old)
        balance = torch.where(labels < n_old, share, 1 - share)
        return {
            "class": local + weighted_cross_entropy(frozen_logits, labels, balance),
            "kd": self.recipe.mu * ((kept - wanted).square().sum(dim=1) / n_old).mean(),
        }

    def after_step(self, target: Tensor, replay: Replay | None) -> None:
        """Count the second update of the statistics."""
        if replay is not None:
            torch._foreach_add_([norm.num_batches_tracked for norm in self._norms()], 1)

    def _set_momentum(self) -> None:
        for norm in self._norms():
            norm.momentum = _TWICE if self.task > 1 else _MOMENTUM

    def _norms(self) -> list[nn.BatchNorm2d]:
        return [module for module in self.network.modules() if isinstance(module, nn.BatchNorm2d)]
