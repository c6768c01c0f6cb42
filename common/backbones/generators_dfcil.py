"""The image generators of data-free class-incremental learning: ABD, R-DFCIL and RFD use the same three.

Written from their recorded behaviour. Original: GT-RIPL/AlwaysBeDreaming-DFCIL@9295039 models/generator.py, and the
copy in gqk/cl-lite@f0ddf02 deep_inversion/generator.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LATENT = 1000
"""Width of the noise in all published experiments."""
_EPS = 0.8
"""Epsilon of the inner batch norms. original: meant as momentum, stands where torch expects eps; part of the method."""


class DFCILGenerator(nn.Module):
    """Noise -> linear layer -> batch norm -> (double the size, convolve, normalise) several times -> image.

    Args:
        latent: width of the noise.
        image_size: height and width of the images, pixels; divisible by 2 per block.
        width: channels of the first map.
        widths: channels after each doubling.
        own_output_block: whether the layers that make the image form a block of their own (names of the state only).

    Attributes:
        merges_doubling: compute doubling and convolution in one, with 4/9 of the multiplications; the same function,
            rounded otherwise.
    """

    merges_doubling = False

    def __init__(
        self, latent: int, image_size: int, width: int, widths: tuple[int, ...], own_output_block: bool = False
    ) -> None:
        super().__init__()
        self.latent, self.image_size, self.width = latent, image_size, width
        self.doublings = len(widths)
        self.side = image_size // 2**self.doublings
        if self.side < 1 or image_size % 2**self.doublings:
            raise ValueError(f"image size {image_size} cannot be reached by {self.doublings} doublings")
        self.l1 = nn.Sequential(nn.Linear(latent, width * self.side**2))
        self.conv_blocks0 = nn.Sequential(nn.BatchNorm2d(width))
        output = [nn.Conv2d(widths[-1], 3, 3, 1, 1), nn.Tanh(), nn.BatchNorm2d(3, affine=False)]
        inputs = width
        for number, outputs in enumerate(widths, start=1):
            layers = [nn.Conv2d(inputs, outputs, 3, 1, 1), nn.BatchNorm2d(outputs, _EPS), nn.LeakyReLU(0.2)]
            if number == self.doublings and not own_output_block:
                layers += output
            setattr(self, f"conv_blocks{number}", nn.Sequential(*layers))
            inputs = outputs
        self.blocks = [f"conv_blocks{number}" for number in range(1, self.doublings + 1)]
        if own_output_block:
            self.output_block: str | None = f"conv_blocks{self.doublings + 1}"
            setattr(self, self.output_block, nn.Sequential(*output))
        else:
            self.output_block = None

    def forward(self, noise: Tensor) -> Tensor:
        """(N, latent) noise -> (N, 3, image_size, image_size); in training mode mean 0 and variance 1 per channel."""
        x = self.conv_blocks0(self.l1(noise).view(-1, self.width, self.side, self.side))
        for name in self.blocks:
            block = getattr(self, name)
            if self.merges_doubling:
                x = block[1:](doubled_convolution(x, block[0].weight, block[0].bias))
            else:
                x = block(doubled(x))
        return x if self.output_block is None else getattr(self, self.output_block)(x)


def doubled(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, 2 H, 2 W), every pixel four times."""
    if torch.is_grad_enabled():
        return F.interpolate(x, scale_factor=2)
    # why: the same numbers; on a CPU this plain copy takes a third of the time, but its gradient more
    count, channels, height, width = x.shape
    repeated = x[:, :, :, None, :, None].expand(-1, -1, -1, 2, -1, 2)
    return repeated.reshape(count, channels, 2 * height, 2 * width)


def doubled_convolution(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A 3x3 convolution (padding 1) of x doubled by nearest neighbours, without making the doubled map.

    Of the three rows under a kernel (w0, w1, w2) two are copies of one row of x. An even row 2 m of the result is
    w0 x[m-1] + (w1 + w2) x[m], an odd one (w0 + w1) x[m] + w2 x[m+1]: the transposed convolution of stride 2 and
    padding 1 with the taps w2, w1 + w2, w0 + w1, w0. Columns alike.

    Args:
        x: (N, C, H, W).
        weight, bias: (D, C, 3, 3) and (D,).

    Returns:
        (N, D, 2 H, 2 W).
    """
    taps = _merged_taps(_merged_taps(weight, 2), 3).transpose(0, 1)
    return F.conv_transpose2d(x, taps, bias, stride=2, padding=1)


def _merged_taps(weight: Tensor, dim: int) -> Tensor:
    first, middle, last = weight.unbind(dim)
    return torch.stack((last, middle + last, first + middle, first), dim)


def cifar_generator(latent: int = LATENT, image_size: int = 32) -> DFCILGenerator:
    """8,423,939 parameters for 32 x 32 images."""
    return DFCILGenerator(latent, image_size, 128, (128, 64))


def tiny_imagenet_generator(latent: int = LATENT, image_size: int = 64) -> DFCILGenerator:
    """8,571,779 parameters for 64 x 64 images."""
    return DFCILGenerator(latent, image_size, 128, (128, 128, 64))


def imagenet_generator(latent: int = LATENT, image_size: int = 224) -> DFCILGenerator:
    """3,326,275 parameters for 224 x 224 images."""
    return DFCILGenerator(latent, image_size, 64, (64,) * 5, own_output_block=True)
