"""Class orders and task sizes of the published experiments."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import torch

from common.data.splits import ClassSplit
from common.training.errors import UserError

IMAGENET_ORDER_SEED = 1993


def published_order(num_classes: int, seed: int) -> list[int]:
    """Order number `seed` of the released configs: Python's generator shuffles 0 .. num_classes - 1.

    Orders 0, 1 and 2 are the three repetitions behind the mean and spread of ABD's and R-DFCIL's tables.
    """
    order = list(range(num_classes))
    random.Random(seed).shuffle(order)
    return order


def imagenet_order(num_classes: int) -> list[int]:
    """The one order of ImageNet-100: NumPy's old generator with seed 1993."""
    order = list(range(num_classes))
    np.random.RandomState(IMAGENET_ORDER_SEED).shuffle(order)
    return order


def default_order(num_classes: int, task_seed: int) -> list[int]:
    """cl-lite's order where the config gives none: a permutation from torch's generator."""
    return torch.randperm(num_classes, generator=torch.Generator().manual_seed(task_seed)).tolist()


def repetition_order(dataset: str, num_classes: int, repetition: int) -> list[int]:
    """The published class order of a repetition; ImageNet-100 has one for all."""
    if dataset in ("imagenet100", "imagenet50"):
        return imagenet_order(num_classes)
    return published_order(num_classes, repetition)


def task_sizes(num_classes: int, num_tasks: int, first: float = 0) -> list[int]:
    """Classes of each task (cl-lite's `split_task`).

    Args:
        num_classes, num_tasks: of the whole sequence; at least 2 tasks.
        first: `init_task_splits`; from 1 on: classes of the first task; below: their share of all classes; 0: equal
            tasks. What does not divide evenly goes to the first task.

    Raises:
        UserError: if the tasks cannot be formed.
    """
    if num_tasks < 2:
        raise UserError(f"--data.num_tasks {num_tasks}: at least 2 are needed")
    if first >= 1:
        size = int(first)
        if size != first or size >= num_classes or (num_classes - size) % (num_tasks - 1):
            raise UserError(
                f"--data.init_task_splits {first:g}: expected a share below 1, or a whole number of classes that "
                f"leaves some of {num_classes} to divide evenly among {num_tasks - 1} tasks"
            )
    else:
        size = int(num_classes * first) or num_classes // num_tasks
        size += (num_classes - size) % (num_tasks - 1)
    rest = (num_classes - size) // (num_tasks - 1)
    if rest < 1:
        raise UserError(f"{num_classes} classes are too few for {num_tasks} tasks; lower --data.num_tasks")
    return [size] + [rest] * (num_tasks - 1)


def class_split(order: Sequence[int], sizes: Sequence[int]) -> ClassSplit:
    """The tasks as consecutive pieces of a class order."""
    boundaries = [0]
    for size in sizes:
        boundaries.append(boundaries[-1] + size)
    return ClassSplit(tuple(order), tuple(boundaries))


def positions(order: Sequence[int]) -> torch.Tensor:
    """(C,) raw class -> position in the class order: the labels that networks learn.

    original: skipped where the order equals its own inverse, which mixes up the labels of such orders (README,
    Deviations P3).
    """
    return torch.argsort(torch.tensor(list(order)))
