"""Testing a network on real images, and comparing it with its teacher."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from common.training.precision import Precision, evaluating
from curriculum_dfkd.data import DeviceLoader, StreamLoader
from curriculum_dfkd.metrics import ClassificationMeter, FidelityMeter


class Evaluator:
    """Tests networks on one set of images.

    Args:
        loader: test images in a fixed order.
        precision: number format of forward passes.
        device: where the meters lie.
        teacher: its answers are computed once and kept, for `fidelity`; None: only accuracies.
    """

    def __init__(
        self, loader: DeviceLoader | StreamLoader, precision: Precision, device: torch.device,
        teacher: nn.Module | None = None,
    ) -> None:
        self.loader, self.precision, self.device = loader, precision, device
        self._answers = None if teacher is None else [self._logits(teacher, images) for images, _ in self.loader]

    def test(self, network: nn.Module) -> dict[str, float]:
        """acc1, acc5 (percent), ce; with a teacher also agreement (percent), loyalty (0 to 1) and kl."""
        meter, fidelity = ClassificationMeter(self.device), FidelityMeter(self.device)
        for number, (images, target) in enumerate(self.loader):
            logits = self._logits(network, images)
            meter.add(logits, target)
            if self._answers is not None:
                fidelity.add(logits, self._answers[number])
        return meter.values() | (fidelity.values() if self._answers is not None else {})

    def _logits(self, network: nn.Module, images: Tensor) -> Tensor:
        with evaluating(network), self.precision.autocast():
            return network(images).float()
