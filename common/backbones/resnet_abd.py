"""The CIFAR residual networks of Always-Be-Dreaming, with one linear layer over all classes from the start.

Written from their recorded behaviour. Original: GT-RIPL/AlwaysBeDreaming-DFCIL@9295039 models/resnet.py.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from common.backbones.heads import Backbone
from common.backbones.staged import every_nth, spatial_mean


class _Block(nn.Module):
    """Two 3x3 convolutions plus the shortcut, then ReLU; a stride block pads the channels equally on both sides."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.stride, self.pad = stride, (outputs - inputs) // 2
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""
        residual = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride != 1 or self.pad:
            x = F.pad(every_nth(x, self.stride), (0, 0, 0, 0, self.pad, self.pad))
        return F.relu(residual + x)


class ABDResNet(Backbone):
    """Three stages of 16, 32 and 64 channels, average pooling, `last` with bias.

    Args:
        blocks: blocks of each of the three stages.
        out_dim: outputs, one per class of all tasks together.
    """

    def __init__(self, blocks: tuple[int, int, int], out_dim: int) -> None:
        super().__init__()
        self.num_features = 64
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        inputs = 16
        for stage, (count, outputs) in enumerate(zip(blocks, (16, 32, 64), strict=True), start=1):
            first = _Block(inputs, outputs, stride=1 if stage == 1 else 2)
            setattr(self, f"layer{stage}", nn.Sequential(first, *(_Block(outputs, outputs) for _ in range(count - 1))))
            inputs = outputs
        self.last = nn.Linear(64, out_dim)
        for module in self.modules():  # rng: one normal draw per layer, in order of construction
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)

    def embed(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 64), the mean over space of the last stage."""
        x = F.relu(self.bn1(self.conv1(images)))
        return spatial_mean(self.layer3(self.layer2(self.layer1(x))))


def resnet32(out_dim: int) -> ABDResNet:
    """The network of the CIFAR and Tiny-ImageNet scripts; 470,004 parameters for 100 outputs."""
    return ABDResNet((5, 5, 5), out_dim)


def resnet18(out_dim: int) -> ABDResNet:
    """What the original's `resnet18` builds: of the list [2, 2, 2, 2] only three stages are used."""
    return ABDResNet((2, 2, 2), out_dim)
