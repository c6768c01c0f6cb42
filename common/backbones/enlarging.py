"""Convolutions of enlarged images without the enlarged image.

A 3x3 convolution of an image that nearest neighbours enlarged to twice its size sees only 2x2 different pixels: it
equals a transposed 4x4 convolution of stride 2 whose weights are sums of its own, at 4/9 of the multiplications.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SPREAD = ((0.0, 0.0, 1.0), (0.0, 1.0, 1.0), (1.0, 1.0, 0.0), (1.0, 0.0, 0.0))
"""Row k: which rows of a 3x3 kernel meet the same pixel of the small image in row k of the 4x4 kernel."""


def enlarged_convolution(x: Tensor, weight: Tensor, spread: Tensor, bias: Tensor | None = None) -> Tensor:
    """3x3 convolution, zero padding 1, of `x` enlarged to twice its size by nearest neighbours.

    Args:
        x: (B, I, h, w).
        weight: (O, I, 3, 3).
        spread: `SPREAD` on the device.
        bias: (O,), or None.

    Returns:
        (B, O, 2 h, 2 w).
    """
    wide = torch.einsum("ka,oiab,lb->iokl", spread, weight, spread)
    return F.conv_transpose2d(x, wide, bias, stride=2, padding=1)


class EnlargingConv2d(nn.Conv2d):
    """A 3x3 convolution, padding 1, that first doubles the size of its input by nearest neighbours.

    Weights, their initialisation and their names are those of the plain convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=bias)
        self.register_buffer("spread", torch.tensor(SPREAD), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, I, h, w) -> (B, O, 2 h, 2 w)."""
        return enlarged_convolution(x, self.weight, self.spread, self.bias)
