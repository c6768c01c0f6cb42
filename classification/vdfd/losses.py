"""Classification losses on the columns that a task may use.

Source: XiaorongLi-95/VDFD@2c0dfce agents/agent.py `criterion` (task-incremental), agents/vdfd_la.py `criterion`
(labels trick), agents/vdfd.py (all seen classes).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor


def local_cross_entropy(logits: Tensor, target: Tensor, columns: slice, temperature: float = 1.0) -> Tensor:
    """Cross-entropy over some columns only; other columns get no gradient (the "labels trick", D10).

    Args:
        logits: (B, outputs).
        target: (B,) column of the true class, counted over all outputs; must lie inside `columns`.
        columns: contiguous columns of the current task (or of all seen classes).
        temperature: divides the logits.

    Returns:
        () mean over the batch.
    """
    return F.cross_entropy(logits[:, columns] / temperature, target - (columns.start or 0))


def multi_head_cross_entropy(logits: Mapping[str, Tensor], target: Tensor, tasks: Sequence[str]) -> Tensor:
    """Every sample through the head of its own task, mean over the batch.

    With one task per batch, as in training, this is `local_cross_entropy` over all columns of that head.

    Args:
        logits: head name -> (B, outputs).
        target: (B,) label inside the sample's own task.
        tasks: head name of each sample.
    """
    total = target.new_zeros((), dtype=next(iter(logits.values())).dtype)
    for head, head_logits in logits.items():
        own = [index for index, task in enumerate(tasks) if task == head]
        if own:
            total = total + len(own) * local_cross_entropy(head_logits[own], target[own], slice(0, None))
    return total / len(target)
