"""From uint8 images to the normalised floats that a network sees.

`BatchTransform` works on whole batches on the device; `image_pipeline` is the same for single images with torchvision.
Pixels are padded while they are still bytes, so padding is black: (0 - mean) / std after normalisation, not 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import InterpolationMode

FLIP_PROBABILITY = 0.5
KINDS = ("plain", "pad_crop", "resized_crop")


@dataclass(frozen=True)
class TransformSpec:
    """How the images of a data set are transformed.

    Attributes:
        mean, std: per channel, for values in [0, 1].
        size: height and width of the result, pixels.
        kind: training transform before normalisation; "plain": none; "pad_crop": zero padding and a random crop;
            "resized_crop": torchvision's RandomResizedCrop (scale 0.08 to 1, ratio 3/4 to 4/3, bilinear).
        pad: pixels of padding on each side, for "pad_crop".
        flip: whether training images are mirrored left-right with probability 0.5.
        resize: shorter side before the centre crop of the test transform, for "resized_crop"; pixels.
        border: black pixels on each side of every image, test images too; `size` counts them. Not for "resized_crop".
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int
    kind: str = "plain"
    pad: int = 0
    flip: bool = False
    resize: int | None = None
    border: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind {self.kind!r}; known: {', '.join(KINDS)}")
        if (self.kind == "pad_crop") != (self.pad > 0) or (self.kind == "resized_crop") != (self.resize is not None):
            raise ValueError("pad belongs to kind pad_crop, resize to kind resized_crop")


_CIFAR100 = TransformSpec((0.507, 0.487, 0.441), (0.267, 0.256, 0.276), 32, "pad_crop", pad=4, flip=True)
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

TRANSFORMS: dict[str, TransformSpec] = {
    "CIFAR100": _CIFAR100,
    "CIFAR10": TransformSpec((0.491, 0.482, 0.447), (0.247, 0.243, 0.262), 32, "pad_crop", pad=4, flip=True),
    "TinyImageNet": TransformSpec(_IMAGENET_MEAN, _IMAGENET_STD, 64, "pad_crop", pad=4, flip=True),
    "SubImageNet": TransformSpec(_IMAGENET_MEAN, _IMAGENET_STD, 224, "resized_crop", flip=True, resize=256),
    "FiveDatasets": TransformSpec((0.318, 0.318, 0.320), (0.272, 0.273, 0.275), 32, "pad_crop", pad=4, flip=True),
    "MNIST": TransformSpec((0.1307,), (0.3081,), 28),
    "Sample": _CIFAR100,
}
"""Data set -> transform of the published experiments."""


class Draws(NamedTuple):
    """Random decisions for n training images.

    Attributes:
        top, left: (n,) int64, upper left corner of the crop in the padded image, 0 .. 2 * pad.
        flip: (n,) bool, whether the crop is mirrored left-right.
    """

    top: Tensor
    left: Tensor
    flip: Tensor

    def at(self, places: slice | Tensor) -> Draws:
        """The decisions for some of the images."""
        return Draws(self.top[places], self.left[places], self.flip[places])

    def to(self, device: torch.device | str) -> Draws:
        """The same on another device."""
        return Draws(*(values.to(device) for values in self))


