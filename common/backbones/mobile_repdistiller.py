"""MobileNetV2 at half width and ShuffleNetV2 for 32x32 images.

Source: architectures as in HobbitLong/RepDistiller models/{mobilenetv2,ShuffleNetv2}.py, which
ljrprocc/DataFree@bf3096b registers. No recording of them was available; the parameter counts agree with the published
ones (0.81 M and 1.36 M for 100 classes).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.backbones.classifier import StagedClassifier

MOBILE_SETTINGS = (
    (1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip
"""Expansion, channels at full width, units, stride of the first unit."""


def block(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1, relu: bool = True) -> nn.Sequential:
    """Convolution without bias, norm, and ReLU if asked for."""
    layers = [nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, *([nn.ReLU()] if relu else []))


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, 1x1 projection; added to the input where the shape stays."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.conv = nn.Sequential(
            block(inputs, hidden, 1),
            block(hidden, hidden, 3, stride, groups=hidden),
            block(hidden, outputs, 1, relu=False),
        )
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, outputs, h / stride, w / stride)."""
        return x + self.conv(x) if self.adds else self.conv(x)


class MobileNetV2Half(StagedClassifier):
    """MobileNetV2 with half of the channels; the stem has stride 2."""

    def __init__(self, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        self.stem = block(in_channels, 16, 3, 2)
        inputs, groups = 16, []
        for expansion, channels, count, stride in MOBILE_SETTINGS:
            units = []
            for position in range(count):
                units.append(InvertedResidual(inputs, channels // 2, stride if position == 0 else 1, expansion))
                inputs = channels // 2
            groups.append(nn.Sequential(*units))
        self.groups = nn.ModuleList(groups)
        self.num_features = 1280
        self.last = block(inputs, self.num_features, 1)
        self.classifier = nn.Linear(self.num_features, num_classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                fan_out = layer.kernel_size[0] * layer.kernel_size[1] * layer.out_channels
                nn.init.normal_(layer.weight, 0.0, (2.0 / fan_out) ** 0.5)
            elif isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, 0.0, 0.01)
                nn.init.zeros_(layer.bias)

    def stages(self, images: Tensor) -> list[Tensor]:
        """Maps after the seven groups, and the feature vector."""
        x = self.stem(images)
        maps = []
        for group in self.groups:
            x = group(x)
            maps.append(x)
        return [*maps, F.adaptive_avg_pool2d(self.last(x), 1).flatten(1)]

    def classify(self, features: Tensor) -> Tensor:
        """(B, 1280) -> logits."""
        return self.classifier(features)


class ShuffleUnit(nn.Module):
    """Half of the channels pass, half are convolved; with stride 2 both halves are convolved. Then channels mix."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.splits = stride == 1
        half = outputs // 2
        first = inputs // 2 if self.splits else inputs
        self.branch = nn.Sequential(
            block(first, half, 1), block(half, half, 3, stride, groups=half, relu=False), block(half, half, 1)
        )
        self.shortcut = None
        if not self.splits:
            self.shortcut = nn.Sequential(
                block(inputs, inputs, 3, stride, groups=inputs, relu=False), block(inputs, half, 1)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, outputs, h / stride, w / stride)."""
        kept, worked = x.chunk(2, dim=1) if self.shortcut is None else (self.shortcut(x), x)
        joined = torch.cat([kept, self.branch(worked)], dim=1)
        size, channels, height, width = joined.shape
        return joined.view(size, 2, channels // 2, height, width).transpose(1, 2).reshape(joined.shape)


class ShuffleNetV2(StagedClassifier):
    """ShuffleNetV2 at width 1; the stem is a 1x1 convolution of stride 1."""

    def __init__(self, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        self.stem = block(in_channels, 24, 1)
        inputs, groups = 24, []
        for outputs, count in ((116, 3), (232, 7), (464, 3)):
            same = (ShuffleUnit(outputs, outputs, 1) for _ in range(count))
            groups.append(nn.Sequential(ShuffleUnit(inputs, outputs, 2), *same))
            inputs = outputs
        self.groups = nn.ModuleList(groups)
        self.num_features = 1024
        self.last = block(inputs, self.num_features, 1)
        self.classifier = nn.Linear(self.num_features, num_classes)

    def stages(self, images: Tensor) -> list[Tensor]:
        """Maps after the three groups, and the feature vector."""
        x = self.stem(images)
        maps = []
        for group in self.groups:
            x = group(x)
            maps.append(x)
        return [*maps, F.adaptive_avg_pool2d(self.last(x), 1).flatten(1)]

    def classify(self, features: Tensor) -> Tensor:
        """(B, 1024) -> logits."""
        return self.classifier(features)
