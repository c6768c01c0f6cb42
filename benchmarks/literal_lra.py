"""One iteration of Ours-1 and Ours-2 as the release computes it, waste included: what the speed-up is measured against.

Copies of all weights for the imagined step, a differentiable inner step whose graph leads nowhere, the retention loss
back-propagated into the copies; gradients for the weights of teacher, student and memory generator wherever they are
passed through; the teacher asked twice about the same images; an Adam object per draw; doublings and convolutions one
by one. Source: gaurav104/LRA@40a8941, described in words.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from adversarial_dfkd.losses import Weights, autoencoder_loss, distillation_loss, generator_loss, latent_loss
from adversarial_dfkd.meta import WEIGHT_DECAY
from common.backbones.classifier import StagedClassifier
from common.backbones.enlarging import EnlargingConv2d


class EnlargeThenConvolve(nn.Conv2d):
    """The joined layer's two steps one by one."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, I, h, w) -> (B, O, 2 h, 2 w)."""
        return F.conv2d(F.interpolate(x, scale_factor=2), self.weight, self.bias, padding=1)


def take_apart(module: nn.Module) -> nn.Module:
    """Let every joined layer of a module compute step by step. why the class: a spectral norm hooks into the layer"""
    for layer in module.modules():
        if isinstance(layer, EnlargingConv2d):
            layer.__class__ = EnlargeThenConvolve
    return module


@dataclass
class LiteralIteration:
    """The steps of one outer iteration, with gradients for all weights, as in the release.

    Attributes:
        teacher, student, generator: networks.
        decoder, encoder: of the replay VAE; None for Ours-1.
        count: images to replay.
        lr_student, lr_generator, rate: learning rates; `rate` is the imagined step's.
    """

    teacher: StagedClassifier
    student: nn.Module
    generator: nn.Module
    decoder: nn.Module | None
    encoder: nn.Module | None
    count: int
    lr_student: float
    lr_generator: float
    rate: float

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.SGD(
            self.student.parameters(), lr=self.lr_student, momentum=0.9, weight_decay=WEIGHT_DECAY
        )
        self.generator_optimizer = torch.optim.Adam(self.generator.parameters(), lr=self.lr_generator)
        self.vae_optimizers = [
            torch.optim.Adam(part.parameters(), lr=self.lr_generator / 40)
            for part in (self.decoder, self.encoder) if part is not None
        ]  # fmt: skip
        for part in (self.generator, self.decoder):
            if part is not None:
                take_apart(part)

    def generator_step(self, z: Tensor) -> float:
        """One update of the novel generator."""
        self.generator.train()
        self.generator_optimizer.zero_grad()
        images = self.generator(z)
        logits, features = self.teacher.with_features(images)
        loss, adversarial = generator_loss(logits, features, self.student(images), Weights())
        loss.backward()
        self.generator_optimizer.step()
        adversarial.item()
        return loss.item()

    def student_step(self, z: Tensor, replay: Tensor) -> Tensor:
        """One update of the student; returns the novel images.

        Args:
            z: (B, D) latent vectors of the novel images.
            replay: (count, C, H, W) images of the bank (Ours-1), or (count, D) latent vectors to be tuned (Ours-2).
        """
        with torch.no_grad():
            images = self.generator(z)
        self.optimizer.zero_grad()
        if self.decoder is not None:
            self.decoder.eval()
            replay = self._replayed(replay)
        self.student.train()
        with torch.no_grad():
            acquired_targets, retained_targets = self.teacher(images), self.teacher(replay)
        copies = {name: value.detach().clone().requires_grad_() for name, value in self.student.named_parameters()}
        buffers = {name: value.clone() for name, value in self.student.named_buffers()}
        acquired = distillation_loss(functional_call(self.student, (copies, buffers), (images,)), acquired_targets)
        slopes = torch.autograd.grad(acquired, list(copies.values()), create_graph=True)
        stepped = {
            name: value - self.rate * (slope + WEIGHT_DECAY * value)
            for (name, value), slope in zip(copies.items(), slopes, strict=True)
        }
        retention = F.l1_loss(functional_call(self.student, (stepped, buffers), (replay,)), retained_targets)
        kd = F.l1_loss(self.student(torch.cat([images, replay])), torch.cat([acquired_targets, retained_targets]))
        (retention + kd).backward()
        self.optimizer.step()
        return images

    def memory_step(self, images: Tensor, z: Tensor, noise: Tensor) -> float:
        """One update of the VAE (not in a run's first iteration).

        Args:
            images: (B, C, H, W) novel images of the student step.
            z: (count, D) latent vectors to be tuned.
            noise: (B // 2 + count, D) of the encoder.
        """
        self.decoder.train()
        self.encoder.train()
        for optimizer in self.vae_optimizers:
            optimizer.zero_grad()
        wanted = torch.cat([images[: len(images) // 2], self._replayed(z)])
        with torch.no_grad():
            targets = self.teacher(wanted)
        drawn, mu, log_var = self.encoder(wanted, noise)
        rebuilt = self.decoder(drawn)
        loss = autoencoder_loss(wanted, rebuilt, targets, self.teacher(rebuilt), mu, log_var)
        loss.backward()
        for optimizer in self.vae_optimizers:
            optimizer.step()
        return loss.item()

    def _replayed(self, z: Tensor) -> Tensor:
        z = z.clone().requires_grad_()
        optimizer = torch.optim.Adam([z], lr=self.lr_generator)
        latent_loss(self.teacher(self.decoder(z)), z, Weights()).backward()
        optimizer.step()
        with torch.no_grad():
            return self.decoder(z)
