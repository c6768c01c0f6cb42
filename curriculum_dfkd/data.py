"""Data sets by the original's names: constants, transforms, loaders."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import resize

from common.data.datasets import open_dataset
from common.data.images import ImageSet
from common.data.loader import Batch, DeviceLoader, StreamLoader, make_loader
from common.data.transforms import TransformSpec
from common.training.errors import UserError


@dataclass(frozen=True)
class DataFacts:
    """A data set of this subproject.

    Attributes:
        name: for `open_dataset`.
        folder: below `--data_root`.
        transform: of training images; its mean and std are also how networks see synthetic images.
        channels: of an image.
        classes: number of classes.
    """

    name: str
    folder: str
    transform: TransformSpec
    channels: int
    classes: int


def _colour(mean: tuple[float, ...], std: tuple[float, ...], size: int = 32) -> TransformSpec:
    return TransformSpec(mean, std, size, "pad_crop", pad=4, flip=True)


_CIFAR10 = _colour((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
_CIFAR100 = _colour((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))
_TINY = _colour((0.4802, 0.4481, 0.3975), (0.2302, 0.2265, 0.2262), 64)

DATASETS = {
    "cifar10": DataFacts("CIFAR10", "", _CIFAR10, 3, 10),
    "cifar100": DataFacts("CIFAR100", "", _CIFAR100, 3, 100),
    "tiny_imagenet": DataFacts("TinyImageNet", "tiny-imagenet-200", _TINY, 3, 200),
    "mnist": DataFacts("MNIST", "", TransformSpec((0.1307,), (0.3081,), 32), 1, 10),
    "fashion_mnist": DataFacts("FashionMNIST", "", TransformSpec((0.2856,), (0.3385,), 32), 1, 10),
}
"""Name of `--dataset` -> facts. fashion_mnist is not in the original (constants as in gaurav104/LRA); grey
images are enlarged to 32 pixels (bilinear) and not augmented."""


def find_facts(dataset: str) -> DataFacts:
    """The facts of a data set.

    Raises:
        UserError: for a name that is not offered.
    """
    if dataset not in DATASETS:
        raise UserError(f"--dataset {dataset}: not offered; expected one of {', '.join(DATASETS)}")
    return DATASETS[dataset]


def open_images(dataset: str, root: str, split: str, *, smoke: bool = False, per_class: int | None = None) -> ImageSet:
    """Images of a split as they are stored; a smoke run gets the embedded sample in their place.

    Args:
        dataset: name of `--dataset`.
        root: `--data_root`.
        split: "train" or "test".
        smoke: the embedded sample, with no more classes than the data set has, grey where it is grey.
        per_class: keep so many images per class; None: all.
    """
    facts = find_facts(dataset)
    if smoke:
        images = open_dataset("Sample", root, split)
        images = images.classes_only(min(facts.classes, len(images.classes)))
        if facts.channels == 1:
            grey = images.images.float().mean(dim=1, keepdim=True).round().to(torch.uint8)
            images = replace(images, images=grey)
    else:
        images = open_dataset(facts.name, Path(root) / facts.folder, split)
    if per_class is not None:
        images = images.per_class(per_class)
    return images


def loader_for(
    images: ImageSet, spec: TransformSpec, *, train: bool, batch_size: int, device: torch.device, seed: int,
    workers: int = 0, memory_format: torch.memory_format | None = None,
) -> DeviceLoader | StreamLoader:
    """A loader over a whole split: shuffled and augmented for training, in order for testing.

    Images of another size than the transform's are brought to it (bilinear).
    """
    size = [spec.size, spec.size]
    if not images.is_lazy and list(images.images.shape[2:]) != size:
        images = replace(images, images=resize(images.images, size, InterpolationMode.BILINEAR, antialias=True))
    return make_loader(
        images, torch.arange(len(images)), images.labels, spec, train=train, batch_size=batch_size, shuffle=train,
        device=device, seed=seed, workers=workers, memory_format=memory_format,
    )


class EndlessBatches:
    """Batches of a loader, pass after pass, that a restored run continues exactly.

    Args:
        loader: not iterated by anybody else.
    """

    def __init__(self, loader: DeviceLoader | StreamLoader) -> None:
        self.loader = loader
        self._iterator = iter(loader)

    def __len__(self) -> int:
        return len(self.loader)

    def next(self) -> Batch:
        """The next batch; a new pass begins when one has ended."""
        batch = next(self._iterator, None)
        if batch is None:
            self._iterator = iter(self.loader)
            batch = next(self._iterator)
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Place in the pass."""
        return self.loader.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved place."""
        self.loader.load_state_dict(state)
        self._iterator = iter(self.loader)


def describe(test: ImageSet, train: ImageSet | None = None) -> dict[str, Any]:
    """What a run used, for its record; the content hash is the test images' for a run without data."""
    counted = train if train is not None else test
    return {
        "name": counted.name,
        "sha256": counted.fingerprint(),
        "copy": counted.copy,
        "note": counted.note,
        "train_images": 0 if train is None else len(train),
        "test_images": len(test),
        "classes": len(counted.classes),
    }
