"""VGG-8, -11 and -13 with batch norm for small images.

Source: the form of HobbitLong/RepDistiller models/vgg.py that ljrprocc/DataFree@bf3096b carries.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from common.backbones.classifier import StagedClassifier, redraw_convolutions

WIDTHS = {
    8: ((64,), (128,), (256,), (512,), (512,)),
    11: ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    13: ((64, 64), (128, 128), (256, 256), (512, 512), (512, 512)),
}
"""Depth -> channels of every convolution, block by block."""

LARGE_IMAGE = 64
"""Images of this many pixels a side are pooled after the fourth block too."""


class VGG(StagedClassifier):
    """Five blocks of 3x3 convolution (with bias), norm and ReLU; 2x2 pooling after the first three.

    Args:
        widths: channels of every convolution, block by block.
        num_classes: outputs.
        in_channels: channels of the images.
    """

    def __init__(self, widths: Sequence[Sequence[int]], num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        inputs = in_channels
        for number, of_block in enumerate(widths):
            layers: list[nn.Module] = []
            for width in of_block:
                layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
                inputs = width
            setattr(self, f"block{number}", nn.Sequential(*layers))
        self.num_features = inputs
        self.classifier = nn.Linear(inputs, num_classes)
        redraw_convolutions(self, linear_std=0.01)  # rng: second draw, after the default initialisation

    def stages(self, images: Tensor) -> list[Tensor]:
        """Maps after the five blocks, before their pooling, and the feature vector."""
        is_large = images.shape[-1] >= LARGE_IMAGE
        maps, x = [], images
        for number in range(5):
            x = getattr(self, f"block{number}")(x)
            maps.append(x)
            if number < 3 or (number == 3 and is_large):
                x = F.max_pool2d(x, 2)
        return [*maps, F.adaptive_avg_pool2d(x, 1).flatten(1)]

    def classify(self, features: Tensor) -> Tensor:
        """(B, num_features) -> logits."""
        return self.classifier(features)


def vgg(depth: int, num_classes: int = 10, in_channels: int = 3) -> VGG:
    """VGG-8, -11 or -13."""
    return VGG(WIDTHS[depth], num_classes, in_channels)
