"""Classification losses on the columns that a task may use.

Source: XiaorongLi-95/VDFD@2c0dfce agents/agent.py `criterion` (task-incremental), agents/vdfd_la.py `criterion`
(labels trick), agents/vdfd.py (all seen classes).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
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


def own_head_logits(logits: Sequence[Tensor], target: Tensor) -> Tensor:
    """Logits of several heads side by side, minus infinity outside the head of a sample's own task.

    A cross-entropy over them sends every sample through its own head, and a prediction is one of its own task. With
    one task per batch this is `local_cross_entropy` over all columns of that head.

    Args:
        logits: (B, outputs) of each head.
        target: (B,) column of the true class, counted over all heads.

    Returns:
        (B, outputs of all heads).
    """
    head_of_column = torch.cat([target.new_full((part.shape[1],), head) for head, part in enumerate(logits)])
    foreign = head_of_column != head_of_column[target].unsqueeze(1)
    return torch.cat(list(logits), dim=1).masked_fill(foreign, -math.inf)
