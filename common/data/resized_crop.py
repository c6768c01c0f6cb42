"""Random resized crops of small images, for whole batches on the device.

The same decisions and the same arithmetic as torchvision's RandomResizedCrop (bilinear, pixels rounded to bytes) as
long as images are enlarged or kept, which is where this stands in for the pipeline of single images: a 32-pixel image
never has a crop larger than its result. Order and generator of the draws are our own.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from common.data.transforms import FLIP_PROBABILITY, BatchTransform, TransformSpec

SCALE = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)
ATTEMPTS = 10


class Windows(NamedTuple):
    """Random decisions for n images.

    Attributes:
        top, left, height, width: (n,) int64 pixels of the crop.
        flip: (n,) bool, whether the result is mirrored left-right.
    """

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor
    flip: Tensor

    def at(self, places: slice | Tensor) -> Windows:
        """The decisions for some of the images."""
        return Windows(*(values[places] for values in self))

    def to(self, device: torch.device | str) -> Windows:
        """The same on another device."""
        return Windows(*(values.to(device) for values in self))


class BatchResizedCrop(BatchTransform):
    """Transform of `DeviceLoader` for small images: a random window enlarged to `spec.size`, or the whole image.

    Args:
        spec: of kind "resized_crop"; images must not be larger than `spec.size` on either side.
        train: whether images are augmented.
        side: height and width of the stored images, pixels.

    Raises:
        ValueError: if images would have to be shrunk.
    """

    def __init__(self, spec: TransformSpec, train: bool, side: int) -> None:
        if spec.kind != "resized_crop" or side > spec.size:
            raise ValueError(f"a batch form exists for resized_crop of images up to {spec.size} pixels, found {side}")
        self.spec, self.side = spec, side
        self.augments = train
        self._constants = {}

    def draw(self, n: int, generator: torch.Generator) -> Windows | None:
        """Windows as torchvision chooses them: ten attempts at area and ratio, else the whole (square) image."""
        if not self.augments:
            return None
        area = self.side**2 * _uniform(n, *SCALE, generator)  # rng: 1
        ratio = torch.exp(_uniform(n, math.log(RATIO[0]), math.log(RATIO[1]), generator))  # rng: 2
        width, height = (area * ratio).sqrt().round().long(), (area / ratio).sqrt().round().long()
        found = _fits(width, height, self.side)
        width, height = (each.gather(1, found[:, None])[:, 0] for each in (width, height))
        whole = ~_fits_one(width, height, self.side)
        width, height = width.masked_fill(whole, self.side), height.masked_fill(whole, self.side)
        top = (torch.rand(n, generator=generator) * (self.side - height + 1)).long()  # rng: 3
        left = (torch.rand(n, generator=generator) * (self.side - width + 1)).long()  # rng: 4
        flip = (torch.rand(n, generator=generator) < FLIP_PROBABILITY) & self.spec.flip  # rng: 5
        return Windows(top, left, height, width, flip)

    def fit(self, images: Tensor) -> Tensor:
        """Images as they are; `normalise` enlarges them batch by batch."""
        return images

    def padded(self, images: Tensor) -> Tensor:
        """Images as they are: what `crop` cuts from."""
        return images

    def crop(self, padded: Tensor, rows: Tensor, draws: Windows) -> Tensor:
        """Cut and enlarge.

        Args:
            padded: (N, C, side, side) uint8.
            rows: (B,) which images.
            draws: for the B images.

        Returns:
            (B, C, size, size) uint8.
        """
        vertical = resampling(draws.top, draws.height, self.side, self.spec.size)
        horizontal = resampling(draws.left, draws.width, self.side, self.spec.size)
        horizontal = torch.where(draws.flip[:, None, None], horizontal.flip(1), horizontal)
        return _resampled(padded[rows], vertical, horizontal)

    def normalise(self, images: Tensor) -> Tensor:
        """(B, C, H, W) uint8 of any size up to `spec.size` to normalised float32 of that size."""
        if images.shape[-1] != self.spec.size:
            start = torch.zeros(1, dtype=torch.int64, device=images.device)
            whole = resampling(start, start + self.side, self.side, self.spec.size)
            images = _resampled(images, whole, whole)
        return super().normalise(images)

    def __call__(self, images: Tensor, draws: Windows | None = None) -> Tensor:
        """Transform a batch of (B, C, side, side) uint8 images."""
        if draws is None:
            return self.normalise(images)
        return self.normalise(self.crop(images, torch.arange(len(images), device=images.device), draws))


def resampling(start: Tensor, length: Tensor, side: int, size: int) -> Tensor:
    """Bilinear weights of source pixels for every result pixel, edges clamped to the window.

    Args:
        start, length: (B,) windows along one axis.
        side: source pixels along it.
        size: result pixels, at least `length`.

    Returns:
        (B, size, side) float32, rows sum to one.
    """
    places = torch.arange(size, device=start.device, dtype=torch.float32)
    scale = length[:, None].to(torch.float32) / size
    centre = ((places + 0.5) * scale - 0.5).clamp_min(0)
    centre = torch.minimum(centre, (length[:, None] - 1).to(torch.float32)) + start[:, None]
    sources = torch.arange(side, device=start.device, dtype=torch.float32)
    return (1 - (centre[:, :, None] - sources).abs()).clamp_min(0)


def _resampled(images: Tensor, vertical: Tensor, horizontal: Tensor) -> Tensor:
    """Apply both axes, rounding to bytes after each as Pillow does (columns first)."""
    across = (images.to(torch.float32) @ horizontal.mT[:, None]).add_(0.5).floor_()
    return (vertical[:, None] @ across).add_(0.5).floor_().to(torch.uint8)


def _uniform(n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.rand(n, ATTEMPTS, generator=generator) * (high - low) + low


def _fits_one(width: Tensor, height: Tensor, side: int) -> Tensor:
    return (width > 0) & (width <= side) & (height > 0) & (height <= side)


def _fits(width: Tensor, height: Tensor, side: int) -> Tensor:
    """(n,) number of the first attempt that fits; 0 where none does."""
    return _fits_one(width, height, side).to(torch.int8).argmax(dim=1)
