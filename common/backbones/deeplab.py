"""DeepLabV3 on a residual network with activated batch norms, as PLOP's code has it.

Layout, state-dict keys and outputs of arthurdouillard/CVPR2021_PLOP (commit 4b4a060) models/resnet.py,
modules/residual.py and modules/deeplab.py, which go back to mapillary/inplace_abn. No convolution has a bias.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.backbones.abn import MakeNorm

SLOPE = 0.01
"""Of every leaky ReLU."""

STRUCTURES: dict[str, tuple[tuple[int, int, int, int], bool]] = {
    "resnet101": ((3, 4, 23, 3), True),
    "resnet50": ((3, 4, 6, 3), True),
    "resnet26": ((2, 2, 2, 2), True),
    "resnet18": ((2, 2, 2, 2), False),
    "resnet14": ((1, 1, 1, 1), True),
}
"""Name -> blocks of the four stages, and whether they are bottlenecks."""


def conv(inputs: int, outputs: int, size: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the size of a map at stride 1."""
    padding = dilation * (size - 1) // 2
    return nn.Conv2d(inputs, outputs, size, stride=stride, padding=padding, dilation=dilation, bias=False)


class DilatedConv2d(nn.Conv2d):
    """A 3 x 3 convolution of stride 1 that leaves out taps which see nothing but padding.

    With a dilation of at least the map's height (width), its upper and lower (left and right) taps lie outside
    wherever the centre is; their products are 0, and so are their gradients.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H, W)."""
        reach = [size > dilation for size, dilation in zip(x.shape[2:], self.dilation, strict=True)]
        if all(reach):
            return super().forward(x)
        rows, columns = (slice(None) if reaches else slice(1, 2) for reaches in reach)
        padding = [dilation if reaches else 0 for reaches, dilation in zip(reach, self.dilation, strict=True)]
        return F.conv2d(x, self.weight[:, :, rows, columns], self.bias, 1, padding, self.dilation)


class ResidualBlock(nn.Module):
    """Basic block (two channel numbers) or bottleneck (three).

    Args:
        inputs: channels of the input.
        channels: of the convolutions.
        norm: channels -> activated norm.
        stride: of the first 3 x 3 convolution.
        dilation: of the 3 x 3 convolutions.
        last: whether it is the last block of a stage, which also returns a map to distil.

    Attributes:
        taps_before: whether that map is the sum before the activation (as released) or the activated output.
    """

    def __init__(
        self, inputs: int, channels: Sequence[int], norm: MakeNorm, stride: int = 1, dilation: int = 1,
        last: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.last, self.taps_before = last, True
        if len(channels) == 2:
            first, second = channels
            layers = [
                ("conv1", conv(inputs, first, 3, stride, dilation)), ("bn1", norm(first)),
                ("conv2", conv(first, second, 3, 1, dilation)), ("bn2", _without_activation(norm(second))),
            ]  # fmt: skip
        else:
            first, second, third = channels
            layers = [
                ("conv1", conv(inputs, first, 1)), ("bn1", norm(first)),
                ("conv2", conv(first, second, 3, stride, dilation)), ("bn2", norm(second)),
                ("conv3", conv(second, third, 1)), ("bn3", _without_activation(norm(third))),
            ]  # fmt: skip
        self.convs = nn.Sequential(OrderedDict(layers))
        add_projection(self, inputs, channels[-1], norm, stride)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """(B, inputs, H, W) -> (B, channels[-1], H / stride, W / stride); the last block of a stage: and a map."""
        return activated_sum(self, self.convs(x) + shortcut(self, x))


def add_projection(block: nn.Module, inputs: int, outputs: int, norm: MakeNorm, stride: int) -> None:
    """Give a block `proj_conv` and `proj_bn` where its input does not fit its output."""
    if stride != 1 or inputs != outputs:
        block.proj_conv = conv(inputs, outputs, 1, stride)
        block.proj_bn = _without_activation(norm(outputs))


def shortcut(block: nn.Module, x: Tensor) -> Tensor:
    """What a block adds to its convolutions' result."""
    return block.proj_bn(block.proj_conv(x)) if hasattr(block, "proj_conv") else x


def activated_sum(block: nn.Module, total: Tensor) -> Tensor | tuple[Tensor, Tensor]:
    """What a block returns, from the sum of its convolutions and its shortcut."""
    if block.last and block.taps_before:
        return F.leaky_relu(total, SLOPE), total
    activated = F.leaky_relu(total, SLOPE, inplace=True)
    return (activated, activated) if block.last else activated


def tap_maps(network: nn.Module, before: bool) -> None:
    """Choose the maps that the last blocks of the stages give: before or after the activation."""
    for part in network.modules():
        if hasattr(part, "taps_before"):
            part.taps_before = before


def _without_activation(norm: nn.Module) -> nn.Module:
    norm.activation = "identity"
    return norm


class ResNet(nn.Module):
    """Residual network without classifier.

    Args:
        structure: blocks of the four stages.
        bottleneck: kind of the blocks.
        norm: channels -> activated norm.
        output_stride: 16 or 8: reduction of the last map.
        width: channels of the stem (64 as published).
        block: constructor of the blocks, arguments as `ResidualBlock`.

    Attributes:
        channels: of the last map.
    """

    def __init__(
        self,
        structure: Sequence[int],
        bottleneck: bool,
        norm: MakeNorm,
        output_stride: int = 16,
        width: int = 64,
        block: Callable[..., nn.Module] = ResidualBlock,
    ) -> None:
        super().__init__()
        dilations = {16: (1, 1, 1, 2), 8: (1, 1, 2, 4)}.get(output_stride)
        if dilations is None:
            raise ValueError(f"output_stride: expected 8 or 16, found {output_stride}")
        stem = [("conv1", conv(3, width, 7, 2)), ("bn1", norm(width)), ("pool1", nn.MaxPool2d(3, 2, 1))]
        self.mod1 = nn.Sequential(OrderedDict(stem))
        inputs = width
        for stage, (blocks, dilation) in enumerate(zip(structure, dilations, strict=True)):
            narrow = width * 2**stage
            channels = (narrow, narrow, 4 * narrow) if bottleneck else (narrow, narrow)
            module = nn.Sequential()
            for number in range(blocks):
                stride = 2 if number == 0 and stage > 0 and dilation == 1 else 1
                last = number == blocks - 1
                module.add_module(f"block{number + 1}", block(inputs, channels, norm, stride, dilation, last))
                inputs = channels[-1]
            self.add_module(f"mod{stage + 2}", module)
        self.channels = inputs

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, 3, H, W) normalised -> last map (B, channels, H / stride, W / stride), the four stages' maps."""
        x, maps = self.mod1(x), []
        for stage in (self.mod2, self.mod3, self.mod4, self.mod5):
            x, tapped = stage(x)
            maps.append(tapped)
        return x, maps


