"""Which classes, images and targets belong to which task."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from common.training.errors import UserError


@dataclass(frozen=True)
class ClassSplit:
    """A class order cut into tasks.

    Attributes:
        order: every class once, in the order of the tasks.
        boundaries: ascending cuts in `order`, from 0 to the number of classes; task t (from 1) has the classes
            order[boundaries[t - 1]:boundaries[t]].
    """

    order: tuple[int, ...]
    boundaries: tuple[int, ...]

    def __post_init__(self) -> None:
        if sorted(self.order) != list(range(len(self.order))):
            raise UserError(f"the class order must hold every class 0..{len(self.order) - 1} once")
        ascending = all(low < high for low, high in pairwise(self.boundaries))
        if not ascending or self.boundaries[:1] != (0,) or self.boundaries[-1] != len(self.order):
            raise UserError(
                f"task boundaries must ascend from 0 to the {len(self.order)} classes, got {list(self.boundaries)}"
            )

    @classmethod
    def sequential(cls, num_classes: int, first: int, other: int) -> ClassSplit:
        """Consecutive classes: the first task has `first` of them, every other task `other`.

        Raises:
            UserError: if the tasks do not use up the classes exactly.
        """
        return cls(tuple(range(num_classes)), task_boundaries(num_classes, first, other))

    @classmethod
    def random(cls, num_classes: int, first: int, other: int) -> ClassSplit:
        """The same sizes with a random class order, drawn from torch's global generator.

        Raises:
            UserError: if the tasks do not use up the classes exactly (nothing is drawn then).
        """
        boundaries = task_boundaries(num_classes, first, other)
        return cls(tuple(torch.randperm(num_classes).tolist()), boundaries)  # rng: one permutation, global generator

    @property
    def tasks(self) -> int:
        """Number of tasks."""
        return len(self.boundaries) - 1

    @property
    def num_classes(self) -> int:
        """Number of classes of all tasks together."""
        return len(self.order)

    def classes(self, task: int) -> list[int]:
        """Classes of a task (counted from 1), in class-list order.

        Raises:
            ValueError: if there is no such task.
        """
        if not 1 <= task <= self.tasks:
            raise ValueError(f"task {task} of {self.tasks}; tasks are counted from 1")
        return list(self.order[self.boundaries[task - 1] : self.boundaries[task]])

    def indices(self, labels: Tensor, task: int) -> Tensor:
        """Images of a task: class by class in class-list order, ascending inside a class.

        Args:
            labels: (N,) labels of all images.
            task: counted from 1.

        Returns:
            (n,) int64 places in `labels`.
        """
        return torch.cat([(labels == label).nonzero()[:, 0] for label in self.classes(task)])

    def targets(self, labels: Tensor, task: int, remap: bool) -> Tensor:
        """Targets of the images of a task, in the order of `indices`.

        Args:
            labels: (N,) labels of all images.
            task: counted from 1.
            remap: True: place of the class in the task's class list (0 .. classes of the task - 1), for one head per
                task; False: the label itself, for one head over all classes.

        Returns:
            (n,) int64.
        """
        own = labels[self.indices(labels, task)]
        if not remap:
            return own.to(torch.int64)
        place = torch.full((self.num_classes,), -1, dtype=torch.int64)
        classes = self.classes(task)
        place[classes] = torch.arange(len(classes))
        return place[own]


def task_boundaries(num_classes: int, first: int, other: int) -> tuple[int, ...]:
    """0, first, first + other, ... up to the number of classes.

    Raises:
        UserError: if they do not end there exactly; it names sizes that would fit.
    """
    rest = num_classes - first
    if first >= 1 and other >= 1 and rest >= 0 and rest % other == 0:
        return (0, *range(first, num_classes + 1, other))
    if 1 <= first <= num_classes:
        fitting = ", ".join(str(size) for size in range(1, rest + 1) if rest % size == 0)
        advice = f"with a first size of {first} these other sizes fit: {fitting}"
    else:
        fitting = ", ".join(str(size) for size in range(1, num_classes + 1) if num_classes % size == 0)
        advice = f"as equal sizes these fit: {fitting}"
    raise UserError(f"split sizes {first} and {other} do not add up to {num_classes} classes; {advice}")
