"""Synthetic images as 8-bit pictures: storage, grids, PNG files."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from common.training.files import write_atomically


def quantise(images: Tensor) -> Tensor:
    """(B, C, H, W) in [0, 1] -> uint8, clamped, times 255, truncated (not rounded), as the pools store images."""
    return (images.clamp(0, 1) * 255).to(torch.uint8)


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
    picture = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
    write_atomically(path, lambda file: picture.save(file, format="PNG"))