class BatchTransform:
    """Training or test transform for batches of uint8 images, on the device they lie on.

    The result is bit-equal to torchvision's RandomCrop / flip / ToTensor / Normalize at the same offsets.

    Args:
        spec: of kind "plain" or "pad_crop".
        train: whether images are augmented.

    Raises:
        ValueError: for kind "resized_crop", which works on image files of any size (`image_pipeline`).
    """

    def __init__(self, spec: TransformSpec, train: bool) -> None:
        if spec.kind == "resized_crop":
            raise ValueError("resized_crop has no batch form; use image_pipeline")
        self.spec = spec
        self.augments = train and (spec.pad > 0 or spec.flip)
        self._constants: dict[torch.device, tuple[Tensor, Tensor, Tensor]] = {}

    def draw(self, n: int, generator: torch.Generator) -> Draws | None:
        """Random decisions for n images from a CPU generator; None where there is nothing to decide.

        Order: all tops, all lefts (one integer each), then one uniform number per image for the flips.
        """
        if not self.augments:
            return None
        span = 2 * self.spec.pad + 1
        top = torch.randint(0, span, (n,), generator=generator)  # rng: 1
        left = torch.randint(0, span, (n,), generator=generator)  # rng: 2
        chance = torch.rand(n, generator=generator)  # rng: 3
        return Draws(top, left, (chance < FLIP_PROBABILITY) & self.spec.flip)

    def __call__(self, images: Tensor, draws: Draws | None = None) -> Tensor:
        """Transform a batch.

        Args:
            images: (B, C, H, W) uint8; another size than `spec.size` is brought to it by nearest neighbours first
                (smoke runs show the small sample to networks for larger images).
            draws: of `draw`, on the same device; None: no crop, no flip.

        Returns:
            (B, C, size, size) float32, normalised.
        """
        if draws is None:
            return self.normalise(self.fit(images))
        rows = torch.arange(len(images), device=images.device)
        return self.normalise(self.crop(self.padded(images), rows, draws))

    def fit(self, images: Tensor) -> Tensor:
        """Images of `spec.size`: brought there by nearest neighbours (pixel centres) if need be, with their border."""
        size = self.spec.size - 2 * self.spec.border
        for dimension in (2, 3):
            have = images.shape[dimension]
            if have != size:
                places = (2 * torch.arange(size, device=images.device) + 1) * have // (2 * size)
                images = images.index_select(dimension, places)
        return F.pad(images, (self.spec.border,) * 4) if self.spec.border else images

    def padded(self, images: Tensor) -> Tensor:
        """Images of `spec.size` with black borders, (B, C, size + 2 pad, size + 2 pad) uint8: what `crop` cuts from."""
        return F.pad(self.fit(images), (self.spec.pad,) * 4)

    def crop(self, padded: Tensor, rows: Tensor, draws: Draws) -> Tensor:
        """Cut one window out of each of some padded images, in one gather.

        Args:
            padded: (N, C, size + 2 pad, size + 2 pad) uint8.
            rows: (B,) which images.
            draws: for the B images.

        Returns:
            (B, C, size, size) uint8.
        """
        steps = torch.arange(self.spec.size, device=padded.device)
        columns = torch.where(draws.flip[:, None], self.spec.size - 1 - steps, steps) + draws.left[:, None]
        lines = draws.top[:, None] + steps
        channels = torch.arange(padded.shape[1], device=padded.device)
        rows = rows[:, None, None, None]
        return padded[rows, channels[:, None, None], lines[:, None, :, None], columns[:, None, None]]

    def normalise(self, images: Tensor) -> Tensor:
        """(B, C, H, W) uint8 to float32: (x / 255 - mean) / std, operation by operation as torchvision does it."""
        levels, mean, std = self._on(images.device)
        return images.to(torch.float32).div_(levels).sub_(mean).div_(std)

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        if device not in self._constants:
            # why 255 as a tensor: a GPU divides by a Python number by multiplying with its reciprocal, which rounds
            # otherwise than the division on the CPU
            constants = ((255.0,), self.spec.mean, self.spec.std)
            self._constants[device] = tuple(torch.tensor(each, device=device).view(-1, 1, 1) for each in constants)
        return self._constants[device]


def train_transform_at(spec: TransformSpec, images: Tensor, top: int, left: int, flip: bool) -> Tensor:
    """The training transform with given instead of drawn decisions, the same for all images.

    Args:
        spec: of kind "plain" or "pad_crop".
        images: (B, C, H, W) uint8.
        top, left: upper left corner of the crop in the padded image, 0 .. 2 * pad.
        flip: whether to mirror left-right.

    Returns:
        (B, C, size, size) float32, normalised.

    Raises:
        ValueError: if the crop would leave the padded image.
    """
    if not (0 <= top <= 2 * spec.pad and 0 <= left <= 2 * spec.pad):
        raise ValueError(f"crop at {top}, {left}: offsets reach from 0 to {2 * spec.pad}")
    n, device = len(images), images.device
    draws = Draws(*(torch.full((n,), value, device=device) for value in (top, left, flip)))
    return BatchTransform(spec, train=True)(images, draws)


def image_pipeline(spec: TransformSpec, train: bool) -> transforms.Compose:
    """The torchvision pipeline from a PIL image to a normalised (C, size, size) float32 tensor.

    It draws from torch's global generator, in torchvision's order.
    """
    if spec.kind == "resized_crop":
        geometry = (
            [transforms.RandomResizedCrop(spec.size)]
            if train
            else [transforms.Resize(spec.resize), transforms.CenterCrop(spec.size)]
        )
    else:
        inner = spec.size - 2 * spec.border
        geometry = [transforms.Resize((inner, inner), InterpolationMode.NEAREST)]  # does nothing if it fits
        if spec.border:
            geometry.append(transforms.Pad(spec.border))
        if train and spec.pad:
            geometry.append(transforms.RandomCrop(spec.size, padding=spec.pad))
    if train and spec.flip:
        geometry.append(transforms.RandomHorizontalFlip(FLIP_PROBABILITY))
    return transforms.Compose([*geometry, transforms.ToTensor(), transforms.Normalize(spec.mean, spec.std)])
