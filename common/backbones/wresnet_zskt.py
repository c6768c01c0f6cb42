"""Wide residual networks for 32x32 images.

Source: the form of polo5/ZeroShotKnowledgeTransfer@e24915d models/wresnet.py, which zju-vipa/CMI@9e79fa9,
ljrprocc/DataFree@bf3096b and gaurav104/LRA@40a8941 carry on with the same keys and numbers.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from common.backbones.classifier import StagedClassifier, redraw_convolutions


class PreActivationUnit(nn.Module):
    """Norm and ReLU before each of two 3x3 convolutions.

    Where the width changes, the 1x1 shortcut starts from the activated input; else the raw input is added.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.convShortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, outputs, h / stride, w / stride)."""
        activated = F.relu(self.bn1(x))
        y = self.conv2(F.relu(self.bn2(self.conv1(activated))))
        return y + (x if self.convShortcut is None else self.convShortcut(activated))


class WideBlock(nn.Module):
    """Units of one width; the first one has the stride."""

    def __init__(self, count: int, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.layer = nn.Sequential(
            *(
                PreActivationUnit(inputs if position == 0 else outputs, outputs, stride if position == 0 else 1)
                for position in range(count)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, outputs, h / stride, w / stride)."""
        return self.layer(x)


class WideResNet(StagedClassifier):
    """WRN-depth-widen.

    Args:
        depth: 6 n + 4 layers, n units per block.
        widen: factor of the widths 16, 32, 64.
        num_classes: outputs.
        in_channels: channels of the images.
    """

    def __init__(self, depth: int, widen: int, num_classes: int = 10, in_channels: int = 3) -> None:
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"depth is 6 n + 4 with n of at least 1, got {depth}")
        super().__init__()
        count, widths = (depth - 4) // 6, (16 * widen, 32 * widen, 64 * widen)
        self.conv1 = nn.Conv2d(in_channels, 16, 3, 1, 1, bias=False)
        self.block1 = WideBlock(count, 16, widths[0], 1)
        self.block2 = WideBlock(count, widths[0], widths[1], 2)
        self.block3 = WideBlock(count, widths[1], widths[2], 2)
        self.bn1 = nn.BatchNorm2d(widths[2])
        self.fc = nn.Linear(widths[2], num_classes)
        self.num_features = widths[2]
        redraw_convolutions(self)  # rng: second draw, after the default initialisation

    def stages(self, images: Tensor) -> list[Tensor]:
        """Maps after the three blocks (before the last norm and ReLU), and the feature vector."""
        first = self.block1(self.conv1(images))
        second = self.block2(first)
        third = self.block3(second)
        return [first, second, third, F.adaptive_avg_pool2d(F.relu(self.bn1(third)), 1).flatten(1)]

    def classify(self, features: Tensor) -> Tensor:
        """(B, num_features) -> logits."""
        return self.fc(features)
