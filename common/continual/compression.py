"""Rank-q factors of an importance matrix, and the linear functional of the weights that they define.

Source: VDFD supplement, section "low-rank approximation"; XiaorongLi-95/VDFD@2c0dfce agents/vdfd.py and
agents/vdfd_swin.py, `svd`, `comp_GW`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

POWER_ITERATIONS = 2


class Factors(NamedTuple):
    """M ~ left diag(singular) right: what is stored of one parameter's importance.

    A parameter summarised by rows has one (rows, C) matrix M; a matrix that is kept whole has one (inputs, C) matrix
    per row, and then `...` stands for (rows,).

    Attributes:
        left: (..., rows or inputs, q) orthonormal columns.
        singular: (..., q) singular values, descending.
        right: (..., q, C) orthonormal rows.
    """

    left: Tensor
    singular: Tensor
    right: Tensor

    def product(self) -> Tensor:
        """The (..., rows or inputs, C) matrices that the factors stand for."""
        return (self.left * self.singular.unsqueeze(-2)) @ self.right

    def count(self) -> int:
        """Numbers stored."""
        return self.left.numel() + self.singular.numel() + self.right.numel()


def draw_start(matrix: Tensor, rank: int) -> Tensor:
    """Gaussian start of the subspace iteration, (..., smaller dimension, rank), on the matrix's device.

    # rng: drawn from torch's global CPU generator on every device, so that runs on CPU and GPU start alike; one matrix
    # after the other, because a single large draw gives other numbers than many small ones
    """
    shape = (min(matrix.shape[-2:]), rank)
    if matrix.dim() == 2:
        return torch.randn(shape, dtype=matrix.dtype).to(matrix.device)
    return torch.stack([torch.randn(shape, dtype=matrix.dtype) for _ in range(len(matrix))]).to(matrix.device)


def low_rank_factors(matrix: Tensor, rank: int, start: Tensor) -> Factors:
    """Randomised singular value decomposition with two power iterations, not centred.

    Equal to `torch.svd_lowrank(matrix, q=rank, niter=2)` with the given start. Two iterations from a random start come
    close to the best approximation of that rank without reaching it; the original stores this result.

    Args:
        matrix: (rows, C), or (B, rows, C): B matrices, each with factors of its own.
        rank: 1 <= rank <= min(rows, C).
        start: (min(rows, C), rank) Gaussian numbers, or B times that; see `draw_start`.

    Raises:
        ValueError: if the rank does not fit the matrix.
    """
    rows, columns = matrix.shape[-2:]
    if not 1 <= rank <= min(rows, columns):
        raise ValueError(f"a {(rows, columns)} matrix has no rank-{rank} factors; expected 1 to {min(rows, columns)}")
    wide = rows < columns
    tall = matrix.mT if wide else matrix
    basis = _orthonormal(tall @ start)
    for _ in range(POWER_ITERATIONS):
        basis = _orthonormal(tall.mT @ basis)
        basis = _orthonormal(tall @ basis)
    left, singular, right = torch.linalg.svd(basis.mT @ tall, full_matrices=False)
    left = basis @ left
    return Factors(right.mT, singular, left.mT) if wide else Factors(left, singular, right)


def _orthonormal(columns: Tensor) -> Tensor:
    """(..., rows, q) -> an orthonormal basis of the same span."""
    if columns.dim() == 2 or columns.shape[-1] > 1:
        return torch.linalg.qr(columns).Q
    # why: thousands of single columns need no factorisation each, only their length
    length = torch.linalg.vector_norm(columns, dim=-2, keepdim=True)
    return columns / length.clamp_min(torch.finfo(columns.dtype).tiny)


def row_sums(parameters: Iterable[Tensor]) -> Tensor:
    """Sum of every row of every parameter, one after the other; a vector is its own row sums.

    Returns:
        (R,) tensor, R = sum of the sizes of the first dimensions; differentiable.
    """
    return torch.cat([p.flatten(1).sum(dim=1) if p.dim() > 1 else p for p in parameters])


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


class MatrixFactors(NamedTuple):
    """One whole matrix's factors of T tasks.

    Attributes:
        left: (rows, q * T, inputs).
        right: (T, rows * q, C), the singular values multiplied in.
    """

    left: Tensor
    right: Tensor

    @classmethod
    def stack(cls, tasks: Sequence[Factors]) -> MatrixFactors:
        """From the factors of each task, left (rows, inputs, q), singular (rows, q), right (rows, q, C)."""
        left = torch.stack([factors.left.mT for factors in tasks], dim=2)  # (rows, q, T, inputs)
        right = torch.stack([(factors.singular.unsqueeze(-1) * factors.right).flatten(0, 1) for factors in tasks])
        return cls(left.flatten(1, 2), right)


def matrix_functional(matrices: Sequence[Tensor], factors: Sequence[MatrixFactors]) -> Tensor:
    """GW of matrices that are kept whole: GW_j = sum_o s_o Rt_o[j] <L_o, W_o>, o over all rows of all matrices.

    Contracted from the left: the inner products read each stored number once. Multiplied out, every task would need
    C times as many numbers as the matrices themselves have.

    Args:
        matrices: W, each (rows, inputs).
        factors: of T tasks, in the same order.

    Returns:
        (T, C).
    """
    products, rights = [], []
    for matrix, (left, right) in zip(matrices, factors, strict=True):
        inner = left @ matrix.unsqueeze(-1)  # (rows, q * T, 1)
        products.append(inner.reshape(right.shape[1], len(right)))
        rights.append(right)
    return torch.einsum("kt,tkc->tc", torch.cat(products), torch.cat(rights, dim=1))
