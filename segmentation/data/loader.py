"""Batches of a step: order, geometry, labels, all reproducible from (seed, epoch, place).

Every image's random numbers come from a generator of its own, seeded by the run's seed, the step, the epoch and its
place in the order. So a run may stop anywhere and go on, worker threads may finish in any order, and several processes
draw what a single one would. The originals share one global generator per worker.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segmentation.data.protocol import Selection
from segmentation.data.sampler import epoch_order, part_of
from segmentation.data.transforms import normalise, to_bytes, training_pair, validation_pair

Batch = tuple[Tensor, Tensor]
PREFETCHED = 2
"""Batches prepared ahead."""


class PairLoader:
    """Batches of normalised images (B, 3, H, W) and labels (B, H, W) int64 on the device.

    Args:
        selection: images and label map.
        size: pixels of a side; None leaves images as they are.
        augment: random crop and flip; otherwise the middle.
        batch_size: per process.
        device: where batches go.
        seed: of order-independent draws.
        step: number of the step; other steps draw other numbers.
        rank, processes: part of the images.
        workers: threads that prepare images; 0: none.
    """

    def __init__(
        self,
        selection: Selection,
        *,
        size: int | None,
        augment: bool,
        batch_size: int,
        device: torch.device,
        seed: int = 0,
        step: int = 0,
        rank: int = 0,
        processes: int = 1,
        workers: int = 1,
    ) -> None:
        self.selection, self.size, self.augment, self.batch_size = selection, size, augment, batch_size
        self.device, self.seed, self.step = device, seed, step
        self.rank, self.processes, self.workers = rank, processes, workers

    # --- training -----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Full batches of an epoch."""
        return -(-len(self.selection) // self.processes) // self.batch_size

    def epoch(self, number: int, start: int = 0, draws: int | None = None) -> Iterator[Batch]:
        """Full batches of an epoch, in random order.

        Args:
            number: of the epoch, from 0.
            start: first batch.
            draws: epoch whose random numbers are used; default `number`.
        """
        order = epoch_order(len(self.selection), number, self.processes)
        places = part_of(list(range(len(order))), self.rank, self.processes)
        keys = number if draws is None else draws
        batches = [
            [(order[place], (keys, place)) for place in places[first : first + self.batch_size]]
            for first in range(start * self.batch_size, len(self) * self.batch_size, self.batch_size)
        ]
        yield from self._prepared(batches)

    # --- evaluation ---------------------------------------------------------------------------------------------

    def all(self, padded: bool = False) -> Iterator[tuple[np.ndarray, Tensor, Tensor]]:
        """All images once, shared out among the processes.

        Args:
            padded: in random order, repeated until all processes have equally many, as the originals do (D13).

        Yields:
            Places in the selection, images, labels.
        """
        count = len(self.selection)
        order = epoch_order(count, 0, self.processes) if padded else list(range(count))
        mine = part_of(order, self.rank, self.processes)
        chunks = [mine[first : first + self.batch_size] for first in range(0, len(mine), self.batch_size)]
        batches = self._prepared([[(place, (0, place)) for place in chunk] for chunk in chunks])
        for chunk, (images, labels) in zip(chunks, batches, strict=True):
            yield np.array(chunk), images, labels

    # --- inside -------------------------------------------------------------------------------------------------

    def _prepared(self, batches: list[list[tuple[int, tuple[int, int]]]]) -> Iterator[Batch]:
        if not self.workers:
            for batch in batches:
                yield self._joined([self._one(*item) for item in batch])
            return
        with ThreadPoolExecutor(self.workers) as pool:
            waiting: list[list[Future]] = []
            try:
                for batch in batches:
                    waiting.append([pool.submit(self._one, *item) for item in batch])
                    if len(waiting) > PREFETCHED:
                        yield self._joined([future.result() for future in waiting.pop(0)])
                while waiting:
                    yield self._joined([future.result() for future in waiting.pop(0)])
            finally:
                for batch in waiting:
                    for future in batch:
                        future.cancel()

    def _one(self, place: int, key: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        image, mask = self.selection.source.load(int(self.selection.indices[place]))
        if self.augment:
            draws = random.Random(f"{self.seed}/{self.step}/{key[0]}/{key[1]}")
            image, mask, _ = training_pair(image, mask, self.size, draws)
        elif self.size is not None:
            image, mask = validation_pair(image, mask, self.size)
        pixels, raw = to_bytes(image, mask)
        return pixels, self.selection.label_map[raw]

    def _joined(self, pairs: list[tuple[np.ndarray, np.ndarray]]) -> Batch:
        images = torch.from_numpy(np.stack([pixels for pixels, _ in pairs]))
        labels = torch.from_numpy(np.stack([labels for _, labels in pairs]))
        if self.device.type == "cuda":
            images, labels = images.pin_memory(), labels.pin_memory()
        moved = images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)
        return normalise(moved[0]), moved[1].long()


class FirstEpoch:
    """What a search for thresholds iterates over: epoch 0's order, with random numbers of its own.

    Args:
        loader: of the training images.
    """

    def __init__(self, loader: PairLoader) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        return self.loader.epoch(0, draws=-1)


def make_loader(config: Any, selection: Selection, augment: bool, **about: Any) -> PairLoader:
    """A loader with the sizes of the flags: training crops, or cropped or full-size test images.

    Args:
        config: flags.
        selection: images.
        augment: training transforms.
        about: device, seed, step, rank, processes.
    """
    cropped = augment or config.crop_val
    return PairLoader(
        selection,
        size=config.crop_size if cropped else None,
        augment=augment,
        batch_size=config.batch_size if cropped else 1,
        workers=config.num_workers,
        **about,
    )


