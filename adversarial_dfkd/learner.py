"""The training loop of all four agents; they differ in where replayed images come from and in the student's loss.

One outer iteration: the novel generator learns to disagree, then the student learns on novel and replayed images, and
in its first steps the VAE follows.

Source: gaurav104/LRA@40a8941, agents `PREDFKDAgent`, `PREDFKDMemAgent`, `PREDFKDMemMetaAgent`, `PREDFKDMetaAgent`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from adversarial_dfkd.evaluation import TestImages, running_means
from adversarial_dfkd.losses import gaussian_statistics_divergence, generator_loss
from adversarial_dfkd.meta import WEIGHT_DECAY, frozen, student_losses
from adversarial_dfkd.options import LRAOptions
from adversarial_dfkd.replay import PUSH_PERIOD, VAE_STEPS, GenerativeReplay, MemoryBank, Noise
from adversarial_dfkd.schedules import cosine_rate
from common.backbones.classifier import StagedClassifier
from common.backbones.generators_predfkd import LatentGenerator
from common.losses.inversion import BatchNormTaps
from common.metrics.streams import stream_statistics
from common.training.errors import UserError
from common.training.files import write_atomically
from common.training.journal import progress_bar
from common.training.precision import Precision
from common.training.run import Run

BEST = "best_student.safetensors"
"""File of the weights with the best test accuracy, in the run's folder."""

MOMENTUM = 0.9


@dataclass
class StudentReport:
    """One student step: detached terms (see `student_losses`), and the teacher's logits of the novel images."""

    terms: dict[str, Tensor]
    targets: Tensor


