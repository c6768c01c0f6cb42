"""What the learners with a growing head share: RFD, R-DFCIL and the R-DFCIL authors' port of ABD (`methods.py`).

A task after the first: freeze a copy of the network, train a fresh generator against it, append a classifier, learn
from real batches of the new classes and as many synthetic images of the old ones, and at last finetune the head alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.training.checkpoint import load_weights, read_checkpoint
from common.training.errors import UserError
from rfd.factors import Lambdas, class_weights, count_labels, finetuning_factors
from rfd.inversion import GenerativeInversion, Replay
from rfd.learning.base import SAVED, IncrementalLearner
from rfd.networks import IncrementalNetwork


class DynamicHeadLearner(IncrementalLearner):
    """What the three methods share.

    Args:
        make_generator: builds a fresh generator on the device. # rng: its weights
        batch_size: synthetic images per step.
        inversion_file: a saved `inversion.ckpt` that replaces the first training of a generator.
        more: see `IncrementalLearner`.
    """

    classifier, bias = "two_linear", False
    """Kind of the head's classifiers."""
    dropped_in_finetuning = ""
    """Term that the finetuning phase leaves out."""
    factors_of: Callable[[Lambdas, int, int], dict[str, float]]
    network: IncrementalNetwork

    def __init__(
        self, *arguments: Any, make_generator: Callable[[], nn.Module], batch_size: int,
        inversion_file: str | None = None, **more: Any,
    ) -> None:  # fmt: skip
        super().__init__(*arguments, **more)
        self.make_generator, self.batch_size = make_generator, batch_size
        self.inversion_file, self.inversion_file_is_used = inversion_file, False
        self.counts = self.weights = torch.zeros(0, device=self.device)

    # --- a task -------------------------------------------------------------------------------------------------

    def check_ahead(self) -> None:
        """The generator can be built, and the file that is to replace its first training fits it."""
        with torch.random.fork_rng(devices=[]):  # its weights are drawn on the CPU
            generator = self.make_generator()
        if self.inversion_file and not self.inversion_file_is_used:
            load_weights(generator, self._saved_generator(), self.inversion_file)

    def start_task(self, task: int) -> None:
        """Freeze the old network, make a generator for it, append a classifier, start a new optimiser."""
        super().start_task(task)
        if task > 1:
            self.take_teacher(copy.deepcopy(self.network))
            self.make_extras()
        self.network.add_tasks([self.data.sizes[task - 1]])
        self.network.to(self.device)
        self.counts = torch.zeros(self.seen, device=self.device)
        self.weights = torch.ones(self.seen, device=self.device)
        self.optimizer = self.make_optimizer(self.all_parameters())
        self.loader = self.data.train_loader(task)  # rng: takes the loader's seed
        if task > 1 and self.inversion_file and not self.inversion_file_is_used:
            self._load_inversion()

    def take_teacher(self, network: IncrementalNetwork) -> None:
        """Keep a frozen network as the teacher, with a fresh generator. # rng: the generator's weights"""
        self.keep_teacher(network)
        self.inversion = GenerativeInversion(
            self.make_generator(), network, network, self.recipe.inversion, self.precision
        )

    def make_extras(self) -> None:
        """Modules that live for one task, beside the network."""

    def before_epochs(self) -> None:
        """Train the generator."""
        self.train_generator()

    @property
    def needs_replay(self) -> bool:  # type: ignore[override]
        """From the second task on."""
        return self.task > 1

    @property
    def is_learning(self) -> bool:  # type: ignore[override]
        """original: in the first task's finetuning phase nothing is trained; its batches are skipped, same result."""
        return not (self.task == 1 and self.finetuning)

    def factors(self) -> dict[str, float]:
        """What multiplies each term in the current epoch."""
        factors = type(self).factors_of(self.recipe.lambdas, self.seen - self.n_old, self.n_old)
        if self.finetuning:
            return finetuning_factors(factors, self.recipe.lambdas, self.dropped_in_finetuning)
        return factors

    def begin_epoch(self) -> None:
        """Learning rate, and what is frozen: in the finetuning phase the backbone, in the first task the head too."""
        super().begin_epoch()
        backbone, head = self.network.backbone, self.network.head
        backbone.requires_grad_(not self.finetuning)
        head.requires_grad_(self.is_learning)
        if self.finetuning:
            backbone.train(self.recipe.validation_quirk and self._was_tested_while_finetuning())

    def end_epoch(self) -> None:
        """New class weights from the labels met so far."""
        if self.task > 1:
            self.weights = class_weights(self.counts)

    def after_step(self, target: Tensor, replay: Replay | None) -> None:
        """Count the real and the synthetic labels."""
        self.counts += count_labels(target, self.seen)
        if replay is not None:
            self.counts += count_labels(replay.labels, self.seen)

    def terms(self, images: Tensor, target: Tensor, replay: Replay | None) -> dict[str, Tensor]:
        """Plain cross-entropy in the first task, then the method's own terms."""
        factors = self.factors()
        if self.task == 1:
            with self.precision.autocast():
                logits = self.network(images)
            return {"ce": factors["ce"] * F.cross_entropy(logits.float(), target)}
        assert replay is not None
        losses = self.finetuning_losses if self.finetuning else self.learning_losses
        found = losses(images, target, replay)
        return {name: factor * found[name] for name, factor in factors.items() if name in found}

    def learning_losses(self, images: Tensor, target: Tensor, replay: Replay) -> dict[str, Tensor]:
        """Terms before their factors while the whole network learns."""
        raise NotImplementedError

    def finetuning_losses(self, images: Tensor, target: Tensor, replay: Replay) -> dict[str, Tensor]:
        """Terms before their factors while the head alone learns; ABD-port has no such phase."""
        raise NotImplementedError

    def head_alone(self, images: Tensor) -> Tensor:
        """Logits with a gradient for the head only."""
        with torch.no_grad():
            features = self.network.features(images)
        return self.network.head.classify(features)

    def seen_logits(self, images: Tensor) -> Tensor:
        """All logits: the head has no others."""
        return self.network(images)

    def all_parameters(self) -> list[nn.Parameter]:
        """What the optimiser of a task holds."""
        return list(self.network.parameters())

    # --- resume -------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """As in the base class, with the frozen network and the label counts."""
        state = super().state_dict() | {"inversion_file_is_used": self.inversion_file_is_used}
        if self.task:
            state |= {"counts": self.counts, "weights": self.weights}
        if self.teacher is not None:
            state["teacher"] = self.teacher.state_dict()
        return state

    def rebuild(self, state: dict[str, Any]) -> None:
        """Networks of the saved task."""
        self.task = task = state["task"]
        self.inversion_file_is_used = state["inversion_file_is_used"]
        done = len(self.network.head.classifiers)
        if task > 1:
            self.network.add_tasks(self.data.sizes[done : task - 1])
            self.network.to(self.device)
            self.take_teacher(copy.deepcopy(self.network))
            assert self.teacher is not None
            load_weights(self.teacher, state["teacher"], SAVED)
            self.make_extras()
        self.network.add_tasks(self.data.sizes[len(self.network.head.classifiers) : task])
        self.network.to(self.device)
        load_weights(self.network, state["network"], SAVED)
        self.counts, self.weights = state["counts"].to(self.device), state["weights"].to(self.device)
        self.optimizer = self.make_optimizer(self.all_parameters())
        self.loader = self.data.train_loader(task)

    def _was_tested_while_finetuning(self) -> bool:
        first = self.recipe.epochs - self.recipe.finetuning_epochs
        return any((epoch + 1) % self.recipe.check_every == 0 for epoch in range(first, self.epoch))

    def _saved_generator(self) -> Any:
        assert self.inversion_file is not None
        state = read_checkpoint(Path(self.inversion_file))
        if not isinstance(state, dict) or "generator" not in state:
            raise UserError(f"{self.inversion_file} holds no generator; expected task_<t>/inversion.ckpt of a run")
        return state["generator"]

    def _load_inversion(self) -> None:
        assert self.inversion is not None and self.inversion_file is not None
        load_weights(self.inversion.generator, self._saved_generator(), self.inversion_file)
        self.inversion.iteration = self.recipe.inversion.iterations
        self.inversion_file_is_used = True
        self.run.note(f"generator of task {self.task} taken from {self.inversion_file}")
