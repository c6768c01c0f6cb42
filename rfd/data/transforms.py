"""From images to normalised batches: cl-lite's pipelines, and the original ABD's with colour jitter.

cl-lite normalises first and augments afterwards, so its crops are padded with 0 in normalised space: with the mean
colour, not with black (README, Deviations P1). ABD jitters, mirrors and crops the image itself and pads with black.
Both keep the images as bytes on the device; image files go through the torchvision pipelines of the same meaning.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import transforms

from common.data.transforms import FLIP_PROBABILITY, BatchTransform, Draws, TransformSpec

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CIFAR100 = TransformSpec((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761), 32, "pad_crop", pad=4, flip=True)

CLLITE = {
    "cifar10": TransformSpec((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010), 32, "pad_crop", pad=4, flip=True),
    "cifar100": _CIFAR100,
    "sample": _CIFAR100,
    "tiny-imagenet200": TransformSpec(
        (0.4803, 0.4481, 0.3976), (0.2764, 0.2688, 0.2816), 64, "pad_crop", pad=4, flip=True
    ),
    "imagenet100": TransformSpec(*_IMAGENET, 224, "pad_crop", pad=4, flip=True),
    "imagenet1000": TransformSpec(*_IMAGENET, 224, "pad_crop", pad=4, flip=True),
    "imagenet-r": TransformSpec(*_IMAGENET, 224, "pad_crop", pad=4, flip=True),
}
"""Data set -> statistics, size and augmentation of RFD, R-DFCIL and the port of ABD."""

_ABD_CIFAR100 = TransformSpec(
    (0.5070751592371323, 0.48654887331495095, 0.4409178433670343),
    (0.2673342858792409, 0.25643846291708816, 0.2761504713256834),
    32, "pad_crop", pad=4, flip=True,
)  # fmt: skip
ABD = {
    "cifar10": TransformSpec(
        (0.49139967861519607, 0.48215840839460783, 0.44653091444546567),
        (0.2470322324632819, 0.24348512800005573, 0.26158784172796434),
        32, "pad_crop", pad=4, flip=True,
    ),
    "cifar100": _ABD_CIFAR100,
    "sample": _ABD_CIFAR100,
    "tiny-imagenet200": TransformSpec(
        (0.4389, 0.4114, 0.3682), (0.2402, 0.2350, 0.2268), 64, "pad_crop", pad=4, flip=True
    ),
    "imagenet50": TransformSpec(*_IMAGENET, 224, "resized_crop", flip=True, resize=256),
}  # fmt: skip
"""The same of the original ABD."""

BRIGHTNESS, CONTRAST = 63 / 255, 0.8
"""Strength of ABD's colour jitter: factors are uniform in 1 - strength .. 1 + strength."""
_RESIZED = 256
"""Shorter side before the centre crop of ImageNet-like images, pixels."""


class NormalisedPadding(BatchTransform):
    """Crops whose border is 0 after normalisation; images stay bytes until they are cropped."""

    def crop(self, padded: Tensor, rows: Tensor, draws: Draws) -> Tensor:
        """As in the base class, but (B, C, size, size) float32, normalised."""
        size, pad = self.spec.size, self.spec.pad
        steps = torch.arange(size, device=padded.device)
        columns = torch.where(draws.flip[:, None], size - 1 - steps, steps) + draws.left[:, None]
        lines = draws.top[:, None] + steps
        inside = [(place >= pad) & (place < pad + size) for place in (lines, columns)]
        images = super().normalise(super().crop(padded, rows, draws))
        return images * (inside[0][:, None, :, None] & inside[1][:, None, None, :])

    def normalise(self, images: Tensor) -> Tensor:
        """Bytes to normalised floats; what `crop` returned is that already."""
        return images if images.is_floating_point() else super().normalise(images)


class JitterDraws(NamedTuple):
    """Random decisions of ABD's augmentation for n images.

    Attributes:
        top, left, flip: as in `Draws`; the crop is taken first and mirrored then.
        brightness, contrast: (n,) float32 factors.
        contrast_first: (n,) bool, the order of the two.
    """

    top: Tensor
    left: Tensor
    flip: Tensor
    brightness: Tensor
    contrast: Tensor
    contrast_first: Tensor

    def at(self, places: slice | Tensor) -> JitterDraws:
        """The decisions for some of the images."""
        return JitterDraws(*(values[places] for values in self))

    def to(self, device: torch.device | str) -> JitterDraws:
        """The same on another device."""
        return JitterDraws(*(values.to(device) for values in self))


