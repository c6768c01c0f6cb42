"""The images of each task, and a loader for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torchvision import transforms

from common.data.images import ImageSet
from common.data.loader import DeviceLoader, Loader, StreamLoader
from common.data.splits import ClassSplit
from common.data.transforms import BatchTransform, TransformSpec
from common.training.seeding import draw_seed
from rfd.data.protocol import positions
from rfd.data.transforms import ColourJitterCrop, NormalisedPadding, abd_pipeline, cllite_pipeline

RECIPES: dict[str, tuple[type[BatchTransform], Callable[[TransformSpec, bool], transforms.Compose]]] = {
    "cl-lite": (NormalisedPadding, cllite_pipeline),
    "abd": (ColourJitterCrop, abd_pipeline),
    "abd-plain": (BatchTransform, abd_pipeline),
}
"""Whose augmentation -> transform of batches in memory, pipeline for image files."""


class TaskImages:
    """Train and test loaders of every task, counted from 1; labels are positions in the class order.

    Draws one number per training loader from the global generator.

    Args:
        train_set, test_set: all images.
        split: class order and tasks.
        spec: statistics, size and augmentation.
        recipe: key of `RECIPES`.
        batch_size: images per step; the last, incomplete training batch is left out.
        device: where batches are wanted.
        augment: whether training images are augmented.
        workers: processes that read image files.
        channels_last: memory layout of the image batches.

    Attributes:
        sizes: classes of each task.
        boundaries: cuts of the class order into tasks.
    """

    def __init__(
        self,
        train_set: ImageSet,
        test_set: ImageSet,
        split: ClassSplit,
        spec: TransformSpec,
        *,
        recipe: str = "cl-lite",
        batch_size: int,
        device: torch.device,
        augment: bool = True,
        workers: int = 0,
        channels_last: bool = False,
    ) -> None:
        self.train_set, self.test_set, self.split, self.spec = train_set, test_set, split, spec
        self.recipe, self.batch_size, self.device = recipe, batch_size, device
        self.augment, self.workers = augment, workers
        self.boundaries = split.boundaries
        self.sizes = [len(split.classes(task)) for task in range(1, split.tasks + 1)]
        self._positions = positions(split.order)
        self._layout = torch.channels_last if channels_last else None
        self._test_loaders: dict[int, Loader] = {}

    def train_loader(self, task: int) -> Loader:
        """Shuffled, augmented batches of one task. # rng: one number"""
        return self._loader(self.train_set, [task], train=True, seed=draw_seed())

    def joint_loader(self, task: int) -> Loader:
        """The same of all tasks up to this one. # rng: one number"""
        return self._loader(self.train_set, range(1, task + 1), train=True, seed=draw_seed())

    def test_loader(self, task: int) -> Loader:
        """Test images of one task, in order."""
        if task not in self._test_loaders:
            self._test_loaders[task] = self._loader(self.test_set, [task], train=False, seed=0)
        return self._test_loaders[task]

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
            "classes": self.split.num_classes,
            "tasks": [self.split.classes(task) for task in range(1, self.split.tasks + 1)],
        }

    def _loader(self, images: ImageSet, tasks: Sequence[int], *, train: bool, seed: int) -> Loader:
        indices = torch.cat([self.split.indices(images.labels, task) for task in tasks])
        targets = self._positions[images.labels[indices]]
        common: dict[str, Any] = {
            "batch_size": self.batch_size, "shuffle": train, "device": self.device, "seed": seed,
            "memory_format": self._layout, "drop_last": train,
        }  # fmt: skip
        keep_workers = train  # why: test loaders of all tasks are kept, and so would be their processes
        batch_transform, pipeline = RECIPES[self.recipe]
        train = train and self.augment
        if images.is_lazy or self.spec.kind == "resized_crop":
            files = pipeline(self.spec, train)
            return StreamLoader(
                images, indices, targets, files, workers=self.workers, keep_workers=keep_workers, **common
            )
        return DeviceLoader(images.images[indices], targets, batch_transform(self.spec, train), **common)
