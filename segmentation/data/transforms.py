"""Geometry and normalisation of an image and its labels.

Source: arthurdouillard/CVPR2021_PLOP@4b4a060 run.py `get_dataset`, dataset/transform.py.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's red, green and blue, in 0 ... 1."""
AREA = (0.5, 2.0)
RATIO = (3 / 4, 4 / 3)
TRIES = 10


class Random(Protocol):
    """Python's `random.Random`, as far as it is needed."""

    def uniform(self, a: float, b: float) -> float: ...

    def randint(self, a: int, b: int) -> int: ...

    def random(self) -> float: ...


class Crop(NamedTuple):
    """A window: first row, first column, rows, columns."""

    i: int
    j: int
    h: int
    w: int


def draw_crop(width: int, height: int, draws: Random) -> Crop:
    """Window of the random resized crop.

    # rng: uniform (area), uniform (log ratio) at every try; randint (row), randint (column) at the accepted one
    """
    for _ in range(TRIES):
        area = draws.uniform(*AREA) * (width * height)
        ratio = math.exp(draws.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if w <= width and h <= height:
            i = draws.randint(0, height - h)
            return Crop(i, draws.randint(0, width - w), h, w)
    ratio = width / height
    if ratio < RATIO[0]:
        w, h = width, round(width / RATIO[0])
    elif ratio > RATIO[1]:
        w, h = round(height * RATIO[1]), height
    else:
        w, h = width, height
    return Crop((height - h) // 2, (width - w) // 2, h, w)


def training_pair(
    image: Image.Image, label: Image.Image, size: int, draws: Random
) -> tuple[Image.Image, Image.Image, Crop]:
    """Random resized crop to a square, and a flip half of the time.

    Args:
        image: RGB.
        label: mask, mode L or P.
        size: pixels of a side.
        draws: source of all random numbers.

    Returns:
        Image, mask, and the window that was taken.
    """
    crop = draw_crop(*image.size, draws)
    box = (crop.j, crop.i, crop.j + crop.w, crop.i + crop.h)
    image = image.crop(box).resize((size, size), Image.Resampling.BILINEAR)
    label = label.crop(box).resize((size, size), Image.Resampling.NEAREST)
    if draws.random() < 0.5:  # rng: last draw of an image
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        label = label.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image, label, crop


def validation_pair(image: Image.Image, label: Image.Image, size: int) -> tuple[Image.Image, Image.Image]:
    """Shorter side to `size`, then the square in the middle."""
    width, height = image.size
    short, long = min(width, height), max(width, height)
    other = int(size * long / short)
    new = (size, other) if width <= height else (other, size)
    if (width, height) != new:
        image = image.resize(new, Image.Resampling.BILINEAR)
        label = label.resize(new, Image.Resampling.NEAREST)
    top, left = round((new[1] - size) / 2.0), round((new[0] - size) / 2.0)
    box = (left, top, left + size, top + size)
    return image.crop(box), label.crop(box)


def to_bytes(image: Image.Image, label: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """(3, H, W) and (H, W) uint8, ready to be moved and normalised on the device."""
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1)), np.array(label, dtype=np.uint8)


def normalise(images: Tensor) -> Tensor:
    """(..., 3, H, W) uint8 -> float32, in units of ImageNet's standard deviations around its mean."""
    full, mean, std = _constants(images.device)
    return (images.float() / full - mean) / std


@functools.cache
def _constants(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """255, mean and deviation, moved once: every move would wait for the device.

    why 255 as a tensor: by a Python number CUDA multiplies with a rounded reciprocal, other than the CPU.
    """
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (MEAN, STD))
    return torch.tensor(255.0, device=device), mean, std