class AdversarialDistillation:
    """Trains a student on generated images only.

    Args:
        config: the recipe.
        teacher: in evaluation mode, without gradients for its weights.
        student: learns.
        generator: makes novel images; always in training mode.
        replay: a bank or a VAE.
        noise: source of latent vectors.
        test: real images.
        precision: number format of forward passes.
        run: where steps are counted, logged and saved; the loop registers itself there.
        on_epoch: called at the end of every epoch with its number, counted from 1, and the newest images.

    Raises:
        UserError: if the teacher lacks the norm layers that the recipe asks for.

    Attributes:
        epoch: epochs that are done.
        iteration: outer iterations of the current epoch that are done.
        history: one entry per epoch of every test metric.
        newest: the first replay-sized part of the last novel images.
    """

    def __init__(
        self, config: LRAOptions, teacher: StagedClassifier, student: nn.Module, generator: LatentGenerator,
        replay: MemoryBank | GenerativeReplay, noise: Noise, test: TestImages, precision: Precision, run: Run,
        on_epoch: Callable[[int, Tensor], None] | None = None,
    ) -> None:  # fmt: skip
        self.config, self.teacher, self.student, self.generator = config, teacher, student, generator
        self.replay, self.noise, self.test, self.precision, self.run = replay, noise, test, precision, run
        self.on_epoch = on_epoch
        self.optimizer = torch.optim.SGD(
            student.parameters(), lr=config.lr_S, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
        )
        self.generator_optimizer = torch.optim.Adam(generator.parameters(), lr=config.lr_G)
        self.taps = BatchNormTaps(teacher) if config.bn else None
        if self.taps is not None and not self.taps.layers:
            raise UserError(f"bn {config.bn:g} weighs the teacher's norm layers, but this teacher has none; "
                            "set bn to 0 or take another teacher")
        self.epoch = self.iteration = self.generator_steps = self.student_steps = 0
        self.history: dict[str, list[float]] = {"accuracy": [], "loss": [], "printed_loss": [], "seconds": []}
        self.newest: Tensor | None = None
        generator.train()
        student.train()
        run.register("training", self)

    # --- the algorithm ------------------------------------------------------------------------------------------

    def fit(self) -> None:
        """Train for what is left of the epochs."""
        while self.epoch < self.config.max_epoch:
            self.train_epoch()
            self.close_epoch()

    def train_epoch(self) -> None:
        """What is left of the current epoch."""
        config, total = self.config, self.config.outer_iterations
        for group in self.optimizer.param_groups:
            group["lr"] = cosine_rate(config.lr_S, self.epoch, config.max_epoch)
        if config.train_mode_at_epoch_start:  # original: the first generator step sees the student as tested (D5)
            self.student.train()
        for _ in progress_bar(range(self.iteration, total), f"epoch {self.epoch + 1}", total, self.iteration):
            while self.generator_steps < config.gen_iter:
                self.generator_step()
                self.generator_steps += 1
                self.run.tick()
            while self.student_steps < config.kd_iter:
                self.distil()
                self.student_steps += 1
                self.run.tick()
            self.iteration += 1
            self.generator_steps = self.student_steps = 0

    def generator_step(self) -> tuple[Tensor, Tensor]:
        """One update of the novel generator; returns its loss and the adversarial term, detached."""
        self.generator_optimizer.zero_grad()
        images = self.generate()
        with frozen(self.student):
            with self.precision.autocast():
                if self.taps is None:
                    logits, features = self.teacher.with_features(images)
                else:
                    with self.taps.listening(_statistics) as statistics:
                        logits, features = self.teacher.with_features(images)
                answers = self.student(images)  # in training mode its running statistics move here too
            kind = images.dtype
            loss, adversarial = generator_loss(
                logits.to(kind), features.to(kind), answers.to(kind), self.config.weights
            )
            if self.taps is not None:
                loss = loss + self.config.bn * sum(statistics)
            loss.backward()
        self.generator_optimizer.step()
        terms = {"generator": loss.detach(), "disagreement": adversarial.detach()}
        self.run.log(task=1, epoch=self.epoch, **terms)
        return terms["generator"], terms["disagreement"]

    def generate(self) -> Tensor:
        """(B, C, H, W) novel images, with batch statistics."""
        with self.precision.autocast():
            z = self.noise(self.config.batch_size)
            return self.generator(z).to(z.dtype)

    def distil(self) -> None:
        """Novel images for a student step, and a VAE step on the same images in the first four."""
        with torch.no_grad():
            images = self.generate()
        report = self.student_step(images)
        if isinstance(self.replay, GenerativeReplay) and self.student_steps < VAE_STEPS:
            self.memory_step(images, report.targets)
        self.newest = images[: self.config.replayed_images].clone()

    def student_step(self, images: Tensor) -> StudentReport:
        """One update of the student on novel and replayed images."""
        replayed = self.replay.draw()
        self.student.train()
        everything = images if replayed is None else torch.cat([images, replayed])
        with self.precision.autocast():
            with torch.no_grad():
                targets = self.teacher(everything).to(images.dtype)
            terms = student_losses(
                self.student, images, replayed, targets, self.config.meta_at(self.epoch), self.measures_meta_term()
            )
        self.optimizer.zero_grad()
        terms["loss"].backward()
        self.optimizer.step()
        self.run.step += 1
        terms = {name: value.detach() for name, value in terms.items()}
        always = "retention" in terms and self.measures_meta_term()
        named = {f"student_{name}": value for name, value in terms.items()}
        self.run.log(task=1, epoch=self.epoch, always=always, **named)
        return StudentReport(terms, targets[: len(images)])

    def memory_step(self, images: Tensor, targets: Tensor) -> Tensor:
        """One update of the VAE; returns its loss, which is logged once per outer iteration."""
        loss = self.replay.train_step(images, targets, first=self.epoch == 0 and self.iteration == 0)
        last = self.student_steps + 1 == min(VAE_STEPS, self.config.kd_iter)
        self.run.log(task=1, epoch=self.epoch, always=last, vae=loss)
        return loss

    def measures_meta_term(self) -> bool:
        """Whether the log wants this student step's meta term; without a gradient it is computed for that alone."""
        last_step = self.student_steps + 1 == self.config.kd_iter
        last_iteration = self.iteration + 1 == self.config.outer_iterations
        wanted = {"never": False, "step": True, "iteration": last_step, "epoch": last_step and last_iteration}
        return wanted[self.config.log_meta_loss]

    # --- the end of an epoch --------------------------------------------------------------------------------------

    def close_epoch(self) -> None:
        """Feed the bank, test, log, keep the best weights, save."""
        if isinstance(self.replay, MemoryBank) and self.epoch % PUSH_PERIOD == 0:
            self.replay.push(self.newest)
        torch.empty((), dtype=torch.int64).random_()  # rng: the original's test loader draws a seed
        score = self.test.score(self.student)  # leaves the student in evaluation mode (D5)
        values = {"accuracy": 100 * score.accuracy, "loss": score.loss, "printed_loss": score.printed_loss}
        where = {"task": 1, "epoch": self.epoch}
        self.run.log_value("lr/student", self.optimizer.param_groups[0]["lr"], **where)
        for name, value in values.items():
            self.history[name].append(value)
            self.run.log_value(f"test/{name}", value, **where)
        accuracies = self.history["accuracy"]
        self.run.log_value("test/cumulative_accuracy", running_means(accuracies)[-1], **where)
        self.history["seconds"].append(round(self.run.seconds(), 1))
        if accuracies[-1] >= max(accuracies):
            self._keep_best()
        self.run.note(
            f"epoch {self.epoch + 1} of {self.config.max_epoch}: accuracy {accuracies[-1]:.2f} %, mean so far "
            f"{running_means(accuracies)[-1]:.2f} %, loss {score.loss:.4f}, {self.run.step} updates, "
            f"{self.run.seconds():.0f} s"
        )
        self.epoch += 1
        self.iteration = 0
        if self.on_epoch is not None:
            self.on_epoch(self.epoch, self.newest)
        self.newest = None
        self.run.save()

    def summary(self) -> dict[str, Any]:
        """Metrics for the record: last, best, mean and spread of the test accuracy over the epochs, in percent."""
        accuracies = self.history["accuracy"]
        metrics: dict[str, Any] = stream_statistics(accuracies)
        return metrics | {
            "acc_history": list(accuracies),
            "cumulative_history": running_means(accuracies),
            "seconds_history": list(self.history["seconds"]),
            "test_loss": self.history["loss"][-1] if accuracies else None,
            "epochs_done": self.epoch,
            "student_updates": self.run.step,
        }

    def _keep_best(self) -> None:
        state = {key: value.detach().cpu().contiguous() for key, value in self.student.state_dict().items()}
        content = safetensors.torch.save(state)
        write_atomically(self.run.folder / BEST, lambda file: file.write(content))

    def state_dict(self) -> dict[str, Any]:
        """Everything that an exact resume needs, inside an iteration too."""
        return {
            "place": [self.epoch, self.iteration, self.generator_steps, self.student_steps],
            "history": {name: list(values) for name, values in self.history.items()},
            "student": self.student.state_dict(),
            "student_training": self.student.training,
            "generator": self.generator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator_optimizer": self.generator_optimizer.state_dict(),
            "replay": self.replay.state_dict(),
            "newest": self.newest,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        device = self.run.device
        self.epoch, self.iteration, self.generator_steps, self.student_steps = state["place"]
        self.history = {name: list(values) for name, values in state["history"].items()}
        self.student.load_state_dict(state["student"])
        self.student.train(state["student_training"])
        self.generator.load_state_dict(state["generator"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator_optimizer.load_state_dict(state["generator_optimizer"])
        self.replay.load_state_dict(state["replay"], device)
        self.newest = None if state["newest"] is None else state["newest"].to(device)


def _statistics(layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
    return gaussian_statistics_divergence(x, layer.running_mean, layer.running_var).sum()
