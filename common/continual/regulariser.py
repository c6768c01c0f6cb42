"""The data-free distillation loss: distance of the linearised old outputs from their stored values.

Source: VDFD supplement (variational bound with a learned precision); XiaorongLi-95/VDFD@2c0dfce agents/vdfd.py
`reg_loss`. Deviations: D1, D2, D3, D5, D22 of classification/README.md.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from common.continual.hypermodel import GCN

NORM_FLOOR = 1e-12
"""Smallest norm by which a row is divided (torch's default)."""


def prototypes_of(head_rows: Tensor) -> Tensor:
    """(..., C, F) classifier rows -> unit rows, constant. Source: `comp_prototype`."""
    return F.normalize(head_rows.detach(), dim=-1, eps=NORM_FLOOR)


def class_affinity(prototypes: Tensor) -> Tensor:
    """(..., C, F) unit rows -> (..., C, C) cosines."""
    return prototypes @ prototypes.mT


def precision_matrices(
    hypermodel: GCN,
    adjacency: Tensor,
    prototypes: Tensor,
    normalise_rows: bool = True,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Lambda = Z Z^T of every stored task, Z the hypermodel's output.

    Args:
        hypermodel: the graph network.
        adjacency: (T, C, C) normalised adjacency of each task's class graph.
        prototypes: (T, C, F) unit classifier rows.
        normalise_rows: scale the rows of Z to length one, which gives Lambda a unit diagonal (original; D5).
        dtype: of everything that follows the hypermodel; None keeps its own.

    Returns:
        (T, C, C) symmetric, positive semi-definite.
    """
    features = hypermodel(adjacency, prototypes)
    features = features if dtype is None else features.to(dtype)
    if normalise_rows:
        features = F.normalize(features, dim=-1, eps=NORM_FLOOR)
    return features @ features.mT


def negative_log_determinant(precision: Tensor, eps: float) -> Tensor:
    """-log det(Lambda + eps I) of each matrix.

    The original takes log(1 / det); the determinant of 20 classes leaves the range of float32. Through the Cholesky
    factor the same number is always representable.

    Args:
        precision: (..., C, C) symmetric, positive semi-definite.
        eps: added to the diagonal, > 0.

    Returns:
        (...) tensor.
    """
    identity = torch.eye(precision.shape[-1], dtype=precision.dtype, device=precision.device)
    factor, _ = torch.linalg.cholesky_ex(precision + eps * identity)  # why: `cholesky` waits for the device
    return -2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)


def squared_distance(gw: Tensor, gw_star: Tensor, quad_scale: float = 1.0) -> Tensor:
    """Sum over the given tasks of a |g - g*|^2: the regulariser with the identity as precision.

    Its log-determinant is a constant and left out. Source: the authors' sibling method (XiaorongLi-95/DFD@ffb7b96).

    Args:
        gw, gw_star, quad_scale: see `quadratic_regulariser`.
    """
    return quad_scale * (gw - gw_star).square().sum()


def quadratic_regulariser(
    gw: Tensor, gw_star: Tensor, precision: Tensor, eps: float, quad_scale: float = 1.0, eps_in_quadratic: bool = False
) -> Tensor:
    """Sum over the given tasks of a (g - g*)^T Lambda (g - g*) - log det(Lambda + eps I).

    Source: VDFD supplement, objective; original `reg_loss` (which expands the square; in float32 that loses digits
    by cancellation, D22).

    Args:
        gw: (T, C) functional at the current weights, one row per regularised task.
        gw_star: (T, C) its value at the end of each task; constant.
        precision: (T, C, C).
        eps: > 0.
        quad_scale: a; 1 (task-incremental) or the square of the number of stored tasks (class-incremental code, D2).
        eps_in_quadratic: use Lambda + eps I in the square too, as the paper writes it (D3).

    Returns:
        () scalar, differentiable in gw and precision.

    Raises:
        ValueError: if the shapes do not agree.
    """
    if gw.shape != gw_star.shape or precision.shape != (*gw.shape, gw.shape[-1]):
        found = ", ".join(str(tuple(tensor.shape)) for tensor in (gw, gw_star, precision))
        raise ValueError(f"expected (T, C), (T, C) and (T, C, C), found {found}")
    distance = gw - gw_star
    square = torch.einsum("tc,tcd,td->t", distance, precision, distance)
    if eps_in_quadratic:
        square = square + eps * distance.square().sum(dim=-1)
    return (quad_scale * square + negative_log_determinant(precision, eps)).sum()
