"""The tasks' images: a data set, its class split, and a loader for each task."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from classification.vdfd.options import MethodOptions, OriginalOptions
from common.data.datasets import ImageSet, open_dataset
from common.data.loader import make_loader
from common.data.splits import ClassSplit
from common.data.transforms import TRANSFORMS, TransformSpec
from common.training.errors import UserError
from common.training.seeding import draw_seed


class Options(OriginalOptions, MethodOptions):
    """What the data of a run depend on (for type checkers)."""


class SplitImages:
    """Train and test images of every task.

    Draws from the global generators: the class order with --rand_split, the task order with --rand_split_order, and a
    seed for every training loader. Without `remap_labels` a label counts the classes in the order in which they are
    learned, so that it is the column of a single head; in natural order that is the data set's own label.

    Args:
        config: flags of the program.
        device: where batches are wanted.
        remap_labels: count labels inside each task.
        transforms: data set -> transform.

    Attributes:
        sizes: classes of each task, in the order in which tasks are learned.
        train_set, test_set: all images.
    """

    def __init__(
        self,
        config: Options,
        device: torch.device,
        remap_labels: bool,
        transforms: Mapping[str, TransformSpec] = TRANSFORMS,
    ) -> None:
        if config.dataset not in transforms:
            raise UserError(f"--dataset {config.dataset} is unknown; expected one of {', '.join(transforms)}")
        self.config, self.device, self.remap_labels = config, device, remap_labels
        self.spec = transforms[config.dataset]
        source = "Sample" if config.smoke else config.dataset
        self.train_set = open_dataset(source, config.dataroot, "train")
        self.test_set = open_dataset(source, config.dataroot, "test")
        if config.smoke and len(self.spec.mean) == 1:
            self.train_set, self.test_set = in_grey(self.train_set), in_grey(self.test_set)
        if config.images_per_class is not None:
            self.train_set = self.train_set.per_class(config.images_per_class)
            if config.smoke:
                self.test_set = self.test_set.per_class(config.images_per_class)
        make_split = ClassSplit.random if config.rand_split else ClassSplit.sequential
        self.split = make_split(len(self.train_set.classes), config.first_split_size, config.other_split_size)
        self.order = list(range(1, self.split.tasks + 1))
        if config.rand_split_order:
            random.shuffle(self.order)  # rng; heads follow this order, so that names and counters agree (D16)
        self.sizes = [len(self.split.classes(number)) for number in self.order]
        learned = torch.tensor([label for number in self.order for label in self.split.classes(number)])
        self._columns = learned.argsort()  # column of each label; original: the label itself, wrong in other orders
        self._memory_format = torch.channels_last if config.fast else None
        self._test_loaders: dict[int, Any] = {}

    def train_loader(self, task: int) -> Any:
        """Shuffled, augmented mini-batches of a task; the last, incomplete one is kept."""
        return self._loader(self.train_set, [task], train=self.config.train_aug, shuffle=True, seed=draw_seed())

    def joint_loader(self, task: int) -> Any:
        """The same of all tasks up to this one; labels that count inside a task go on from those of the task before."""
        so_far = range(1, task + 1)
        return self._loader(self.train_set, so_far, train=self.config.train_aug, shuffle=True, seed=draw_seed())

    def test_loader(self, task: int) -> Any:
        """Test images of a task in order (with --eval_on_train_set its training images, not augmented)."""
        if task not in self._test_loaders:
            images = self.train_set if self.config.eval_on_train_set else self.test_set
            self._test_loaders[task] = self._loader(images, [task], train=False, shuffle=False, seed=0)
        return self._test_loaders[task]

    def describe(self) -> dict[str, Any]:
        """What the run record says about the data."""
        return {
            "name": self.train_set.name,
            "sha256": self.train_set.fingerprint(),
            "test_sha256": self.test_set.fingerprint(),
            "copy": self.train_set.copy,
            "note": self.train_set.note,
            "train_images": len(self.train_set.labels),
            "test_images": len(self.test_set.labels),
            "classes": len(self.train_set.classes),
            "tasks": [[int(label) for label in self.split.classes(number)] for number in self.order],
        }

    def _loader(self, images: ImageSet, tasks: Sequence[int], *, train: bool, shuffle: bool, seed: int) -> Any:
        indices, targets, labels_before = [], [], 0
        for task in tasks:
            number = self.order[task - 1]
            indices.append(self.split.indices(images.labels, number))
            own = self.split.targets(images.labels, number, remap=self.remap_labels)
            targets.append(own + labels_before if self.remap_labels else self._columns[own])
            labels_before += self.sizes[task - 1]
        return make_loader(
            images,
            torch.cat(indices),
            torch.cat(targets),
            self.spec,
            train=train,
            batch_size=self.config.batch_size,
            shuffle=shuffle,
            device=self.device,
            seed=seed,
            workers=self.config.workers,
            path=self.config.loader,
            memory_format=self._memory_format,
            keep_workers=shuffle,  # why: the test loaders of all tasks are kept, their processes would add up
        )


def in_grey(images: ImageSet) -> ImageSet:
    """The same images with one channel, the mean of theirs: the sample in place of a data set without colours."""
    grey = images.images.to(torch.float32).mean(dim=1, keepdim=True).round().to(torch.uint8)
    return replace(images, images=grey)
