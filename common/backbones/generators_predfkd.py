"""Generator and encoder of PRE-DFKD: latent vectors to normalised images, and images to latent Gaussians.

Source: gaurav104/LRA@40a8941 (novel generator, memory generator, encoder), which follows kuluhan/PRE-DFKD@604010d.
The state-dict keys are the originals'.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import spectral_norm

from common.backbones.enlarging import EnlargingConv2d

SLOPE = 0.2
"""Of every leaky ReLU."""

WIDE_EPSILON = 0.8
"""Of most norm layers. original: a momentum was meant, but it stands at the place of epsilon."""

UnitLength = Literal["columns", "pixels", "nothing"]
_UNIT_DIMENSIONS = {"columns": 2, "pixels": 1, "nothing": None}

BOUND = 0.08
"""Weights of convolutions and linear layers start uniform in [-0.08, 0.08], biases at 0."""


def redraw_uniform(module: nn.Module) -> None:
    """Second pass of initialisation. # rng: after all default draws, one per convolution and linear layer, in order"""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            weight = getattr(layer, "weight_orig", layer.weight)  # the raw weight below a spectral norm
            nn.init.uniform_(weight.data, -BOUND, BOUND)
            nn.init.zeros_(layer.bias)


class LatentGenerator(nn.Module):
    """A linear layer makes the smallest map; two doublings and three convolutions follow, then tanh and a plain norm.

    Args:
        latent_dim: length of a latent vector.
        img_size: pixels a side of the images (half of it with `more_upsampling`); divisible by 4.
        channels: of the images.
        spectral: normalise the convolutions by their largest singular value: one power iteration per forward pass in
            training mode (the novel generator), or not (the memory generator).
        more_upsampling: a third doubling before the last convolution (original: `generator_64`, which nothing there
            imports).
        epsilon: of the norm layers between the convolutions.

    Attributes:
        latent_dim: length of a latent vector.
    """

    def __init__(
        self, latent_dim: int, img_size: int, channels: int, *, spectral: bool, more_upsampling: bool = False,
        epsilon: float = WIDE_EPSILON,
    ) -> None:  # fmt: skip
        if img_size % 4:
            raise ValueError(f"image size {img_size} is not divisible by 4")
        super().__init__()
        self.latent_dim, self.side = latent_dim, img_size // 4

        def convolution(inputs: int, outputs: int, *, enlarging: bool = True) -> nn.Conv2d:
            layer = EnlargingConv2d(inputs, outputs) if enlarging else nn.Conv2d(inputs, outputs, 3, padding=1)
            return spectral_norm(layer) if spectral else layer  # rng: start vectors u and v

        self.l1 = nn.Sequential(nn.Linear(latent_dim, 128 * self.side**2))
        self.conv_blocks0 = nn.Sequential(nn.BatchNorm2d(128))
        self.conv_blocks1 = nn.Sequential(convolution(128, 128), nn.BatchNorm2d(128, epsilon), nn.LeakyReLU(SLOPE))
        self.conv_blocks2 = nn.Sequential(convolution(128, 64), nn.BatchNorm2d(64, epsilon), nn.LeakyReLU(SLOPE))
        self.conv_blocks3 = nn.Sequential(
            convolution(64, channels, enlarging=more_upsampling), nn.Tanh(), nn.BatchNorm2d(channels, affine=False)
        )
        redraw_uniform(self)

    def forward(self, z: Tensor) -> Tensor:
        """(B, latent_dim) -> (B, channels, H, W) as a network sees images: normalised, about mean 0 and variance 1."""
        x = self.conv_blocks0(self.l1(z).view(len(z), 128, self.side, self.side))
        return self.conv_blocks3(self.conv_blocks2(self.conv_blocks1(x)))


class LatentEncoder(nn.Module):
    """Three convolutions with halvings, then a mean and a log-variance per image.

    Args:
        latent_dim, img_size, channels: as of the generator.
        more_downsampling: a third halving, the counterpart of the generator's `more_upsampling`.
        epsilon: of the first two norm layers.
        unit: what of an image is scaled to unit length first, "columns" or the channels of "pixels"; or "nothing".
            original: columns.
    """

    def __init__(
        self, latent_dim: int, img_size: int, channels: int, *, more_downsampling: bool = False,
        epsilon: float = WIDE_EPSILON, unit: UnitLength = "columns",
    ) -> None:  # fmt: skip
        super().__init__()
        self.more_downsampling, self.unit_dim = more_downsampling, _UNIT_DIMENSIONS[unit]
        width = 32 * (img_size // 4) ** 2
        self.conv_blocks0 = nn.Sequential(
            nn.Conv2d(channels, 64, 3, padding=1), nn.BatchNorm2d(64, epsilon), nn.LeakyReLU(SLOPE)
        )
        self.conv_blocks1 = nn.Sequential(
            nn.Conv2d(64, 128, 3, padding=1), nn.BatchNorm2d(128, epsilon), nn.LeakyReLU(SLOPE)
        )
        self.conv_blocks2 = nn.Sequential(nn.Conv2d(128, 128, 3, stride=2, padding=1), nn.BatchNorm2d(128))
        self.fc_mu = nn.Linear(width, latent_dim)
        self.fc_var = nn.Linear(width, latent_dim)
        redraw_uniform(self)

    def forward(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sample latent vectors for images.

        Args:
            images: (B, channels, H, W) normalised.
            noise: (B, latent_dim) standard normal.

        Returns:
            mu + exp(log_var / 2) * noise, mu and log_var, (B, latent_dim) each.
        """
        x = self.conv_blocks0(images if self.unit_dim is None else F.normalize(images, dim=self.unit_dim))
        if self.more_downsampling:
            x = F.interpolate(x, scale_factor=0.5)
        x = F.interpolate(self.conv_blocks1(x), scale_factor=0.5)
        x = F.interpolate(self.conv_blocks2(x), scale_factor=0.5).flatten(1)
        mu, log_var = self.fc_mu(x), self.fc_var(x)
        return mu + torch.exp(0.5 * log_var) * noise, mu, log_var
