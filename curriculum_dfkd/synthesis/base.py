"""What every synthesiser offers: calls of several steps that can be interrupted, and batches for the student.

A round of the training loop is one call (`begin`, `steps` times `step`, `finish`) and then batches (`training_images`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from common.backbones.classifier import StagedClassifier
from common.training.precision import Precision
from curriculum_dfkd.images import Normaliser


def draw_noise(count: int, length: int, device: torch.device) -> Tensor:
    """(count, length) standard normal numbers from the device's global generator. # rng: one draw"""
    return torch.randn(count, length, device=device)


@dataclass(frozen=True)
class Networks:
    """What a synthesiser works against.

    Attributes:
        teacher: in evaluation mode, without gradients for its weights.
        student: in training; a synthesiser only looks at it.
        normalise: from [0, 1] to what both networks see.
        num_classes: outputs of both.
        channels, img_size: of the images.
        precision: number format of forward passes.
        device: where everything lies.
        noise: source of noise vectors.
    """

    teacher: StagedClassifier
    student: StagedClassifier
    normalise: Normaliser
    num_classes: int
    channels: int
    img_size: int
    precision: Precision
    device: torch.device
    noise: Callable[[int, int, torch.device], Tensor] = draw_noise


@dataclass
class Report:
    """What one synthesis step did; tensors on the device, detached.

    Attributes:
        terms: unweighted terms of the loss by name, and the minimised "loss".
        logits: (B, K) of the teacher.
        images: (B, C, H, W) in [0, 1], before the step.
        extra: what single methods add.
    """

    terms: dict[str, Tensor]
    logits: Tensor
    images: Tensor
    extra: dict[str, Tensor] = field(default_factory=dict)


class Synthesiser:
    """Interface and defaults.

    Attributes:
        steps: optimisation steps per call.
        newest: (N, C, H, W) in [0, 1], the newest synthetic images, for grids; None before the first step.
    """

    steps: int
    newest: Tensor | None = None

    def begin(self) -> None:
        """Open a call."""

    def step(self) -> Report:
        """One optimisation step."""
        raise NotImplementedError

    def finish(self) -> None:
        """Close a call: what was made becomes available to the student."""

    def training_images(self) -> Tensor:
        """(B, C, H, W) normalised images for one student step."""
        raise NotImplementedError

    def close_epoch(self, epoch: int) -> None:
        """After `epoch` epochs (counted from 1) are done."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that an exact resume needs, inside a call too."""
        raise NotImplementedError

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        raise NotImplementedError


@contextlib.contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """No gradients for the weights of a module; the images' gradients are the same."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def weighted_sum(weights: dict[str, float], terms: dict[str, Tensor]) -> Tensor:
    """sum of weight * term over the terms with a weight that is not 0, in the order of `weights`.

    Raises:
        ValueError: if every weight is 0: there would be nothing to minimise.
    """
    parts = [weight * terms[name] for name, weight in weights.items() if weight != 0]
    if not parts:
        raise ValueError("all weights of the synthesis loss are 0")
    return sum(parts[1:], start=parts[0])
