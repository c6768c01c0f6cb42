"""Which classes and images belong to which task, as the original cuts them.

Source: IRVLUTD/CDL@d980577 trainer.py `Trainer.__init__`, dataloaders/dataloader.py `iDataset`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

TRAIN_SHARE = 0.8
"""Of the training images, with --validation."""


def class_tasks(
    classes: int, first: int, other: int, max_task: int = -1, order: Sequence[int] | None = None
) -> list[list[int]]:
    """Classes of every task.

    Args:
        classes: number of classes.
        first, other: classes of the first and of every other task; the last task gets what is left.
        max_task: number of tasks at most; -1: no limit.
        order: the classes in the order of the tasks; None: as they are.
    """
    order = list(range(classes)) if order is None else list(order)
    tasks: list[list[int]] = []
    start = 0
    while start < len(order) and (max_task == -1 or len(tasks) < max_task):
        size = other if tasks else first
        tasks.append(order[start : start + size])
        start += size
    return tasks


def seeded_order(classes: int, seed: int) -> list[int]:
    """CODA-Prompt's shuffle of the classes, which the original dropped (D1). The global generator stays as it is."""
    order = list(range(classes))
    random.Random(seed).shuffle(order)
    return order


def validation_split(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Places of training and validation images, in permuted order.

    The permutation is NumPy's of the seed, taken into its range; the global state stays as it is.
    """
    places = torch.from_numpy(np.random.RandomState(seed % 2**32).permutation(count))
    kept = int(TRAIN_SHARE * count)
    return places[:kept], places[kept:]


def task_places(targets: Tensor, classes: Sequence[int], places: Tensor | None = None) -> Tensor:
    """Images of a task in list order (not class by class).

    Args:
        targets: (N,) labels of all images.
        classes: of the task.
        places: (n,) images to choose from, in this order; None: all.
    """
    places = torch.arange(len(targets)) if places is None else places
    return places[torch.isin(targets[places], torch.tensor(list(classes)))]
