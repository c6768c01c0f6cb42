"""Generators of data-free distillation: noise to images in [0, 1] by nearest-neighbour up-sampling and convolutions.

Source: zju-vipa/CMI@9e79fa9 datafree/models/generator.py (`Generator`, `LargeGenerator`) and the generator of CuDFKD in
ljrprocc/DataFree@bf3096b. All of them are one graph at different widths; the state-dict keys are the originals'.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from common.backbones.enlarging import SPREAD, enlarged_convolution

SLOPE = 0.2
"""Of every leaky ReLU."""

class UpsamplingSequence(nn.Sequential):
    """Layers in order, every doubling in size joined with the convolution that follows it."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.register_buffer("spread", torch.tensor(SPREAD), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, widths[0], s, s) -> image."""
        layers = iter(self)
        for layer in layers:
            if isinstance(layer, nn.Upsample):
                x = enlarged_convolution(x, next(layers).weight, self.spread)
            else:
                x = layer(x)
        return x


def upsampling_layers(widths: Sequence[int], channels: int) -> UpsamplingSequence:
    """Norm; then per further width twice the size, convolution, norm and ReLU; then convolution and sigmoid.

    Args:
        widths: channels of the smallest map and of every convolution but the last.
        channels: of the images.
    """
    layers: list[nn.Module] = [nn.BatchNorm2d(widths[0])]
    for inputs, outputs in zip(widths, widths[1:], strict=False):
        layers += [
            nn.Upsample(scale_factor=2),
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.LeakyReLU(SLOPE),
        ]
    return UpsamplingSequence(*layers, nn.Conv2d(widths[-1], channels, 3, padding=1), nn.Sigmoid())


class ImageGenerator(nn.Module):
    """A linear layer makes the smallest map, `upsampling_layers` the image.

    Args:
        nz: length of a noise vector.
        widths: channels of the smallest map and of every convolution but the last; every width after the first
            doubles the size.
        img_size: pixels a side of the images; divisible by 2 ** (len(widths) - 1).
        channels: of the images.

    Attributes:
        nz: length of a noise vector.
        smallest: (channels, pixels, pixels) of the smallest map.
    """

    def __init__(self, nz: int, widths: Sequence[int], img_size: int, channels: int) -> None:
        factor = 2 ** (len(widths) - 1)
        if img_size % factor:
            raise ValueError(f"image size {img_size} is not divisible by {factor}")
        super().__init__()
        self.nz = nz
        self.smallest = (widths[0], img_size // factor, img_size // factor)
        self._build(nn.Linear(nz, widths[0] * (img_size // factor) ** 2), upsampling_layers(widths, channels))

    def _build(self, linear: nn.Linear, layers: nn.Sequential) -> None:
        """Put the parts under the original's names."""
        self.l1 = nn.Sequential(linear)
        self.conv_blocks = layers

    def forward(self, z: Tensor) -> Tensor:
        """(B, nz) -> (B, channels, img_size, img_size) in [0, 1]."""
        return self.conv_blocks(self.l1(z).view(-1, *self.smallest))


class CuDFKDGenerator(ImageGenerator):
    """The same graph under the names of CuDFKD's release."""

    def _build(self, linear: nn.Linear, layers: nn.Sequential) -> None:
        self.project = nn.Sequential(nn.Flatten(), linear)
        self.main = layers

    def forward(self, z: Tensor) -> Tensor:
        """(B, nz) -> (B, channels, img_size, img_size) in [0, 1]."""
        return self.main(self.project(z).view(-1, *self.smallest))


def small_generator(nz: int = 256, ngf: int = 64, img_size: int = 32, channels: int = 3) -> ImageGenerator:
    """CMI's generator: 2, 2, 1 times ngf channels."""
    return ImageGenerator(nz, (2 * ngf, 2 * ngf, ngf), img_size, channels)


def large_generator(nz: int = 256, ngf: int = 64, img_size: int = 32, channels: int = 3) -> ImageGenerator:
    """The generator of DAFL (nz 512), ZSKT, DFAD and DFQ (nz 256): 4, 2, 1 times ngf channels."""
    return ImageGenerator(nz, (4 * ngf, 2 * ngf, ngf), img_size, channels)


def cudfkd_generator(
    nz: int = 512, ngf: int = 64, img_size: int = 32, channels: int = 3, depth: int = 2
) -> CuDFKDGenerator:
    """CuDFKD's generator: `depth` up-samplings, 2 ** depth ... 2, 1 times ngf channels."""
    return CuDFKDGenerator(nz, [ngf * 2**power for power in range(depth, -1, -1)], img_size, channels)


def redraw_generator(generator: nn.Module) -> None:
    """Convolutions and linear layers N(0, 0.02), norms N(1, 0.02), biases 0; running statistics stay as they are.

    Source: zju-vipa/CMI@9e79fa9 datafree/synthesis/contrastive.py `reset_model`.  # rng: layer by layer, in order
    """
    for layer in generator.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            nn.init.normal_(layer.weight, 0.0, 0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.02)
            nn.init.zeros_(layer.bias)
