"""ResNet-18/34/50 for 32x32 images: 3x3 stem of stride 1, no pooling before the stages.

Source: ljrprocc/DataFree@bf3096b datafree/models/classifiers/resnet.py (its form for CIFAR) and the equal network of
gaurav104/LRA@40a8941 src/networks/resnet.py, which takes the number of image channels too.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from common.backbones.classifier import StagedClassifier

WIDTHS = (64, 128, 256, 512)


def convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the size at stride 1."""
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)


class BasicUnit(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = convolution(inputs, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = convolution(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = make_shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, width, h / stride, w / stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class BottleneckUnit(nn.Module):
    """1x1, 3x3 and 1x1 convolutions around a shortcut; four times as many channels at the end."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = self.expansion * width
        self.conv1 = convolution(inputs, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = convolution(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = convolution(width, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.shortcut = make_shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, 4 width, h / stride, w / stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + self.shortcut(x))


def make_shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """The identity, or 1x1 convolution and norm where the shape changes."""
    if stride == 1 and inputs == outputs:
        return nn.Sequential()
    return nn.Sequential(convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


class ResNetCIFAR(StagedClassifier):
    """Stem, four stages, mean over the last map, linear classifier.

    Args:
        unit: BasicUnit or BottleneckUnit.
        blocks: units per stage.
        num_classes: outputs.
        in_channels: channels of the images.
    """

    def __init__(
        self, unit: type[BasicUnit | BottleneckUnit], blocks: Sequence[int], num_classes: int = 10, in_channels: int = 3
    ) -> None:
        super().__init__()
        self.conv1 = convolution(in_channels, WIDTHS[0], 3)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        inputs = WIDTHS[0]
        for stage, (width, count) in enumerate(zip(WIDTHS, blocks, strict=True), start=1):
            units = []
            for position in range(count):
                units.append(unit(inputs, width, 2 if stage > 1 and position == 0 else 1))
                inputs = width * unit.expansion
            setattr(self, f"layer{stage}", nn.Sequential(*units))
        self.num_features = inputs
        self.linear = nn.Linear(inputs, num_classes)

    def stages(self, images: Tensor) -> list[Tensor]:
        """Maps after the four stages (32, 16, 8, 4 pixels a side for 32x32 images), and the feature vector."""
        x = F.relu(self.bn1(self.conv1(images)))
        maps = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            maps.append(x)
        return [*maps, F.adaptive_avg_pool2d(x, 1).flatten(1)]

    def classify(self, features: Tensor) -> Tensor:
        """(B, num_features) -> logits."""
        return self.linear(features)


resnet18_cifar = partial(ResNetCIFAR, BasicUnit, (2, 2, 2, 2))
resnet34_cifar = partial(ResNetCIFAR, BasicUnit, (3, 4, 6, 3))
resnet50_cifar = partial(ResNetCIFAR, BottleneckUnit, (3, 4, 6, 3))
