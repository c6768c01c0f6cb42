"""The student step of Ours-2 as the release computes it, waste included: what the speed-up is measured against.

Copies of all weights for the imagined step, a differentiable inner step whose graph leads nowhere, the retention loss
back-propagated into the copies, gradients for the weights of teacher and memory generator, an Adam object per draw.
Source: gaurav104/LRA@40a8941, described in words.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from adversarial_dfkd.losses import Weights, distillation_loss, latent_loss
from adversarial_dfkd.meta import WEIGHT_DECAY


class LiteralStudentStep:
    """One update of a student by generative replay and the disconnected meta-learning term.

    Args:
        student, teacher, decoder: with gradients for all weights, as in the release.
        optimizer: of the student.
        count: images to replay.
        lr: of the latent tuning.
        rate: of the imagined step.
    """

    def __init__(
        self, student: nn.Module, teacher: nn.Module, decoder: nn.Module, optimizer: torch.optim.Optimizer, *,
        count: int, lr: float, rate: float,
    ) -> None:  # fmt: skip
        self.student, self.teacher, self.decoder, self.optimizer = student, teacher, decoder, optimizer
        self.count, self.lr, self.rate = count, lr, rate

    def __call__(self, images: Tensor, z: Tensor) -> Tensor:
        """One step; returns L_ret + L_kd.

        Args:
            images: (B, C, H, W) novel images.
            z: (count, latent_dim) latent vectors to be tuned.
        """
        self.optimizer.zero_grad()
        replayed = self._replay(z)
        self.student.train()
        with torch.no_grad():
            acquired_targets, retained_targets = self.teacher(images), self.teacher(replayed)
        copies = {name: value.detach().clone().requires_grad_() for name, value in self.student.named_parameters()}
        buffers = {name: value.clone() for name, value in self.student.named_buffers()}
        acquired = distillation_loss(functional_call(self.student, (copies, buffers), (images,)), acquired_targets)
        slopes = torch.autograd.grad(acquired, list(copies.values()), create_graph=True)
        stepped = {
            name: value - self.rate * (slope + WEIGHT_DECAY * value)
            for (name, value), slope in zip(copies.items(), slopes, strict=True)
        }
        retention = F.l1_loss(functional_call(self.student, (stepped, buffers), (replayed,)), retained_targets)
        everything = torch.cat([images, replayed])
        kd = F.l1_loss(self.student(everything), torch.cat([acquired_targets, retained_targets]))
        total = retention + kd
        total.backward()
        self.optimizer.step()
        return total.detach()

    def _replay(self, z: Tensor) -> Tensor:
        self.decoder.eval()
        z = z.clone().requires_grad_()
        optimizer = torch.optim.Adam([z], lr=self.lr)
        latent_loss(self.teacher(self.decoder(z)), z, Weights()).backward()
        optimizer.step()
        with torch.no_grad():
            return self.decoder(z)
