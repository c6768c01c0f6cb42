"""Order of the images of an epoch, and each process's part of it.

Source: PyTorch's DistributedSampler, as arthurdouillard/CVPR2021_PLOP@4b4a060 run.py uses it (seed 0).
"""

from __future__ import annotations

import math

import torch


def epoch_order(count: int, epoch: int, processes: int = 1, shuffle: bool = True, seed: int = 0) -> list[int]:
    """Order of all images in an epoch, repeated from the start until all processes get equally many.

    Args:
        count: images.
        epoch: number of the epoch, from 0.
        processes: how many share the epoch.
        shuffle: False keeps the natural order.
        seed: added to the epoch.
    """
    generator = torch.Generator().manual_seed(seed + epoch)
    order = torch.randperm(count, generator=generator).tolist() if shuffle else list(range(count))
    total = math.ceil(count / processes) * processes
    return [order[place % count] for place in range(total)] if count else []


def part_of(order: list[int], rank: int, processes: int) -> list[int]:
    """Every `processes`-th image, from number `rank`."""
    return order[rank::processes]
