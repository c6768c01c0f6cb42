"""Synthesis by a generator that learns along with the student: DAFL, ZSKT, DFQ, DFAD, and CuDFKD.

One step: noise -> generator -> normalise -> teacher (and student) -> weighted terms -> Adam on the generator.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from common.backbones.generators_cmi import ImageGenerator
from common.losses.distillation import jensen_shannon_agreement, sample_kl
from common.losses.inversion import BatchNormTaps, activation_loss, negative_class_entropy, one_hot_loss
from curriculum_dfkd.curriculum import adversarial_weight
from curriculum_dfkd.synthesis.base import Networks, Report, Synthesiser, frozen, weighted_sum

BETAS = {"cmi": (0.5, 0.999), "cud": (0.9, 0.99)}
"""Adam's betas for the generator in the two releases."""

ADVERSARIAL_TEMPERATURE = 3.0
"""Of CuDFKD's adversarial terms."""


class GeneratorSynthesiser(Synthesiser):
    """A generator with its Adam; subclasses say what they minimise.

    Args:
        networks: teacher, student and how they see images.
        generator: on the device.
        lr: of Adam.
        betas: of Adam.
        steps: generator updates per call.
        synthesis_batch: images per generator update.
        batch: images per student update.
        weights: name of a term -> weight; the order in which the terms are added.
        all_terms: compute terms of weight 0 too (for logs; the adversarial one excepted).
    """

    def __init__(
        self, networks: Networks, generator: ImageGenerator, *, lr: float, betas: tuple[float, float], steps: int,
        synthesis_batch: int, batch: int, weights: dict[str, float], all_terms: bool = False,
    ) -> None:
        self.networks, self.generator = networks, generator
        self.optimizer = torch.optim.Adam(generator.parameters(), lr=lr, betas=betas)
        self.steps, self.synthesis_batch, self.batch = steps, synthesis_batch, batch
        self.weights, self.all_terms = dict(weights), all_terms
        self.taps = BatchNormTaps(networks.teacher)

    # --- the algorithm ------------------------------------------------------------------------------------------

    def step(self) -> Report:
        """One generator update."""
        networks = self.networks
        self.generator.train()
        networks.student.eval()
        taps = self.taps.distances() if self._wants("bn") else contextlib.nullcontext([])
        with frozen(networks.student):
            with networks.precision.autocast(), taps as distances:
                made = self.generator(networks.noise(self.synthesis_batch, self.generator.nz, networks.device))
                images = networks.normalise(made)
                logits, features = networks.teacher.with_features(images)
            logits, features = logits.float(), features.float()
            terms = self.teacher_terms(logits, features)
            if self._wants("bn"):
                terms["bn"] = sum(distances, start=logits.new_zeros(()))
            terms["adv"] = self.adversarial_term(images, logits) if self.weights["adv"] != 0 else logits.new_zeros(())
            loss = weighted_sum(self.weights, terms)
            self.optimizer.zero_grad()
            networks.precision.backward(loss, [self.optimizer])
        networks.precision.step(self.optimizer)
        networks.precision.update()
        self.newest = made.detach().float()
        return Report({**_detached(terms), "loss": loss.detach()}, logits.detach(), self.newest)

    def training_images(self) -> Tensor:
        """Fresh images from the generator in evaluation mode (running statistics), as released."""
        self.generator.eval()
        with torch.no_grad(), self.networks.precision.autocast():
            made = self.generator(self.networks.noise(self.batch, self.generator.nz, self.networks.device))
            return self.networks.normalise(made)

    # --- what a method adds -------------------------------------------------------------------------------------

    def teacher_terms(self, logits: Tensor, features: Tensor) -> dict[str, Tensor]:
        """Terms that need the teacher's answer only, those of weight 0 left out unless all are wanted."""
        raise NotImplementedError

    def adversarial_term(self, images: Tensor, logits: Tensor) -> Tensor:
        """The term that looks for images on which student and teacher disagree."""
        raise NotImplementedError

    def student_logits(self, images: Tensor) -> Tensor:
        """(B, K) logits of the student in evaluation mode."""
        with self.networks.precision.autocast():
            return self.networks.student(images).float()

    # --- bookkeeping --------------------------------------------------------------------------------------------

    def _wants(self, name: str) -> bool:
        return self.all_terms or self.weights[name] != 0

    def state_dict(self) -> dict[str, Any]:
        """Generator, its optimiser, the weights."""
        return {
            "generator": self.generator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "weights": dict(self.weights),
            "newest": self.newest,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.generator.load_state_dict(state["generator"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.weights = dict(state["weights"])
        self.newest = state["newest"]


class GenerativeSynthesiser(GeneratorSynthesiser):
    """DAFL, ZSKT, DFQ and DFAD: they differ in weights and criterion.

    Source: zju-vipa/CMI@9e79fa9 datafree/synthesis/generative.py.

    Args:
        criterion: (student logits, teacher logits) -> (); the adversarial term is its negative.
        Others: see `GeneratorSynthesiser`; weights "bn", "oh", "adv", "balance", "act".
    """

    def __init__(self, *args: Any, criterion: Callable[[Tensor, Tensor], Tensor], **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.criterion = criterion

    def teacher_terms(self, logits: Tensor, features: Tensor) -> dict[str, Tensor]:
        """Class balance, certainty, activation."""
        terms: dict[str, Callable[[], Tensor]] = {
            "balance": lambda: negative_class_entropy(logits),
            "oh": lambda: one_hot_loss(logits),
            "act": lambda: activation_loss(features),
        }
        return {name: term() for name, term in terms.items() if self._wants(name)}

    def adversarial_term(self, images: Tensor, logits: Tensor) -> Tensor:
        """Minus the student's loss; the gradient passes through both networks."""
        return -self.criterion(self.student_logits(images), logits)


class CurriculumSynthesiser(GeneratorSynthesiser):
    """CuDFKD: entropy, certainty, activation, statistics, and an adversarial weight that grows with the epochs.

    Source: ljrprocc/DataFree@bf3096b datafree/synthesis/cudfkd.py `ProbSynthesizer`.

    Args:
        temperature: of the entropy term (`--T`).
        adversarial: "kl" (minus the KL of samples on which both agree) or "js" (1 - JS).
        growth: `grad_adv`; 0 where there is no curriculum.
        epochs, begin, end: of the run, and the window in which the weight grows.
        Others: see `GeneratorSynthesiser`; weights "ent", "adv", "oh", "act", "bn".
    """

    def __init__(
        self, *args: Any, temperature: float, adversarial: str, growth: float, epochs: int, begin: float, end: float,
        **keywords: Any,
    ) -> None:
        super().__init__(*args, **keywords)
        self.temperature, self.adversarial = temperature, adversarial
        self.initial_weight, self.growth = self.weights["adv"], growth
        self.epochs, self.window = epochs, (begin, end)

    def teacher_terms(self, logits: Tensor, features: Tensor) -> dict[str, Tensor]:
        """Entropy of the mean answer at temperature T, certainty, activation."""
        terms: dict[str, Callable[[], Tensor]] = {
            "ent": lambda: -negative_class_entropy(logits, self.temperature),
            "oh": lambda: one_hot_loss(logits),
            "act": lambda: activation_loss(features),
        }
        return {name: term() for name, term in terms.items() if self._wants(name)}

    def adversarial_term(self, images: Tensor, logits: Tensor) -> Tensor:
        """Disagreement with the student; while its weight is 0 the student is not asked."""
        student = self.student_logits(images)
        if self.adversarial == "js":
            return jensen_shannon_agreement(student, logits, ADVERSARIAL_TEMPERATURE)
        return decision_adversarial_loss(student, logits, ADVERSARIAL_TEMPERATURE)

    def close_epoch(self, epoch: int) -> None:
        """Set the adversarial weight for the next epoch."""
        self.weights["adv"] = adversarial_weight(
            self.initial_weight, self.growth, self.epochs, *self.window, epoch=epoch
        )


def agreement_mask(student: Tensor, teacher: Tensor) -> Tensor:
    """(B,) 1 where both logits have the same largest class, else 0."""
    return (student.argmax(dim=1) == teacher.argmax(dim=1)).to(student.dtype)


def decision_adversarial_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Minus the mean over the whole batch of KL_i where the decisions agree, 0 where they do not.

    Source: zju-vipa/CMI@9e79fa9 datafree/synthesis/contrastive.py (T = 1); CuDFKD uses T = 3.
    """
    return -(sample_kl(student, teacher, temperature) * agreement_mask(student, teacher)).mean()


def _detached(terms: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in terms.items()}
