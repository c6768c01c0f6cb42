"""The two protocols: which head and which columns a task uses in training, in memory and in evaluation.

Columns count a head's outputs. With rotation labels every class owns `copies` = 4 neighbouring outputs, of which the
first stands for the image as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from common.training.errors import UserError


@dataclass(frozen=True)
class TaskView:
    """How one task sees the network.

    Attributes:
        head: name of its head.
        loss_columns: columns of the cross-entropy.
        class_columns: one column per class of the task, for importance and prototypes.
    """

    head: str
    loss_columns: slice
    class_columns: slice


class TaskIncremental:
    """One head per task, labels counted inside the task; a sample's task is known when it is tested.

    Args:
        sizes: classes of each task.
        copies: outputs per class (4 with rotation labels).
    """

    remap_labels = True

    def __init__(self, sizes: Sequence[int], copies: int = 1) -> None:
        self.sizes, self.copies = list(sizes), copies

    def heads(self) -> dict[str, int]:
        """Head name -> outputs, in task order."""
        return {str(task): size * self.copies for task, size in enumerate(self.sizes, start=1)}

    def view(self, task: int) -> TaskView:
        """The view of a task, counted from 1."""
        outputs = self.sizes[task - 1] * self.copies
        return TaskView(str(task), slice(0, outputs), slice(0, outputs, self.copies))

    def evaluation(self, task: int, seen: int) -> tuple[str, slice]:
        """Head and columns for testing `task` after `seen` tasks; the position among the columns is the label."""
        view = self.view(task)
        return view.head, view.class_columns


class ClassIncremental:
    """One head for all classes, labels that count them as they are learned; tested among all classes seen so far.

    Args:
        sizes: classes of each task.
        outputs: classes that the head has room for (`--force_out_dim`).
        copies: outputs per class.
        all_seen: let the cross-entropy run over all classes seen so far (the original's unused agent VDFD) instead of
            the current task's only (the labels trick).

    Raises:
        UserError: if the head has too few outputs.
    """

    remap_labels = False
    head = "All"

    def __init__(self, sizes: Sequence[int], outputs: int, copies: int = 1, all_seen: bool = False) -> None:
        if outputs < sum(sizes):
            raise UserError(
                f"--force_out_dim {outputs}: the tasks have {sum(sizes)} classes; expected at least as many"
            )
        self.sizes, self.copies, self.outputs, self.all_seen = list(sizes), copies, outputs, all_seen

    def heads(self) -> dict[str, int]:
        """The one head."""
        return {self.head: self.outputs * self.copies}

    def view(self, task: int) -> TaskView:
        """The view of a task, counted from 1."""
        start, end = sum(self.sizes[: task - 1]) * self.copies, sum(self.sizes[:task]) * self.copies
        loss_start = 0 if self.all_seen else start
        return TaskView(self.head, slice(loss_start, end), slice(start, end, self.copies))

    def evaluation(self, task: int, seen: int) -> tuple[str, slice]:
        """Head and columns for testing `task` after `seen` tasks; the position among the columns is the label."""
        return self.head, slice(0, sum(self.sizes[:seen]) * self.copies, self.copies)
