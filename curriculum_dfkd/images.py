"""Image utilities: normalisation and its inverse, limits, 8-bit storage, jitter, grids."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor


class Normaliser:
    """(x - mean) / std per channel, and back.

    Args:
        mean, std: per channel, for images in [0, 1].
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean, self.std = tuple(mean), tuple(std)
        self._constants: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    def __call__(self, images: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> normalised."""
        mean, std = self._on(images)
        return (images - mean) / std

    def reverse(self, images: Tensor) -> Tensor:
        """Normalised -> [0, 1]."""
        mean, std = self._on(images)
        return images * std + mean

    def clip(self, images: Tensor) -> Tensor:
        """Clamp normalised images to the values that [0, 1] has there, per channel."""
        mean, std = self._on(images)
        return torch.maximum(torch.minimum(images, (1 - mean) / std), -mean / std)

    def _on(self, images: Tensor) -> tuple[Tensor, Tensor]:
        key = (images.device, images.dtype)
        if key not in self._constants:
            mean, std = (torch.tensor(values, dtype=images.dtype, device=images.device).view(-1, 1, 1)
                         for values in (self.mean, self.std))
            self._constants[key] = (mean, std)
        return self._constants[key]


def quantise(images: Tensor) -> Tensor:
    """(B, C, H, W) in [0, 1] -> uint8, clamped, times 255, truncated (not rounded), as the pools store images."""
    return (images.clamp(0, 1) * 255).to(torch.uint8)


def draw_jitter(height: int) -> tuple[int, int, bool]:
    """Rows and columns to roll by, -height/8 .. height/8, and whether to mirror, from Python's generator.

    # rng: rows, columns, then the flip
    """
    span = height // 8
    rows, columns = random.randint(-span, span), random.randint(-span, span)
    return rows, columns, random.random() > 0.5


def jitter(images: Tensor, rows: int, columns: int, flip: bool) -> Tensor:
    """Roll the images around cyclically, then mirror them left-right if asked to."""
    rolled = torch.roll(images, (rows, columns), dims=(2, 3))
    return rolled.flip(3) if flip else rolled


def pack_images(images: Tensor) -> Tensor:
    """(N, C, h, w) -> one (C, H, W) grid: ceil(sqrt N) columns, one black pixel between tiles, none around."""
    count, channels, height, width = images.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    grid = images.new_zeros(channels, rows * (height + 1) - 1, columns * (width + 1) - 1)
    for number, image in enumerate(images):
        top, left = number // columns * (height + 1), number % columns * (width + 1)
        grid[:, top : top + height, left : left + width] = image
    return grid


def save_grid(images: Tensor, path: Path, most: int = 100) -> None:
    """Write up to `most` images in [0, 1] as one PNG."""
    save_image(pack_images(quantise(images[:most].detach().float().cpu())), path)


def save_image(image: Tensor, path: Path) -> None:
    """Write a (C, H, W) uint8 image as PNG; one channel is written in grey."""
    array = image.cpu().permute(1, 2, 0).numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array).save(path)
