"""Loaders of every task.

Source: IRVLUTD/CDL@d980577 dataloaders/utils.py `get_transform`, trainer.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.data.datasets import open_dataset
from common.data.images import ImageSet
from common.data.loader import Batch, DeviceLoader, Loader, StreamLoader
from common.data.resized_crop import BatchResizedCrop
from common.data.transforms import TransformSpec, image_pipeline
from common.training.errors import UserError
from common.training.seeding import draw_seed
from prompt_distill.options import PromptDistillOptions
from prompt_distill.split_lists import LISTED, open_listed
from prompt_distill.tasks import class_tasks, seeded_order, task_places, validation_split

RESIZED = {"CIFAR100": 224, "Sample": 224}
"""Test images of these are enlarged to the input size; all others get a shorter side of 256 and the central part."""

SHORT_SIDE_SHARE = 256 / 224


def transform_spec(dataset: str, size: int = 224, normalise: bool = False) -> TransformSpec:
    """Training: random resized crop and flip; test: resize, for photographs with the central part.

    Args:
        dataset: name of the data set.
        size: side of the network's input, pixels.
        normalise: to mean 0.5, std 0.5. # original: (D7) inputs stay in [0, 1]
    """
    level = (0.5,) * 3 if normalise else (0.0,) * 3
    deviation = (0.5,) * 3 if normalise else (1.0,) * 3
    resize = size if dataset in RESIZED else round(SHORT_SIDE_SHARE * size)
    return TransformSpec(level, deviation, size, "resized_crop", flip=True, resize=resize)


class _WholeBatches(Loader):
    """Leaves out an incomplete last batch."""

    def __len__(self) -> int:
        return self.dataset_size // self.batch_size

    def _batches(self, number: int, start: int) -> Iterator[Batch]:
        return islice(super()._batches(number, start), len(self) - start)


class DeviceTrainLoader(_WholeBatches, DeviceLoader):
    """Images on the device, whole batches only."""


class StreamTrainLoader(_WholeBatches, StreamLoader):
    """Images decoded in worker processes, whole batches only."""


class TaskImages:
    """Train and test loaders of every task, counted from 1.

    Draws a seed from torch's global generator for every training loader.

    Args:
        config: flags of the program.
        size: side of the networks' input, pixels.
        device: where batches are wanted.
        seed: of the run (class order, validation split).

    Attributes:
        tasks: classes of each task; targets are places in their concatenation.
    """

    def __init__(self, config: PromptDistillOptions, size: int, device: torch.device, seed: int) -> None:
        self.config, self.device = config, device
        root = Path(config.dataroot)
        if config.dataset in LISTED:
            self.train_set, self.test_set = (open_listed(config.dataset, root, split) for split in ("train", "test"))
            classes = LISTED[config.dataset].classes
        else:
            self.train_set, self.test_set = (open_dataset(config.dataset, root, split) for split in ("train", "test"))
            classes = len(self.train_set.classes)
        if config.images_per_class is not None:
            self.train_set = self.train_set.per_class(config.images_per_class)
            if config.smoke:
                self.test_set = self.test_set.per_class(config.images_per_class)
        self.train_places = self.test_places = None
        if config.validation:
            self.train_places, self.test_places = validation_split(len(self.train_set), seed)
            self.test_set = self.train_set
        order = seeded_order(classes, seed) if config.class_order == "seeded" else list(range(classes))
        first = classes if config.upper_bound_flag else config.first_split_size
        self.tasks = class_tasks(classes, first, config.other_split_size, config.max_task, order)
        self.spec = transform_spec(config.dataset, size, config.normalise)
        column = torch.zeros(max(classes, len(self.train_set.classes)), dtype=torch.int64)
        column[order] = torch.arange(classes)
        self._column = column
        self._test_loaders: dict[int, Loader] = {}

    @property
    def classes(self) -> int:
        """Classes of all tasks together: outputs of the networks."""
        return sum(map(len, self.tasks))

    def train_loader(self, task: int) -> Loader:
        """Shuffled, augmented batches; an incomplete one is left out, as in the original."""
        loader = self._loader(self.train_set, self.train_places, task, train=True, seed=draw_seed())
        if not len(loader):
            raise UserError(
                f"task {task} has {loader.dataset_size} training images, less than "
                f"--batch_size {self.config.batch_size}"
            )
        return loader

    def test_loader(self, task: int) -> Loader:
        """Test images in order, all of them."""
        if task in self._test_loaders:
            return self._test_loaders[task]
        loader = self._loader(self.test_set, self.test_places, task, train=False, seed=0)
        if not self.test_set.is_lazy:  # why: worker processes live as long as their loader; those of all tasks pile up
            self._test_loaders[task] = loader
        return loader

    def describe(self) -> dict[str, Any]:
        """What the run record says about the data."""
        return {
            "name": self.train_set.name,
            "sha256": self.train_set.fingerprint(),
            "test_sha256": self.test_set.fingerprint(),
            "copy": self.train_set.copy,
            "note": self.train_set.note,
            "train_images": len(self.train_set),
            "test_images": len(self.test_set),
            "classes": self.classes,
            "tasks": self.tasks,
        }

    def _loader(self, images: ImageSet, places: Tensor | None, task: int, *, train: bool, seed: int) -> Loader:
        indices = task_places(images.labels, self.tasks[task - 1], places)
        targets = self._column[images.labels[indices]]
        common = {"batch_size": self.config.batch_size, "shuffle": train, "device": self.device, "seed": seed}
        augment = train and self.config.train_aug
        if images.is_lazy:
            kind = StreamTrainLoader if train else StreamLoader
            pipeline = image_pipeline(self.spec, augment)
            return kind(images, indices, targets, pipeline, workers=self.config.workers, **common)
        kind = DeviceTrainLoader if train else DeviceLoader
        transform = BatchResizedCrop(self.spec, augment, side=images.images.shape[-1])
        return kind(images.images[indices], targets, transform, **common)
