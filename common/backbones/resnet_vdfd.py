"""The pre-activation residual networks of VDFD, Adam-NSCL and their class-incremental siblings.

They are not the usual pre-activation ResNets: where a basic block keeps its shape, the shortcut carries the
batch-normalised, NOT rectified input `bn1(x)` instead of `x` (register of deviations: D9); the bottleneck block
carries `x`. None of the stems is followed by a pooling layer.

Source: XiaorongLi-95/VDFD@2c0dfce models/resnet.py (MIT); He et al., "Identity Mappings in Deep Residual Networks".
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from common.backbones.heads import Backbone

RESNET18_BLOCKS = (2, 2, 2, 2)
WIDTHS = (64, 128, 256, 512)


def _conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, bias=False)


class PreActBlock(nn.Module):
    """Two 3x3 convolutions; an identity shortcut starts after the first batch norm."""

    expansion = 1

    def __init__(self, in_planes: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_planes)
        self.conv1 = _conv(in_planes, planes, 3, stride)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv2 = _conv(planes, planes, 3)
        if stride != 1 or in_planes != planes:
            self.shortcut = nn.Sequential(_conv(in_planes, planes, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_planes, H, W) -> (B, planes, H / stride, W / stride)."""
        normalised = self.bn1(x)
        rectified = F.relu(normalised)
        shortcut = self.shortcut(rectified) if hasattr(self, "shortcut") else normalised  # original: not x (D9)
        y = F.relu(self.bn2(self.conv1(rectified)))
        return self.conv2(y) + shortcut


class PreActBottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution; an identity shortcut carries the block's input."""

    expansion = 4

    def __init__(self, in_planes: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_planes)
        self.conv1 = _conv(in_planes, planes, 1)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv2 = _conv(planes, planes, 3, stride)
        self.bn3 = nn.BatchNorm2d(planes)
        self.conv3 = _conv(planes, self.expansion * planes, 1)
        if stride != 1 or in_planes != self.expansion * planes:
            self.shortcut = nn.Sequential(_conv(in_planes, self.expansion * planes, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_planes, H, W) -> (B, 4 planes, H / stride, W / stride)."""
        rectified = F.relu(self.bn1(x))
        shortcut = self.shortcut(rectified) if hasattr(self, "shortcut") else x
        y = self.conv2(F.relu(self.bn2(self.conv1(rectified))))
        return self.conv3(F.relu(self.bn3(y))) + shortcut


class PreActResNet(Backbone):
    """Stem, four stages, a last batch norm and global average pooling.

    Args:
        block: `PreActBlock` or `PreActBottleneck`.
        blocks: blocks per stage.
        widths: planes per stage; the stem has the first of them.
        imagenet_stem: 7x7 convolution with stride 2 instead of 3x3 with stride 1 (no max-pool in either case).
        num_classes: outputs of the first classifier, which `set_heads` replaces.
    """

    def __init__(
        self,
        block: type[PreActBlock] | type[PreActBottleneck] = PreActBlock,
        blocks: Sequence[int] = RESNET18_BLOCKS,
        widths: Sequence[int] = WIDTHS,
        imagenet_stem: bool = False,
        num_classes: int = 10,
    ) -> None:
        super().__init__()
        if len(blocks) != len(widths):
            raise ValueError(f"one width per stage expected, found {len(widths)} widths for {len(blocks)} stages")
        planes_in = widths[0]
        self.conv1 = _conv(3, planes_in, 7, 2) if imagenet_stem else _conv(3, planes_in, 3)
        self.num_stages = len(blocks)
        for index, (count, planes) in enumerate(zip(blocks, widths, strict=True), start=1):
            stage = []
            for position in range(count):
                stage.append(block(planes_in, planes, stride=2 if index > 1 and position == 0 else 1))
                planes_in = planes * block.expansion
            self.add_module(f"stage{index}", nn.Sequential(*stage))
        self.bn_last = nn.BatchNorm2d(planes_in)
        self.num_features = planes_in
        # rng: drawn although `set_heads` discards it, as the original does
        self.last = nn.Linear(planes_in, num_classes)

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised images -> (B, F)."""
        x = self.conv1(images)
        for index in range(1, self.num_stages + 1):
            x = getattr(self, f"stage{index}")(x)
        return F.relu(self.bn_last(x)).mean(dim=(2, 3))


def resnet18(blocks: Sequence[int] = RESNET18_BLOCKS, widths: Sequence[int] = WIDTHS) -> PreActResNet:
    """Basic blocks behind a 3x3 stem; 11,167,040 parameters without heads at the default widths."""
    return PreActResNet(PreActBlock, blocks, widths)


def resnet32() -> PreActResNet:
    """Basic blocks (3, 4, 6, 3) behind a 7x7 stem: the size that is called ResNet-34 elsewhere."""
    return PreActResNet(PreActBlock, (3, 4, 6, 3), imagenet_stem=True)


def resnet50() -> PreActResNet:
    """Bottleneck blocks (3, 4, 6, 3) behind a 7x7 stem without max-pool."""
    return PreActResNet(PreActBottleneck, (3, 4, 6, 3), imagenet_stem=True)


def resnet101() -> PreActResNet:
    """Bottleneck blocks (3, 4, 23, 3) behind a 7x7 stem without max-pool."""
    return PreActResNet(PreActBottleneck, (3, 4, 23, 3), imagenet_stem=True)
