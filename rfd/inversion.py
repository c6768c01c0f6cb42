"""Generative inversion: a generator learns to make images for a frozen classifier, and then stands in for old data.

One step: noise -> generator (training mode) -> classifier (evaluation mode, listening to the inputs of its norm layers)
-> certainty + class balance + smoothness + statistics -> Adam on the generator alone.

Source: gqk/cl-lite@f0ddf02 deep_inversion/generative_inversion.py; the helper of GT-RIPL/AlwaysBeDreaming-DFCIL@9295039
has the same formulas.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from common.losses.inversion import BatchNormTaps, one_hot_loss
from common.training.checkpoint import load_weights
from common.training.precision import Precision
from rfd.inversion_losses import batch_norm_divergence, class_balance_loss, smoothing_kernel, smoothness_loss


@dataclass(frozen=True)
class InversionRecipe:
    """How a generator is trained.

    Attributes:
        iterations: steps per task.
        lr: of Adam (betas 0.9, 0.999; no decay).
        temperature: divisor of the logits in the certainty term.
        ce, smoothness, statistics: weights of the certainty, smoothness and batch-norm terms; class balance has 1.
        noise: "device": noise is drawn where it is used; "cpu": from the CPU's generator, as the originals do.
        fast: Adam as one fused kernel, which rounds otherwise.
    """

    iterations: int = 5000
    lr: float = 0.001
    temperature: float = 1000.0
    ce: float = 1.0
    smoothness: float = 0.001
    statistics: float = 50.0
    noise: str = "device"
    fast: bool = False


class Replay(NamedTuple):
    """Synthetic images of old classes.

    Attributes:
        images: (N, 3, H, W), normalised as the generator has learned.
        logits: (N, n_old) of the frozen classifier.
        labels: (N,) its largest class.
    """

    images: Tensor
    logits: Tensor
    labels: Tensor


class GenerativeInversion:
    """A generator and the frozen classifier that it is trained against.

    Args:
        generator: on its device.
        classifier: module in evaluation mode without trainable weights; its norm layers are listened to.
        logits_of: images -> (N, n_old) logits of the classifier.
        recipe: how the generator is trained.
        precision: number format of the forward pass.

    Attributes:
        iteration: generator steps done since the last `restart`.
        maker, asked: what `sample` uses in place of the generator and `logits_of`: these, or faster forms of them.
    """

    def __init__(
        self,
        generator: nn.Module,
        classifier: nn.Module,
        logits_of: Callable[[Tensor], Tensor],
        recipe: InversionRecipe,
        precision: Precision | None = None,
    ) -> None:
        self.generator, self.recipe, self.precision = generator, recipe, precision
        self.device = next(generator.parameters()).device
        self.kernel = smoothing_kernel().to(self.device)
        self.optimizer = torch.optim.Adam(generator.parameters(), lr=recipe.lr, fused=recipe.fast or None)
        self.iteration = 0
        self.watch(classifier, logits_of)

    def watch(self, classifier: nn.Module, logits_of: Callable[[Tensor], Tensor]) -> None:
        """Train against another classifier from now on; the generator and its optimiser go on as they are."""
        self.classifier, self.logits_of = classifier, logits_of
        self._taps = BatchNormTaps(classifier)
        self.sample_with(self.generator, logits_of)

    def sample_with(self, maker: nn.Module, asked: Callable[[Tensor], Tensor]) -> None:
        """Let `sample` use other forms of the generator and of the classifier."""
        self.maker, self.asked = maker, asked

    @property
    def is_trained(self) -> bool:
        """Whether all iterations of the current training are done."""
        return self.iteration >= self.recipe.iterations

    def draw_noise(self, count: int) -> Tensor:
        """(count, latent) standard normal noise. # rng: the device's generator, or the CPU's"""
        shape = (count, self.generator.latent)
        if self.recipe.noise == "cpu":
            return torch.randn(shape).to(self.device)
        return torch.randn(shape, device=self.device)

    def terms(self, noise: Tensor) -> dict[str, Tensor]:
        """The weighted terms of the loss and their sum `total`, for a batch of noise."""
        recipe = self.recipe
        statistics: Any = self._taps.listening(
            lambda layer, x: batch_norm_divergence(x.float(), layer.running_mean, layer.running_var)
        )
        with self._autocast():
            images = self.generator(noise)
            with statistics as found:
                logits = self.logits_of(images)
        images, logits = images.float(), logits.float()
        parts = {
            "ce": recipe.ce * one_hot_loss(logits / recipe.temperature),
            "cb": class_balance_loss(logits),
            "pr": recipe.smoothness * smoothness_loss(images, self.kernel),
            "rf": recipe.statistics * torch.stack(found).mean(),
        }
        return {**parts, "total": torch.stack(list(parts.values())).sum()}

    def train_step(self, noise: Tensor) -> dict[str, Tensor]:
        """One Adam step; returns the terms before it."""
        self.generator.train()
        terms = self.terms(noise)
        self.optimizer.zero_grad(set_to_none=True)
        if self.precision is None:
            terms["total"].backward()
            self.optimizer.step()
        else:
            self.precision.backward(terms["total"], [self.optimizer])
            self.precision.step(self.optimizer)
            self.precision.update()
        self.iteration += 1
        return terms

    @torch.no_grad()
    def sample(self, noise: Tensor) -> Replay:
        """Images in evaluation mode (running statistics), with the frozen classifier's opinion."""
        self.maker.eval()
        with self._autocast():
            images = self.maker(noise)
            logits = self.asked(images)
        logits = logits.float()
        return Replay(images.float(), logits, logits.argmax(dim=1))

    def restart(self) -> None:
        """Count iterations anew; the generator and its optimiser go on (ABD)."""
        self.iteration = 0

    def state_dict(self, with_optimizer: bool = True) -> dict[str, Any]:
        """Generator, iteration, and the optimiser while it is still needed."""
        state: dict[str, Any] = {"generator": self.generator.state_dict(), "iteration": self.iteration}
        if with_optimizer:
            state["optimizer"] = self.optimizer.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Stand where a saved inversion stood.

        Raises:
            UserError: if it had another generator.
        """
        load_weights(self.generator, state["generator"], "the saved state")
        self.iteration = state["iteration"]
        if "optimizer" in state:
            self.optimizer.load_state_dict(state["optimizer"])

    def _autocast(self) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext() if self.precision is None else self.precision.autocast()
