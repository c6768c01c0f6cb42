"""Relational distillation: angles and distances between the samples of a batch (R-DFCIL; RKD).

Source: gqk/R-DFCIL@f47e123 and gqk/cl-lite@f0ddf02 (`RKDAngleLoss`, `RKDDistanceLoss`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def angles(x: Tensor) -> Tensor:
    """(N, N, N) cosines at sample i between the directions to j and to k; zero where i = j or i = k."""
    directions = F.normalize(x.unsqueeze(0) - x.unsqueeze(1), dim=2)  # [i, j] points from i to j
    return torch.bmm(directions, directions.transpose(1, 2))


def angle_relation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over all N^3 triples of the absolute difference of the cosines; zero triples count. Inputs (N, D)."""
    return F.l1_loss(angles(student), angles(teacher))


def distance_relation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Smooth L1 (threshold 1), mean over N^2, between pairwise distances in units of their own mean. Inputs (N, D).

    The gradient also passes through the student's mean distance.
    """
    return F.smooth_l1_loss(_relative_distances(student), _relative_distances(teacher))


def _relative_distances(x: Tensor) -> Tensor:
    squared = (x.unsqueeze(0) - x.unsqueeze(1)).square().sum(dim=2)
    off_diagonal = 1 - torch.eye(len(x), dtype=x.dtype, device=x.device)
    distances = squared.clamp(min=1e-12).sqrt() * off_diagonal
    positive = distances > 0
    return distances / (distances.sum() / positive.sum())


class RelationEmbeddings(nn.Module):
    """R-DFCIL's two linear maps before the angles, one for each network's features; both are trained.

    original: the teacher's map is trained too and receives gradient (README, Deviations R8).
    """

    def __init__(self, num_features: int, projection: int | None = None) -> None:
        super().__init__()
        width = 2 * num_features if projection is None else projection
        self.embed1 = nn.Linear(num_features, width)  # rng: default initialisation, the student's first
        self.embed2 = nn.Linear(num_features, width)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """(N, F) features of both networks -> () loss."""
        return angle_relation_loss(self.embed1(student), self.embed2(teacher))
