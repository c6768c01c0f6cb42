"""The two residual networks of cl-lite, as used by R-DFCIL, RFD and the port of ABD.

Written from their recorded behaviour. Original: gqk/cl-lite@f0ddf02 backbone/resnet_cifar.py, backbone/resnet.py.
They differ from the usual networks of the same depth: no ReLU follows most additions (features keep their sign), the
last map is not pooled, and every block starts as its shortcut (last batch norm at weight 0).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from common.backbones.staged import StagedBackbone, every_nth, initialise_residual


class _CifarBlock(nn.Module):
    """Two 3x3 convolutions plus the shortcut; no ReLU after the addition.

    The shortcut of a stride block takes every second row and column and appends channels of zeros at the end.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.stride, self.extra_channels = stride, outputs - inputs
        self.conv_a = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn_a = nn.BatchNorm2d(outputs)
        self.conv_b = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn_b = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""
        residual = self.bn_b(self.conv_b(F.relu(self.bn_a(self.conv_a(x)))))
        if self.stride != 1 or self.extra_channels:
            x = F.pad(every_nth(x, self.stride), (0, 0, 0, 0, 0, self.extra_channels))
        return residual + x


class _Blocks(nn.Module):
    """Blocks one after the other; gives state entries their level `blocks`."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Through all blocks."""
        return self.blocks(x)


class CifarResNet(StagedBackbone):
    """The network for 32 x 32 and 64 x 64 images; n = 5 and 16 channels are the published `resnet32`.

    Args:
        blocks: n, at least 2: n blocks in stages 1 and 2, n - 1 in stage 3, one in stage 4.
        width: channels of stage 1; stages 2 to 4 have 2, 4 and 4 times as many.
    """

    def __init__(self, blocks: int = 5, width: int = 16) -> None:
        super().__init__()
        if blocks < 2 or width < 1:
            raise ValueError(f"blocks must be at least 2 and width at least 1, got {blocks} and {width}")
        self.num_features = 4 * width
        self.conv_1_3x3 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn_1 = nn.BatchNorm2d(width)
        self.stage_1 = _Blocks(*(_CifarBlock(width, width) for _ in range(blocks)))
        self.stage_2 = _Blocks(
            _CifarBlock(width, 2 * width, 2), *(_CifarBlock(2 * width, 2 * width) for _ in range(blocks - 1))
        )
        self.stage_3 = _Blocks(
            _CifarBlock(2 * width, 4 * width, 2), *(_CifarBlock(4 * width, 4 * width) for _ in range(blocks - 2))
        )
        self.stage_4 = _CifarBlock(4 * width, 4 * width)
        initialise_residual(self, [module.bn_b for module in self.modules() if isinstance(module, _CifarBlock)])

    def first_stage(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, width, H, W)."""
        return self.stage_1(F.relu(self.bn_1(self.conv_1_3x3(images))))

    def later_stages(self, first: Tensor) -> list[Tensor]:
        """(N, width, H, W) -> maps of 2 width at H / 2, 4 width at H / 4, 4 width at H / 4."""
        second = self.stage_2(first)
        third = self.stage_3(second)
        return [second, third, self.stage_4(third)]


class _Block18(nn.Module):
    """Two 3x3 convolutions plus the shortcut (1x1 convolution where the shape changes); ReLU at the end on request."""

    def __init__(self, inputs: int, outputs: int, stride: int, relu_at_end: bool) -> None:
        super().__init__()
        self.relu_at_end = relu_at_end
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            convolution = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(convolution, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""
        residual = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        out = residual + (x if self.downsample is None else self.downsample(x))
        return F.relu(out) if self.relu_at_end else out


class ImageNetResNet18(StagedBackbone):
    """The network for 224 x 224 images: 3x3 stem of stride 1, max pooling, four layers of two blocks.

    Only the first block of each layer ends with a ReLU. State names are those of torchvision's resnet18 without fc.
    """

    def __init__(self) -> None:
        super().__init__()
        self.num_features = 512
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        widths = (64, 64, 128, 256, 512)
        for layer, (inputs, outputs) in enumerate(zip(widths, widths[1:], strict=False), start=1):
            first = _Block18(inputs, outputs, stride=1 if layer == 1 else 2, relu_at_end=True)
            second = _Block18(outputs, outputs, stride=1, relu_at_end=False)
            setattr(self, f"layer{layer}", nn.Sequential(first, second))
        initialise_residual(self, [module.bn2 for module in self.modules() if isinstance(module, _Block18)])

    def first_stage(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 64, H / 2, W / 2)."""
        stem = F.max_pool2d(F.relu(self.bn1(self.conv1(images))), 3, 2, 1)
        return self.layer1(stem)

    def later_stages(self, first: Tensor) -> list[Tensor]:
        """(N, 64, h, w) -> maps of 128, 256 and 512 channels, each half as wide as the one before."""
        second = self.layer2(first)
        third = self.layer3(second)
        return [second, third, self.layer4(third)]
