"""From flags and a step's number to its training, validation and test images with their label maps.

Source: arthurdouillard/CVPR2021_PLOP@4b4a060 run.py `get_dataset` and dataset/*.py; zhangchbin/RCIL@b9aad58
dataset/cityscape.py. CamVid's protocols are added here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from common.data.files import atomic_file
from common.training.errors import UserError
from segmentation.data import label_maps
from segmentation.data.selection import (
    clean_split,
    filter_domains,
    filter_images,
    hand_out,
    presence_of,
    shuffled_split,
)
from segmentation.data.sources import PairSource, open_ade, open_camvid, open_cityscapes, open_voc
from segmentation.tasks import Task

CROSS_VALIDATION_SHARE = 0.8


@dataclass(frozen=True)
class Selection:
    """Some images of a source, and what their masks' values mean.

    Attributes:
        source: files.
        indices: chosen ones, in order.
        label_map: (256,) raw value -> label of the step.
    """

    source: PairSource
    indices: np.ndarray
    label_map: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def part(self, places: np.ndarray) -> Selection:
        """The images at these places of the selection."""
        return replace(self, indices=self.indices[places])


@dataclass(frozen=True)
class StepData:
    """Images of a step.

    Attributes:
        train, validation, test: as the originals choose them; the test covers all that was seen so far.
        unseen: (len(test),) False for test images that were training images of some step so far (D11).
        validation_augmented: `--cross_val`: validation images get the training transforms.
    """

    train: Selection
    validation: Selection
    test: Selection
    unseen: np.ndarray
    validation_augmented: bool = False

    def describe(self, name: str, classes: int) -> dict[str, Any]:
        """For the run's record."""
        source = self.train.source
        return {
            "name": name,
            "sha256": source.fingerprint(self.train.indices.tolist()),
            "copy": source.copy,
            "note": source.note,
            "train_images": len(self.train),
            "test_images": len(self.test),
            "classes": classes,
        }


