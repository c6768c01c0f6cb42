"""Where replayed images come from: a bank of stored batches (MB-DFKD, Ours-1) or a VAE (PRE-DFKD, Ours-2)."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from adversarial_dfkd.losses import Weights, autoencoder_loss, latent_loss
from adversarial_dfkd.meta import frozen
from common.backbones.generators_predfkd import LatentEncoder, LatentGenerator

Noise = Callable[[int], Tensor]
"""Count -> (count, latent_dim) standard normal numbers on the device."""

PUSH_PERIOD = 5
"""Epochs between two batches that go into the bank."""

VAE_STEPS = 4
"""Student steps of an outer iteration that a VAE step follows: the first four."""

TUNING_EPSILON = 1e-8
"""Adam's, in the one step that tunes latent vectors."""


class MemoryBank:
    """At most `capacity` batches; the oldest one is overwritten. Batches stay on their device.

    Attributes:
        batches: stored so far.
        position: where the next one goes.
        drawn: slot of the last draw; None if the bank was empty.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.batches: list[Tensor] = []
        self.position = 0
        self.drawn: int | None = None

    def __len__(self) -> int:
        return len(self.batches)

    def push(self, batch: Tensor) -> None:
        """Store a batch."""
        if len(self.batches) < self.capacity:
            self.batches.append(batch)
        else:
            self.batches[self.position] = batch
        self.position = (self.position + 1) % self.capacity

    def draw(self) -> Tensor | None:
        """One stored batch, all equally likely; None if there are none. # rng: Python's, one choice"""
        self.drawn = random.choice(range(len(self.batches))) if self.batches else None
        return None if self.drawn is None else self.batches[self.drawn]

    def state_dict(self) -> dict[str, Any]:
        """Content and position."""
        return {"batches": list(self.batches), "position": self.position}

    def load_state_dict(self, state: dict[str, Any], device: torch.device | None = None) -> None:
        """Go on from a saved state."""
        self.batches = [batch.to(device) for batch in state["batches"]]
        self.position = state["position"]


@dataclass(frozen=True)
class Tuning:
    """One tuning of latent vectors: (m, D) as drawn, their gradient, and as they are used."""

    drawn: Tensor
    gradient: Tensor
    tuned: Tensor


class GenerativeReplay:
    """A VAE on the images seen so far: its decoder replays, and both parts learn from new and replayed images.

    Args:
        generator: decoder V.
        encoder: E.
        teacher: in evaluation mode, without gradients for its weights.
        count: m, images to replay per draw; at least 2.
        lr: learning rate of the latent tuning (lr_G); V and E learn at a fortieth of it.
        weights: of the entropy and one-hot terms.
        noise: source of latent vectors.
        clean_gradient: discard what the latent tuning leaves in V's gradient (D6).
        autocast: context of forward passes.

    Attributes:
        tuning: the last one.
    """

    def __init__(
        self, generator: LatentGenerator, encoder: LatentEncoder, teacher: nn.Module, *, count: int, lr: float,
        weights: Weights, noise: Noise, clean_gradient: bool = False,
        autocast: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
    ) -> None:  # fmt: skip
        self.generator, self.encoder, self.teacher = generator, encoder, teacher
        self.count, self.lr, self.weights, self.noise = count, lr, weights, noise
        self.clean_gradient, self.autocast = clean_gradient, autocast
        self.optimizers = [torch.optim.Adam(part.parameters(), lr=lr / 40) for part in (generator, encoder)]
        self.tuning: Tuning | None = None

    def draw(self) -> Tensor:
        """(m, C, H, W) replayed images for a student step."""
        self.generator.eval()
        with frozen(self.generator):
            return self._replay()

    def train_step(self, images: Tensor, targets: Tensor, first: bool) -> Tensor:
        """One update of V and E.

        Args:
            images: (B, C, H, W) current novel images; the first half is used.
            targets: the teacher's logits of these (at least of the first half).
            first: in the first iteration of a run nothing is replayed.

        Returns:
            () loss, detached.
        """
        self.generator.train()
        self.encoder.train()
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        half = len(images) // 2
        wanted, wanted_logits = images[:half], targets[:half]
        if not first:
            # original: the tuning's gradient stays in V's buffers and the loss below adds to it (D6)
            with frozen(self.generator) if self.clean_gradient else contextlib.nullcontext():
                replayed = self._replay()
            with torch.no_grad(), self.autocast():
                logits = self.teacher(replayed).to(wanted_logits.dtype)
            wanted, wanted_logits = torch.cat([wanted, replayed]), torch.cat([wanted_logits, logits])
        with self.autocast():
            z, mu, log_var = self.encoder(wanted, self.noise(len(wanted)))
            rebuilt = self.generator(z)
            logits = self.teacher(rebuilt)
        kind = wanted.dtype
        loss = autoencoder_loss(
            wanted, rebuilt.to(kind), wanted_logits, logits.to(kind), mu.to(kind), log_var.to(kind)
        )
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
        return loss.detach()

    def _replay(self) -> Tensor:
        """Draw latent vectors, tune them, decode them: two forward passes of V."""
        z = self.noise(self.count).requires_grad_()
        with self.autocast():
            logits = self.teacher(self.generator(z))
        latent_loss(logits.to(z.dtype), z, self.weights).backward()
        # why closed: this is the first step of a fresh Adam, which the original builds for every draw
        with torch.no_grad(), self.autocast():
            tuned = z - self.lr * z.grad / (z.grad.abs() + TUNING_EPSILON)
            self.tuning = Tuning(z.detach(), z.grad, tuned)
            return self.generator(tuned).to(z.dtype)

    def state_dict(self) -> dict[str, Any]:
        """Both networks and optimisers."""
        return {
            "generator": self.generator.state_dict(),
            "encoder": self.encoder.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }

    def load_state_dict(self, state: dict[str, Any], device: torch.device | None = None) -> None:
        """Go on from a saved state."""
        self.generator.load_state_dict(state["generator"])
        self.encoder.load_state_dict(state["encoder"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
