"""Image utilities: normalisation and its inverse, limits, jitter."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
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


def draw_jitter(height: int, width: int) -> tuple[int, int, bool]:
    """Rows and columns to roll by, at most an eighth of the side either way, and whether to mirror.

    # rng: Python's generator; rows, columns, then the flip
    """
    rows, columns = (random.randint(-(side // 8), side // 8) for side in (height, width))
    return rows, columns, random.random() > 0.5


def jitter(images: Tensor, rows: int, columns: int, flip: bool) -> Tensor:
    """Roll the images around cyclically, then mirror them left-right if asked to."""
    rolled = torch.roll(images, (rows, columns), dims=(2, 3))
    return rolled.flip(3) if flip else rolled
