"""ResNet-8 to -110 and the four times wider ResNet-8x4 and -32x4, in three stages.

Source: the form of HobbitLong/RepDistiller models/resnet.py that ljrprocc/DataFree@bf3096b carries.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from common.backbones.classifier import StagedClassifier

NARROW, WIDE = (16, 16, 32, 64), (32, 64, 128, 256)
"""Channels of the stem and of the three stages."""


class Unit(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        changes = stride != 1 or inputs != width
        self.downsample = (
            nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width)) if changes else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, width, h / stride, w / stride)."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ThreeStageResNet(StagedClassifier):
    """Stem, three stages of (depth - 2) / 6 units, mean over the last map, linear classifier.

    Args:
        depth: 6 n + 2.
        widths: `NARROW` or `WIDE`.
        num_classes: outputs.
        in_channels: channels of the images.
    """

    def __init__(
        self, depth: int, widths: tuple[int, int, int, int] = NARROW, num_classes: int = 10, in_channels: int = 3
    ) -> None:
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"depth is 6 n + 2 with n of at least 1, got {depth}")
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        inputs = widths[0]
        for stage, width in enumerate(widths[1:], start=1):
            units = []
            for position in range((depth - 2) // 6):
                units.append(Unit(inputs, width, 2 if stage > 1 and position == 0 else 1))
                inputs = width
            setattr(self, f"layer{stage}", nn.Sequential(*units))
        self.num_features = inputs
        self.fc = nn.Linear(inputs, num_classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")  # rng: second draw

    def stages(self, images: Tensor) -> list[Tensor]:
        """Maps after the three stages, and the feature vector."""
        x = F.relu(self.bn1(self.conv1(images)))
        maps = []
        for layer in (self.layer1, self.layer2, self.layer3):
            x = layer(x)
            maps.append(x)
        return [*maps, F.adaptive_avg_pool2d(x, 1).flatten(1)]

    def classify(self, features: Tensor) -> Tensor:
        """(B, num_features) -> logits."""
        return self.fc(features)