class DeepLabV3(nn.Module):
    """Parallel dilated convolutions and a pooled branch.

    Args:
        inputs, outputs: channels of the body's last map and of the result.
        norm: channels -> activated norm.
        hidden: channels of each parallel branch.
        out_stride: of the body; 8 spreads the dilations.
        pooling_size: window of the pooled branch in evaluation; None: the whole map, as in training.
        gain_slope: slope of the leaky ReLU that the initial weights are scaled for.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        norm: MakeNorm,
        hidden: int = 256,
        out_stride: int = 16,
        pooling_size: int | None = None,
        gain_slope: float = SLOPE,
    ) -> None:
        super().__init__()
        self.pooling_size = pooling_size
        self._add_branches(inputs, hidden, {16: (6, 12, 18), 8: (12, 24, 32)}[out_stride], norm)
        self.global_pooling_conv = conv(inputs, hidden, 1)
        self.global_pooling_bn = norm(hidden)
        self.red_conv = conv(4 * hidden, outputs, 1)
        self.pool_red_conv = conv(hidden, outputs, 1)
        self.red_bn = norm(outputs)
        gain = nn.init.calculate_gain("leaky_relu", gain_slope)
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.xavier_normal_(part.weight, gain)

    def _add_branches(self, inputs: int, hidden: int, dilations: Sequence[int], norm: MakeNorm) -> None:
        self.map_convs = parallel_convolutions(inputs, hidden, dilations)
        self.map_bn = norm(4 * hidden)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H, W)."""
        joined = self.map_bn(torch.cat([branch(x) for branch in self.map_convs], dim=1))
        pooled = self.global_pooling_bn(self.global_pooling_conv(self.pool(x)))
        return self.red_bn(self.red_conv(joined) + self.pool_red_conv(pooled))

    def pool(self, x: Tensor) -> Tensor:
        """Mean over the map in training, over a window around each position in evaluation."""
        if self.training or self.pooling_size is None:
            return x.mean((2, 3), keepdim=True)
        height, width = (min(self.pooling_size, size) for size in x.shape[2:])
        pooled = F.avg_pool2d(x, (height, width), stride=1)
        before, after = ((width - 1) // 2, width // 2), ((height - 1) // 2, height // 2)
        return F.pad(pooled, (*before, *after), mode="replicate")


def parallel_convolutions(inputs: int, hidden: int, dilations: Sequence[int]) -> nn.ModuleList:
    """One 1 x 1 convolution and a dilated 3 x 3 one for each dilation."""
    dilated = [
        DilatedConv2d(inputs, hidden, 3, padding=dilation, dilation=dilation, bias=False) for dilation in dilations
    ]
    return nn.ModuleList([conv(inputs, hidden, 1), *dilated])