class ColourJitterCrop(BatchTransform):
    """ABD's training transform on whole batches: bit-equal to Pillow's and torchvision's at the same decisions."""

    def draw(self, n: int, generator: torch.Generator) -> JitterDraws | None:
        """Random decisions for n images. # rng: order, brightness, contrast, flip, top, left"""
        if not self.augments:
            return None
        contrast_first = torch.rand(n, generator=generator) < 0.5
        brightness = 1 + BRIGHTNESS * (2 * torch.rand(n, generator=generator) - 1)
        contrast = 1 + CONTRAST * (2 * torch.rand(n, generator=generator) - 1)
        flip = torch.rand(n, generator=generator) < FLIP_PROBABILITY
        top, left = (torch.randint(0, 2 * self.spec.pad + 1, (n,), generator=generator) for _ in range(2))
        return JitterDraws(top, left, flip, brightness, contrast, contrast_first)

    def padded(self, images: Tensor) -> Tensor:
        """The images as they are: they are padded after the jitter."""
        return self.fit(images)

    def crop(self, padded: Tensor, rows: Tensor, draws: JitterDraws) -> Tensor:
        """Jitter, mirror and crop some of the images.

        Args:
            padded: (N, 3, size, size) uint8, of `padded`.
            rows: (B,) which images.
            draws: for the B images.

        Returns:
            (B, 3, size, size) uint8.
        """
        images = padded[rows]
        bright_first = adjust_contrast(adjust_brightness(images, draws.brightness), draws.contrast)
        contrast_first = adjust_brightness(adjust_contrast(images, draws.contrast), draws.brightness)
        images = torch.where(draws.contrast_first[:, None, None, None], contrast_first, bright_first)
        # why: the original mirrors before it pads and crops; seen from the other side that crop begins here
        left = torch.where(draws.flip, 2 * self.spec.pad - draws.left, draws.left)
        every = torch.arange(len(images), device=images.device)
        return super().crop(F.pad(images, (self.spec.pad,) * 4), every, Draws(draws.top, left, draws.flip))


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with black as Pillow does; (B, 3, H, W) uint8 and (B,) float32 factors."""
    return _blended(torch.zeros((), device=images.device), images, factor)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the rounded mean grey of each image as Pillow does; (B, 3, H, W) uint8 and (B,) float32 factors."""
    red, green, blue = images.to(torch.int64).unbind(dim=1)
    grey = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16
    mean = (grey.to(torch.float64).mean(dim=(1, 2)) + 0.5).floor()
    return _blended(mean.to(torch.float32)[:, None, None, None], images, factor)


def _blended(ground: Tensor, images: Tensor, factor: Tensor) -> Tensor:
    """ground + factor (images - ground) in float32, clipped, cut to bytes."""
    mixed = ground + factor.to(torch.float32)[:, None, None, None] * (images.to(torch.float32) - ground)
    return mixed.clamp(0, 255).to(torch.uint8)


def cllite_pipeline(spec: TransformSpec, train: bool) -> transforms.Compose:
    """The torchvision pipeline of cl-lite for image files: resize and cut, normalise, then crop and mirror."""
    geometry: list = [transforms.Resize(spec.size)]
    if spec.size > 64:
        geometry = [transforms.Resize(_RESIZED), transforms.CenterCrop(spec.size)]
    augmentation = [transforms.RandomCrop(spec.size, padding=spec.pad), transforms.RandomHorizontalFlip()]
    normalised = [transforms.ToTensor(), transforms.Normalize(spec.mean, spec.std)]
    return transforms.Compose([*geometry, *normalised, *(augmentation if train else [])])


def abd_pipeline(spec: TransformSpec, train: bool) -> transforms.Compose:
    """The torchvision pipeline of the original ABD, for images and image files."""
    augmentation: list = []
    if spec.kind == "resized_crop":
        if train:
            augmentation = [transforms.RandomResizedCrop(spec.size), transforms.RandomHorizontalFlip()]
        else:
            augmentation = [transforms.Resize(spec.resize), transforms.CenterCrop(spec.size)]
    elif train:
        augmentation = [
            transforms.ColorJitter(brightness=BRIGHTNESS, contrast=CONTRAST),
            transforms.RandomHorizontalFlip(),
            transforms.RandomCrop(spec.size, padding=spec.pad),
        ]
    return transforms.Compose([*augmentation, transforms.ToTensor(), transforms.Normalize(spec.mean, spec.std)])
