"""Pooled-cube distillation (RCIL): windows over positions and over channels.

Source: zhangchbin/RCIL (commit b9aad58) train.py, features_distillation_spatial and features_distillation_channel.
A pooled map's norm is a quadratic form of the difference of the squared maps: with the window sums along one axis as a
matrix M, |M d N'|^2 = <d, (M'M) d (N'N)>. Two small matrix products per window size give value and gradient, where the
literal way adds 1456 numbers for every element of both maps.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from segmentation.pod import fold_channels, norm_of

WINDOWS = (4, 8, 12, 16, 20, 24)
"""Sides of the windows over positions."""

_RELEASED = {
    "voc": (0.01, 0.0005, 0.01, 0.0005),
    "cityscape": (0.01, 0.0005, 0.01, 0.0005),
    "ade": (5e-6, 5e-7, 5e-6, 5e-7),
    "cityscapes_domain": (5e-4, 1e-4, 1e-4, 0.0),
}
_STAND_IN = {"camvid": "voc", "camvid_domain": "cityscapes_domain"}


@dataclass(frozen=True)
class CubeFactors:
    """Weights of the distances.

    Attributes:
        spatial, spatial_last: of the pooled positions; of the last map (the logits).
        channel, channel_last: of the pooled channels; of the last map (the head's output).
    """

    spatial: float
    spatial_last: float
    channel: float
    channel_last: float


def released_factors(dataset: str) -> CubeFactors:
    """As the released code has them, by data set (D8); CamVid takes those of the same kind of protocol (derived)."""
    return CubeFactors(*_RELEASED[_STAND_IN.get(dataset, dataset)])


def cube_factors(config: Any) -> CubeFactors:
    """From the flags --pckd_..., whose defaults are the released values of the data set."""
    released = released_factors(config.dataset)
    given = {
        "spatial": config.pckd_spatial_factor, "spatial_last": config.pckd_spatial_last_factor,
        "channel": config.pckd_channel_factor, "channel_last": config.pckd_channel_last_factor,
    }  # fmt: skip
    chosen = {name: getattr(released, name) if value is None else value for name, value in given.items()}
    return CubeFactors(**chosen)


def cube_loss(
    old_maps: Sequence[Tensor],
    new_maps: Sequence[Tensor],
    factors: CubeFactors,
    old_classes: int,
    classes: int,
    new_classes: int,
    scheduled: bool = True,
) -> tuple[Tensor, Tensor]:
    """Distances of pooled positions and of pooled channels.

    Args:
        old_maps, new_maps: (B, C, H, W) each, the last one logits, which may have more channels in `new_maps`.
            Gradients flow into `new_maps` only.
        factors: weights.
        old_classes: C_o; channels of the logits from there on are new ones.
        classes, new_classes: for the factor sqrt(classes / new_classes).
        scheduled: whether that factor is applied (--no_pod_schedule leaves it out).

    Returns:
        () spatial and () channel part.
    """
    schedule = math.sqrt(classes / new_classes) if scheduled else 1.0
    zero = new_maps[0].new_zeros((), dtype=torch.float32)
    spatial, channel, last = zero, zero, len(new_maps) - 1
    for number, (old, new) in enumerate(zip(old_maps, new_maps, strict=True)):
        new = fold_channels(new, old.shape[1], old_classes, "sum").float()
        gap = new.square() - old.detach().float().square()
        factor = factors.spatial_last if number == last else factors.spatial
        spatial = spatial + factor * schedule * spatial_distance(gap)
        if number < last:
            factor = factors.channel_last if number == last - 1 else factors.channel
            if factor:
                channel = channel + factor * schedule * channel_distance(gap)
    return spatial / len(new_maps), channel / max(last, 1)


def spatial_distance(gap: Tensor, windows: Sequence[int] = WINDOWS) -> Tensor:
    """() mean over images and windows of the L2 norm of a pooled map.

    Average pooling with stride 1, zero padding of half a window and the window's full area as divisor.

    Args:
        gap: (B, C, H, W).
        windows: their sides, even.
    """
    return _PooledNorm.apply(gap, tuple(windows))


def channel_distance(gap: Tensor) -> Tensor:
    """() mean over images of the L2 norm after averaging over three neighbouring channels (zeros outside).

    Args:
        gap: (B, C, H, W).
    """
    pooled = gap.clone()
    pooled[:, 1:] += gap[:, :-1]
    pooled[:, :-1] += gap[:, 1:]
    return norm_of((pooled / 3).square().flatten(1).sum(dim=1)).mean()


class _PooledNorm(torch.autograd.Function):
    """`spatial_distance`; keeps its gradient, one map, instead of pooled maps."""

    @staticmethod
    def forward(ctx: Any, gap: Tensor, windows: tuple[int, ...]) -> Tensor:
        batch, _, height, width = gap.shape
        gradient = torch.zeros_like(gap)
        total = gap.new_zeros(batch)
        with torch.autocast(gap.device.type, enabled=False):
            for window in windows:
                along_rows, along_columns = (
                    window_gram(size, window, gap.dtype, gap.device) for size in (height, width)
                )
                product = torch.matmul(along_rows, gap @ along_columns)
                squares = (gap * product).flatten(1).sum(dim=1).clamp(min=0)
                norm = squares.sqrt()
                total += norm
                gradient.addcmul_(product, torch.where(norm > 0, 1 / norm, 0.0).view(-1, 1, 1, 1))
        share = 1.0 / (batch * len(windows))
        ctx.save_for_backward(gradient.mul_(share))
        return total.sum() * share

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad, None


@functools.lru_cache(maxsize=256)
def window_gram(size: int, window: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(size, size): M'M, M the means over windows of neighbouring positions, one row for each place of the window."""
    places = torch.arange(size + 1, device=device)[:, None] - window // 2
    positions = torch.arange(size, device=device)
    inside = (positions >= places) & (positions < places + window)
    means = inside.to(torch.float64) / window
    return (means.T @ means).to(dtype)
