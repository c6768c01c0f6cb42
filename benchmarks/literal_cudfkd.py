"""CuDFKD's two steps as the release computes them, waste included: what the speed-up is measured against.

The norm hooks listen in every forward pass of the teacher and copy each activation for its variance; teacher and
student keep gradients for their weights while images are made; every student step sorts its images and draws labels,
both unused; metrics are read from the device at every step. Source: ljrprocc/DataFree@bf3096b, described in words.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.backbones.classifier import StagedClassifier
from curriculum_dfkd.images import Normaliser


class LiteralHook:
    """Distance of a norm layer's input statistics, computed in every forward pass."""

    def __init__(self, layer: nn.BatchNorm2d) -> None:
        self.distance: Tensor
        layer.register_forward_hook(self.listen)

    def listen(self, layer: nn.BatchNorm2d, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        x = inputs[0]
        mean = x.mean([0, 2, 3])
        variance = x.permute(1, 0, 2, 3).contiguous().view(x.shape[1], -1).var(1, unbiased=False)
        self.distance = torch.norm(layer.running_var.detach() - variance, 2) + torch.norm(
            layer.running_mean.detach() - mean, 2
        )


class LiteralCuDFKD:
    """Generator step and student step.

    Args:
        teacher, student, generator: on the CPU; hooks stay on the teacher.
        normalise: from [0, 1].
        adversarial: weight of the adversarial term.
        temperature: `--T`.
        threshold: lambda.
    """

    def __init__(
        self,
        teacher: StagedClassifier,
        student: StagedClassifier,
        generator: nn.Module,
        normalise: Normaliser,
        *,
        adversarial: float,
        temperature: float,
        threshold: float,
        lr: float = 0.1,
        lr_g: float = 1e-3,
    ) -> None:
        self.teacher, self.student, self.generator, self.normalise = teacher, student, generator, normalise
        self.adversarial, self.temperature, self.threshold = adversarial, temperature, threshold
        self.hooks = [LiteralHook(layer) for layer in teacher.modules() if isinstance(layer, nn.BatchNorm2d)]
        self.generator_optimizer = torch.optim.Adam(generator.parameters(), lr=lr_g, betas=(0.9, 0.99))
        self.student_optimizer = torch.optim.SGD(student.parameters(), lr=lr, momentum=0.9, weight_decay=1e-4)

    def generator_step(self, z: Tensor) -> float:
        """Entropy -20, certainty 1, statistics 1, and the adversarial term."""
        self.student.eval()
        self.generator.train()
        images = self.normalise(self.generator(z))
        logits, features = self.teacher.with_features(images)
        distance = sum(hook.distance for hook in self.hooks)
        certainty = F.cross_entropy(logits, logits.max(1)[1])
        activation = -features.abs().mean()
        mean = F.softmax(logits / self.temperature, 1).mean(0)
        entropy = -(mean * mean.log()).sum()
        loss = -20 * entropy + certainty + distance + 0.0 * activation
        if self.adversarial > 0:
            student = self.student(images)
            agreed = (student.max(1)[1] == logits.max(1)[1]).float()
            divergence = 9 * F.kl_div(F.log_softmax(student / 3, 1), F.softmax(logits / 3, 1), reduction="none").sum(1)
            loss = loss - self.adversarial * (divergence * agreed).mean()
        self.generator_optimizer.zero_grad()
        loss.backward()
        self.generator_optimizer.step()
        return loss.item()

    def student_step(self, z: Tensor) -> float:
        """L1 between the logits under the log curriculum."""
        self.student.train()
        self.generator.eval()
        with torch.no_grad():
            images = self.normalise(self.generator(z))
            torch.randint(0, 10, (len(z),))
            torch.sort(images.flatten())
            wanted = self.teacher(images)
        logits = self.student(images.detach())
        loss = F.l1_loss(logits, wanted.detach())
        value = loss.detach()
        weight = (1 + math.exp(-self.threshold)) / (1 + torch.exp(value - self.threshold))
        loss = weight * loss
        self.student_optimizer.zero_grad()
        loss.backward()
        self.student_optimizer.step()
        (logits.max(1)[1] == wanted.max(1)[1]).float().mean().item()
        F.kl_div(F.log_softmax(logits.detach(), 1), F.softmax(wanted, 1), reduction="batchmean").item()
        return loss.item()
