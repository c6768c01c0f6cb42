"""Rank-q factors of an importance matrix, and the linear functional of the weights that they define.

Source: VDFD supplement, section "low-rank approximation"; XiaorongLi-95/VDFD@2c0dfce agents/vdfd.py `svd`, `comp_GW`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

POWER_ITERATIONS = 2


class Factors(NamedTuple):
    """M ~ left diag(singular) right: what is stored of one parameter's (rows, C) importance.

    Attributes:
        left: (rows, q) orthonormal columns.
        singular: (q,) singular values, descending.
        right: (q, C) orthonormal rows.
    """

    left: Tensor
    singular: Tensor
    right: Tensor

    def product(self) -> Tensor:
        """The (rows, C) matrix that the factors stand for."""
        return (self.left * self.singular) @ self.right

    def count(self) -> int:
        """Numbers stored."""
        return self.left.numel() + self.singular.numel() + self.right.numel()


def draw_start(matrix: Tensor, rank: int) -> Tensor:
    """Gaussian start of the subspace iteration, (smaller dimension, rank), on the matrix's device.

    # rng: drawn from torch's global CPU generator on every device, so that runs on CPU and GPU start alike
    """
    return torch.randn(min(matrix.shape), rank, dtype=matrix.dtype).to(matrix.device)


def low_rank_factors(matrix: Tensor, rank: int, start: Tensor) -> Factors:
    """Randomised singular value decomposition with two power iterations, not centred.

    Equal to `torch.svd_lowrank(matrix, q=rank, niter=2)` with the given start. Two iterations from a random start come
    close to the best approximation of that rank without reaching it; the original stores this result.

    Args:
        matrix: (rows, C).
        rank: 1 <= rank <= min(rows, C).
        start: (min(rows, C), rank) Gaussian numbers, see `draw_start`.

    Raises:
        ValueError: if the rank does not fit the matrix.
    """
    if not 1 <= rank <= min(matrix.shape):
        raise ValueError(f"a {tuple(matrix.shape)} matrix has no rank-{rank} factors; expected 1 to {min(matrix.shape)}")
    wide = matrix.shape[0] < matrix.shape[1]
    tall = matrix.mT if wide else matrix
    basis = torch.linalg.qr(tall @ start).Q
    for _ in range(POWER_ITERATIONS):
        basis = torch.linalg.qr(tall.mT @ basis).Q
        basis = torch.linalg.qr(tall @ basis).Q
    left, singular, right = torch.linalg.svd(basis.mT @ tall, full_matrices=False)
    left = basis @ left
    return Factors(right.mT, singular, left.mT) if wide else Factors(left, singular, right)


def row_sums(parameters: Iterable[Tensor]) -> Tensor:
    """Sum of every row of every parameter, one after the other; a vector is its own row sums.

    Returns:
        (R,) tensor, R = sum of the sizes of the first dimensions; differentiable.
    """
    return torch.cat([parameter.flatten(1).sum(dim=1) if parameter.dim() > 1 else parameter for parameter in parameters])


def functional(sums: Tensor, basis: Tensor) -> Tensor:
    """GW: the linearised class outputs at the current weights.

    GW_j = sum_r M~[r, j] (sum of the entries of row r). The averaged gradient is spread back evenly over each row, so
    only row sums matter; one product with the stacked factors replaces a sum over tasks and parameters.

    Args:
        sums: (R,) from `row_sums`.
        basis: (R, T, C) stacked products of the factors of T tasks, or (R, C) of one.

    Returns:
        (T, C), or (C,).
    """
    return torch.tensordot(sums, basis, dims=1)
