"""Test images by the original's names of data sets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import datasets
from torchvision.transforms import functional

from common.data.cifar import DOWNLOAD_ERRORS, quiet_download
from common.data.datasets import open_dataset
from common.data.images import ImageSet, LazyImages
from common.data.transforms import BatchTransform, TransformSpec
from common.training.errors import UserError

Normalisation = Literal["released", "wide"]

WIDE_CONSTANTS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
}
"""Mean and std of the loader for Wide-ResNet teachers, which nothing in the original calls; others are as released."""

SQUARE = 32
"""Pixels a side of all data sets but tiny-imagenet, whose images get the size of the generated ones."""


@dataclass(frozen=True)
class DataFacts:
    """A data set of this subproject.

    Attributes:
        folders: below `data` where it may lie, in the order of looking; the last one is taken if none is there.
        name: for `open_dataset`.
        classes: number of classes.
        mean, std: of the normalisation, per channel.
        test_batch: images per test batch; None: `batch_size`.
        marker: path that must be there in all `folders` but the last.
        resized: whether images are brought to the networks' size, as the original does for some data sets.
    """

    folders: tuple[str, ...]
    name: str
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    test_batch: int | None = None
    marker: str = ""
    resized: bool = True

    @property
    def channels(self) -> int:
        """Of an image."""
        return len(self.mean)


FACTS = {
    "MNIST": DataFacts(("",), "MNIST", 10, (0.1307,), (0.3081,), 64),
    "FMNIST": DataFacts(
        ("FashionMNIST", ""), "FashionMNIST", 10, (0.2856,), (0.3385,), marker="FashionMNIST/raw/t10k-images-idx3-ubyte"
    ),
    "SVHN": DataFacts(("",), "SVHN", 10, (0.4378, 0.4439, 0.4729), (0.1980, 0.2011, 0.1971), resized=False),
    "cifar10": DataFacts(("",), "CIFAR10", 10, (0.4914, 0.4824, 0.4467), (0.2471, 0.2435, 0.2616)),
    "cifar100": DataFacts(
        ("",), "CIFAR100", 100, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010), resized=False
    ),
    "tiny-imagenet": DataFacts(
        ("tiny_imagenet", "tiny-imagenet-200", ""), "TinyImageNet", 200, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    ),
}
"""Value of `dataset` -> facts."""


def open_test_images(dataset: str, root: str, *, smoke: bool = False, per_class: int | None = None) -> ImageSet:
    """Test images as they are stored; a smoke run gets the embedded sample in their place.

    Raises:
        UserError: if they are missing.
    """
    facts = FACTS[dataset]
    if smoke:
        images = open_dataset("Sample", root, "test")
        images = images.classes_only(min(facts.classes, len(images.classes)))
        if facts.channels == 1:
            images = replace(images, images=images.images.float().mean(dim=1, keepdim=True).round().to(torch.uint8))
    else:
        places = [Path(root) / folder for folder in facts.folders]
        place = next((path for path in places[:-1] if (path / facts.marker).exists()), places[-1])
        images = open_svhn(place) if facts.name == "SVHN" else open_dataset(facts.name, place, "test")
    return images if per_class is None else images.per_class(per_class)


def open_svhn(root: Path) -> ImageSet:
    """SVHN's test images (torchvision's file test_32x32.mat, fetched if it is missing).

    Raises:
        UserError: if it is missing and cannot be fetched.
    """
    try:
        with quiet_download():
            found = datasets.SVHN(str(root), split="test", download=True)
    except DOWNLOAD_ERRORS as error:
        raise UserError(f"SVHN (test) is not in {root} and downloading it failed; put test_32x32.mat there") from error
    labels = torch.from_numpy(np.asarray(found.labels, dtype=np.int64))
    return ImageSet("SVHN", "test", torch.from_numpy(found.data), labels, [str(digit) for digit in range(10)])


def constants(dataset: str, normalisation: Normalisation) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std per channel."""
    released = FACTS[dataset].mean, FACTS[dataset].std
    return WIDE_CONSTANTS.get(dataset, released) if normalisation == "wide" else released


def test_tensor(
    dataset: str, images: Tensor | LazyImages, img_size: int, normalisation: Normalisation = "released"
) -> Tensor:
    """Images as networks see them: resized (bilinear, in bytes) and normalised.

    Images of tiny-imagenet are resized on the shorter side, those of other data sets to a square.

    Args:
        dataset: key of `FACTS`.
        images: (N, C, H, W) uint8, or files.
        img_size: pixels a side of generated images, to which those of tiny-imagenet are brought.
        normalisation: which constants; they have to be those that the teacher was trained with.

    Returns:
        (N, C, h, w) float32.
    """
    facts = FACTS[dataset]
    mean, std = constants(dataset, normalisation)
    size = [img_size] if dataset == "tiny-imagenet" else [SQUARE, SQUARE]  # a single number: the shorter side's
    if isinstance(images, LazyImages):
        small = [functional.resize(images.load(number), size) for number in range(len(images))]
        pixels = torch.stack([functional.pil_to_tensor(image) for image in small])
    elif facts.resized and any(side != size[0] for side in images.shape[2:]):
        pixels = torch.stack([functional.pil_to_tensor(functional.resize(_picture(one), size)) for one in images])
    else:
        pixels = images
    return BatchTransform(TransformSpec(mean, std, size[0]), train=False).normalise(pixels)


test_tensor.__test__ = False  # not for pytest


def _picture(image: Tensor) -> Image.Image:
    """why Pillow: its bilinear filter on bytes is what the original's teachers saw"""
    array = image.permute(1, 2, 0).numpy()
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
