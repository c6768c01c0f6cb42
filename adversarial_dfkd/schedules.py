"""Learning rates and iteration counts."""

from __future__ import annotations

import math

BASE_ITERATIONS, BASE_BATCH = 36, 1024


def cosine_rate(lr: float, epoch: int, epochs: int) -> float:
    """Half a cosine from `lr` at epoch 0 to 0 after the last one."""
    return lr * (1 + math.cos(math.pi * epoch / epochs)) / 2


def iterations_per_epoch(batch_size: int) -> int:
    """36 times the integer quotient 1024 // batch size; 0 for batches of more than 1024."""
    return BASE_ITERATIONS * (BASE_BATCH // batch_size)
