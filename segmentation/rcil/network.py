"""RCIL's forms of the residual block and of the DeepLabV3 head: every inner 3 x 3 convolution twice.

Keys and outputs of zhangchbin/RCIL (commit b9aad58) modules/residual.py and modules/deeplab.py. Norms have no
activation of their own (slope 1); leaky ReLUs stand after them, except after the stem's, which has none at all.

Differs from the original in random numbers only: it draws them in evaluation and in the old network too, where they
have no effect.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.backbones.abn import MakeNorm
from common.backbones.deeplab import (
    SLOPE,
    DeepLabV3,
    activated_sum,
    add_projection,
    conv,
    parallel_convolutions,
    shortcut,
)


class BranchMix(nn.Module):
    """Takes each channel from one branch, the other, or their mean, a third of the time each; evaluation: the mean."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.drawn: Tensor | None = None

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Two maps (B, channels, H, W) -> one."""
        if not self.training:
            return torch.lerp(second, first, 0.5)
        drawn, self.drawn = self.drawn, None
        if drawn is None:
            drawn = torch.rand(self.channels).to(first.device)
        drawn = drawn.view(1, -1, 1, 1)
        share = torch.where(drawn < 0.33, 1.0, torch.where(drawn < 0.66, 0.0, 0.5))
        return torch.lerp(second, first, share.to(first.dtype))


def draw_mixes(network: nn.Module, device: torch.device) -> None:
    """Numbers for one forward pass of all mixes, drawn on the CPU as the original does, in one transfer.

    Mixes that already hold numbers keep them.
    """
    mixes = [part for part in network.modules() if isinstance(part, BranchMix) and part.training and part.drawn is None]
    if mixes:
        # rng: one draw of all channels gives the same numbers as one draw for each mix in turn
        numbers = torch.rand(sum(mix.channels for mix in mixes)).to(device, non_blocking=True)
        for mix, part in zip(mixes, numbers.split([mix.channels for mix in mixes]), strict=True):
            mix.drawn = part


class RcilBlock(nn.Module):
    """RCIL's bottleneck; arguments as `common.backbones.deeplab.ResidualBlock`.

    The last block of a stage returns its activated output twice: as output and as the map to distil (the original
    activates in place before it returns both).

    Attributes:
        taps_before: whether the map to distil is the sum before the activation (as in PLOP) instead.
    """

    def __init__(
        self, inputs: int, channels: Sequence[int], norm: MakeNorm, stride: int = 1, dilation: int = 1,
        last: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        if len(channels) != 3:
            raise ValueError("RCIL's network has bottlenecks only; choose resnet14, resnet26, resnet50 or resnet101")
        first, second, third = channels
        self.last, self.taps_before = last, False
        self.convs = nn.ModuleDict(
            OrderedDict(
                conv1=conv(inputs, first, 1), bn1=norm(first),
                conv2=conv(first, second, 3, stride, dilation), bn2=norm(second),
                conv3=conv(second, third, 1), bn3=norm(third),
                conv2_new=conv(first, second, 3, stride, dilation), bn2_new=norm(second),
            )  # fmt: skip
        )
        self.convs["bn3"].activation = "identity"
        self.mix = BranchMix(second)
        add_projection(self, inputs, third, norm, stride)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """(B, inputs, H, W) -> (B, channels[-1], H / stride, W / stride), twice in the last block of a stage."""
        convs = self.convs
        inner = F.leaky_relu(convs["bn1"](convs["conv1"](x)), SLOPE)
        mixed = self.mix(convs["bn2"](convs["conv2"](inner)), convs["bn2_new"](convs["conv2_new"](inner)))
        outer = convs["bn3"](convs["conv3"](F.leaky_relu(mixed, SLOPE, inplace=True)))
        return activated_sum(self, outer + shortcut(self, x))


class RcilDeepLabV3(DeepLabV3):
    """RCIL's head; arguments as `common.backbones.deeplab.DeepLabV3`."""

    def _add_branches(self, inputs: int, hidden: int, dilations: Sequence[int], norm: MakeNorm) -> None:
        self.map_convs = parallel_convolutions(inputs, hidden, dilations)
        self.map_bn = norm(4 * hidden)
        self.map_convs_new = parallel_convolutions(inputs, hidden, dilations)
        self.map_bn_new = norm(4 * hidden)
        self.mix = BranchMix(4 * hidden)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H, W)."""
        first = self.map_bn(torch.cat([branch(x) for branch in self.map_convs], dim=1))
        second = self.map_bn_new(torch.cat([branch(x) for branch in self.map_convs_new], dim=1))
        joined = F.leaky_relu(self.mix(first, second), SLOPE, inplace=True)
        pooled = F.leaky_relu(self.global_pooling_bn(self.global_pooling_conv(self.pool(x))), SLOPE)
        return F.leaky_relu(self.red_bn(self.red_conv(joined) + self.pool_red_conv(pooled)), SLOPE)