class Protocol:
    """All steps of a task on a data set.

    Args:
        task: the task.
        root: data root.
        overlap, masking, test_on_val, val_on_trainset, cross_val, ignore_test_bg, domain_split: flags.
    """

    def __init__(
        self,
        task: Task,
        root: Path,
        *,
        overlap: bool = False,
        masking: str = "current",
        test_on_val: bool = False,
        val_on_trainset: bool = False,
        cross_val: bool = False,
        ignore_test_bg: bool = False,
        domain_split: str = "released",
        seed: int = 42,
    ) -> None:
        self.task, self.root, self.overlap, self.masking = task, root, overlap, masking
        self.test_on_val, self.val_on_trainset, self.cross_val = test_on_val, val_on_trainset, cross_val
        self.ignore_test_bg, self.domain_split, self.seed = ignore_test_bg, domain_split, seed
        self._presence: dict[str, np.ndarray] = {}
        self._sources: dict[str, PairSource] = {}

    def step(self, number: int) -> StepData:
        """Images of a step.

        Raises:
            UserError: if the data are missing, or a step has no image.
        """
        data = self._domains(number) if self.task.is_domain else self._classes(number)
        for name in ("train", "test"):
            if not len(getattr(data, name)):
                raise UserError(f"{self.task.dataset} {self.task.name}: step {number} has no {name} image")
        if self.cross_val:
            count = len(data.train)
            order = np.random.RandomState(self.seed).permutation(count)
            border = int(CROSS_VALIDATION_SHARE * count)
            train, validation = data.train.part(order[:border]), data.train.part(order[border:])
            return replace(data, train=train, validation=validation, validation_augmented=True)
        return data

    # --- domains ------------------------------------------------------------------------------------------------

    def _domains(self, number: int) -> StepData:
        is_camvid = self.task.dataset == "camvid_domain"
        source = self._source("all", lambda: (open_camvid if is_camvid else open_cityscapes)(self.root))
        table = label_maps.camvid_domain_map() if is_camvid else label_maps.cityscapes_domain_map()
        domains = source.domains
        trained = [self._domain_lists(domains, self.task.labels(step))[0] for step in range(number + 1)]
        train, validation = self._domain_lists(domains, self.task.labels(number))
        _, test = self._domain_lists(domains, self.task.labels_old(number) + self.task.labels(number))
        unseen = ~np.isin(test, np.concatenate(trained))
        return StepData(*(Selection(source, chosen, table) for chosen in (train, validation, test)), unseen)

    def _domain_lists(self, domain_of_image: np.ndarray, domains: list[int]) -> tuple[np.ndarray, np.ndarray]:
        if self.domain_split == "clean":
            return clean_split(domain_of_image, domains)
        return shuffled_split(filter_domains(domain_of_image, domains))

    # --- classes ------------------------------------------------------------------------------------------------

    def _classes(self, number: int) -> StepData:
        labels, old = self.task.labels(number), self.task.labels_old(number)
        seen = [*old, *labels]
        validation = self._class_indices("val", labels, [], True)
        test_split = "train" if self.val_on_trainset else "val"  # original: the flag's name notwithstanding
        test = self._class_indices(test_split, seen, [], True)
        if self.test_on_val:
            test = shuffled_split(test)[1]
        unseen = np.ones(len(test), dtype=bool)
        if self.val_on_trainset:
            unseen = ~np.isin(test, np.concatenate([self._class_training(step) for step in range(number + 1)]))
        return StepData(
            Selection(self._class_source("train"), self._class_training(number), self._training_map(labels, old)),
            Selection(self._class_source("val"), validation, self._training_map(labels, old)),
            Selection(self._class_source(test_split), test, self._test_map(seen)),
            unseen,
        )

    def _class_training(self, number: int) -> np.ndarray:
        """Training images of a step."""
        train = self._class_indices("train", self.task.labels(number), self.task.labels_old(number), self.overlap)
        return shuffled_split(train)[0] if self.test_on_val else train

    def _class_source(self, split: str) -> PairSource:
        dataset, root = self.task.dataset, self.root
        openers: dict[str, Callable[[], PairSource]] = {
            "voc": lambda: open_voc(root, split),
            "ade": lambda: open_ade(root, split),
            "cityscape": lambda: open_cityscapes(root, [split]),
            "camvid": lambda: open_camvid(root, ["train"] if split == "train" else ["test"]),
        }
        return self._source(split, openers[dataset])

    def _class_indices(self, split: str, labels: list[int], old: list[int], overlap: bool) -> np.ndarray:
        presence = self.presence(split)
        if self.task.dataset == "cityscape" and split == "train":
            return np.flatnonzero(np.isin(hand_out(presence), [label for label in labels if label != 0]))
        return filter_images(presence, labels, old, overlap)

    def _base_map(self) -> np.ndarray:
        """Raw value -> number of the class in the task table."""
        return {
            "cityscape": label_maps.cityscapes_shifted_map,
            "camvid": label_maps.camvid_shifted_map,
        }.get(self.task.dataset, lambda: label_maps.table({}))()

    def _training_map(self, labels: list[int], old: list[int]) -> np.ndarray:
        if self.task.dataset == "ade":
            return label_maps.ade_map(labels, old)
        if self.task.dataset == "cityscape":
            return label_maps.cityscape_map(labels, old)[self._base_map()]
        return label_maps.voc_training_map(labels, old, self.masking)[self._base_map()]

    def _test_map(self, seen: list[int]) -> np.ndarray:
        if self.task.dataset == "ade":
            return label_maps.ade_map(seen, [], self.ignore_test_bg)
        if self.task.dataset == "cityscape":
            return label_maps.cityscape_map(seen, [])[self._base_map()]
        return label_maps.voc_test_map(seen, [])[self._base_map()]

    # --- tables of what occurs where ----------------------------------------------------------------------------

    def presence(self, split: str) -> np.ndarray:
        """(N, 256) which classes of the task table occur in which image; read once, kept beside the data."""
        if split not in self._presence:
            raw = stored_presence(self._class_source(split), self.root)
            named = np.zeros_like(raw)
            for value, label in enumerate(self._base_map()):
                named[:, label] |= raw[:, value]
            self._presence[split] = named
        return self._presence[split]

    def _source(self, split: str, opener: Callable[[], PairSource]) -> PairSource:
        if split not in self._sources:
            self._sources[split] = opener()
        return self._sources[split]


def stored_presence(source: PairSource, root: Path) -> np.ndarray:
    """Presence of raw values in all masks of a source; computed once where the data root can be written."""
    names = hashlib.sha256("\n".join(source.masks).encode()).hexdigest()[:16]
    path = root / "presence" / f"{source.name}-{names}.npy"
    if path.is_file():
        stored = np.load(path)
        if stored.shape == (len(source), 256):
            return stored
    presence = np.concatenate([presence_of([source.mask(index)]) for index in range(len(source))])
    if len(source) > 1000:  # why: small sets are read in no time
        try:
            with atomic_file(path) as stream:
                np.save(stream, presence)
        except OSError:
            return presence  # a data root that cannot be written; the table is computed again next time
    return presence
