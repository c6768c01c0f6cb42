"""Distillation of feature maps: local POD and its other forms (PLOP).

Source: arthurdouillard/CVPR2021_PLOP (commit 4b4a060) train.py, features_distillation, _local_pod, _local_pod_masked,
_global_pod. Pooling is linear, so the difference of the squared maps is pooled once, instead of both maps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from common.training.errors import UserError

SCALES = (1, 2, 4)
"""Cells per side of local POD."""


@dataclass(frozen=True)
class PodOptions:
    """How maps are distilled.

    Attributes:
        mode: local, spatial or global.
        factor: weight of every map's distance.
        last_mode, last_factor: the same for the last map; None: as the others.
        extra_channels: new channels of the last map: "sum" adds them to channel 0, "trim" drops them.
        scales: of local and global POD.
        prepro: what happens to the maps first: pow (squares), relu, none.
        difference, last_difference: frobenius (L2 norm) or l1, of the maps and of the last map.
        normalize_per_scale: see `scale_divisors`.
        scheduled: multiply by sqrt(classes / new classes).
        mask_last: hide old pixels in the last map, reduced to its largest channel.
        mask_factor: weight of the masked map; None: `factor`.
        mask_downscale: shrink the mask in place of enlarging the map.
    """

    mode: str = "local"
    factor: float = 1.0
    last_mode: str | None = None
    last_factor: float | None = None
    extra_channels: str = "sum"
    scales: tuple[int, ...] = SCALES
    prepro: str = "pow"
    difference: str = "frobenius"
    last_difference: str = "frobenius"
    normalize_per_scale: bool | str = False
    scheduled: bool = True
    mask_last: bool = False
    mask_factor: float | None = None
    mask_downscale: bool = False


def pod_options(config: Any) -> PodOptions:
    """From the flags --pod..., --pod_options among them.

    Raises:
        UserError: for settings that are not known.
    """
    given = dict(config.pod_options or {})
    switch = dict(given.pop("switch", {}))
    last = dict(switch.pop("after", {}))
    own = {
        "difference": given.pop("difference_function_all", "frobenius"),
        "last_difference": given.pop("difference_function", "frobenius"),
        "normalize_per_scale": given.pop("normalize_per_scale", False),
        "last_mode": last.pop("type", None),
        "last_factor": last.pop("factor", None),
        "extra_channels": last.pop("extra_channels", "sum"),
    }
    unknown = [*given, *(f"switch.{key}" for key in switch), *(f"switch.after.{key}" for key in last)]
    if unknown:
        raise UserError(
            f"--pod_options: unknown {', '.join(unknown)}; expected switch.after.{{extra_channels,factor,type}}, "
            "difference_function, difference_function_all, normalize_per_scale"
        )
    choices = {
        "extra_channels": ("sum", "trim"), "last_mode": (None, "local", "spatial", "global"),
        "difference": ("frobenius", "l1"), "last_difference": ("frobenius", "l1"),
        "normalize_per_scale": (True, False, "spm"),
    }  # fmt: skip
    for key, allowed in choices.items():
        if own[key] not in allowed:
            raise UserError(f"--pod_options: {key} is one of {', '.join(map(str, allowed))}; found {own[key]!r}")
    if config.pod_prepro not in ("pow", "relu", "none"):
        raise UserError(f"--pod_prepro: expected pow, relu or none, found {config.pod_prepro} (the original raises)")
    return PodOptions(
        mode=config.pod, factor=config.pod_factor, scales=tuple(config.spp_scales), prepro=config.pod_prepro,
        scheduled=not config.no_pod_schedule, mask_last=config.pod_deeplab_mask,
        mask_factor=config.pod_deeplab_mask_factor, mask_downscale=config.deeplab_mask_downscale, **own,
    )  # fmt: skip


def pod_loss(
    old_maps: Sequence[Tensor],
    new_maps: Sequence[Tensor],
    options: PodOptions,
    old_classes: int,
    classes: int,
    new_classes: int,
    labels: Tensor | None = None,
) -> Tensor:
    """Mean over the maps of factor times distance.

    Args:
        old_maps, new_maps: (B, C, H, W) each, in the same order; the last one may have more channels in `new_maps`.
            Gradients flow into `new_maps` only.
        options: see there.
        old_classes: C_o; channels from there on are new ones.
        classes, new_classes: for the schedule sqrt(classes / new_classes).
        labels: (B, H', W'), for the mask.

    Returns:
        () scalar.
    """
    schedule = math.sqrt(classes / new_classes) if options.scheduled else 1.0
    total = new_maps[0].new_zeros((), dtype=torch.float32)
    for number, (old, new) in enumerate(zip(old_maps, new_maps, strict=True)):
        is_last = number == len(new_maps) - 1
        mode, factor, difference = options.mode, options.factor, options.difference
        new = fold_channels(new, old.shape[1], old_classes, options.extra_channels)
        if is_last:
            mode = options.last_mode or mode
            factor = options.last_factor if options.last_factor is not None else factor
            difference = options.last_difference
        if is_last and options.mask_last:
            assert labels is not None
            factor = options.mask_factor if options.mask_factor is not None else options.factor
            gap = masked_gap(old, new, labels < old_classes, options)
        else:
            gap = prepared(new.float(), options.prepro) - prepared(old.detach().float(), options.prepro)
        distance = gap_size(gap, mode, options, difference)
        total = total + factor * schedule * distance.mean()
    return total / len(new_maps)


def fold_channels(new: Tensor, channels: int, old_classes: int, extra: str) -> Tensor:
    """Bring a map with additional channels to the old number: add them to channel 0, or drop them."""
    if new.shape[1] == channels:
        return new
    if extra == "trim":
        return new[:, :channels]
    first = new[:, :1] + new[:, old_classes:].sum(dim=1, keepdim=True)
    return torch.cat([first, new[:, 1:channels]], dim=1)


def prepared(x: Tensor, prepro: str) -> Tensor:
    """Squares, positive parts, or the map itself."""
    if prepro == "pow":
        return x.square()
    return x.clamp(min=0) if prepro == "relu" else x


def masked_gap(old: Tensor, new: Tensor, is_old: Tensor, options: PodOptions) -> Tensor:
    """Difference of the maps' largest channels, 0 at old pixels.

    Args:
        old, new: (B, C, H, W), not squared.
        is_old: (B, H', W') bool.
        options: `mask_downscale`.
    """
    old, new = (prepared(x.float(), options.prepro).topk(1, dim=1).values for x in (old.detach(), new))
    if options.mask_downscale:
        is_old = F.interpolate(is_old[:, None].float(), size=old.shape[-2:], mode="nearest")[:, 0].bool()
    else:
        size = is_old.shape[-2:]
        old, new = (F.interpolate(x, size=size, mode="bilinear", align_corners=False) for x in (old, new))
    return (new - old).masked_fill(is_old[:, None], 0.0)


def gap_size(gap: Tensor, mode: str, options: PodOptions, difference: str) -> Tensor:
    """(B,) norm of a pooled difference of maps (B, C, H, W)."""
    if mode == "local":
        parts = [part.flatten(1) for part in local_means(gap, options.scales, options.normalize_per_scale)]
    elif mode == "spatial":
        parts = [gap.sum(dim=3).flatten(1), gap.sum(dim=2).flatten(1)]
    else:
        parts = [global_embedding(gap, options.scales)]
    if difference == "l1":
        return sum(part.abs().sum(dim=1) for part in parts)
    return norm_of(sum(part.square().sum(dim=1) for part in parts))


def norm_of(squares: Tensor) -> Tensor:
    """Square root with derivative 0 at 0, as norms have it."""
    safe = torch.where(squares > 0, squares, 1.0)
    return torch.where(squares > 0, safe.sqrt(), 0.0)


# --- pooling ----------------------------------------------------------------------------------------------------------


def scale_divisors(scales: Sequence[int], normalize: bool | str) -> list[float]:
    """What the means of each scale are divided by: 1; s^2 (True); halves towards the last scales ("spm")."""
    if normalize == "spm":
        count = len(scales)
        return [float(2 ** (count - 1 if number == 0 else count - number)) for number in range(count)]
    return [float(scale**2) if normalize else 1.0 for scale in scales]


def local_means(x: Tensor, scales: Sequence[int] = SCALES, normalize: bool | str = False) -> list[Tensor]:
    """Means over the rows and over the columns of the cells of several grids, in no particular order.

    The cells of scale s have k = width // s pixels a side; what is left over at the right and below does not count.

    Args:
        x: (B, C, H, W).
        scales: cells per side.
        normalize: see `scale_divisors`.
    """
    width, height = x.shape[3], x.shape[2]
    parts: list[Tensor] = []
    finest: dict[int, tuple[Tensor, Tensor]] = {}
    divisors = dict(zip(scales, scale_divisors(scales, normalize), strict=True))
    for scale in sorted(divisors, reverse=True):
        size = width // scale
        if size == 0:
            continue
        if height < size * scale:
            parts += [part / divisors[scale] for part in _cut_cells(x, scale, size)]
            continue
        rows, columns = _from_finer(finest, scale, size) or _cell_means(x, scale, size)
        finest[scale] = rows, columns
        parts += [rows / divisors[scale], columns / divisors[scale]] if divisors[scale] != 1 else [rows, columns]
    return parts


def _cell_means(x: Tensor, scale: int, size: int) -> tuple[Tensor, Tensor]:
    """(B, C, s * k, s): mean over each cell's columns; (B, C, s, s * k): over its rows."""
    used = x[:, :, : scale * size, : scale * size]
    return used.unflatten(3, (scale, size)).mean(dim=4), used.unflatten(2, (scale, size)).mean(dim=3)


def _from_finer(finer: dict[int, tuple[Tensor, Tensor]], scale: int, size: int) -> tuple[Tensor, Tensor] | None:
    """The same from the means of a finer grid that covers the same pixels, if there is one."""
    for other, (rows, columns) in finer.items():
        if other % scale == 0 and rows.shape[2] == scale * size:
            share = other // scale
            return rows.unflatten(3, (scale, share)).mean(dim=4), columns.unflatten(2, (scale, share)).mean(dim=3)
    return None


def _cut_cells(x: Tensor, scale: int, size: int) -> list[Tensor]:
    """Cell by cell, for maps that are less high than wide, whose lower cells are cut off."""
    cells = [
        x[:, :, i * size : (i + 1) * size, j * size : (j + 1) * size] for i in range(scale) for j in range(scale)
    ]
    return [cell.mean(dim=dim).flatten(1) for cell in cells for dim in (3, 2) if cell.numel()]


def local_embedding(
    x: Tensor, scales: Sequence[int] = SCALES, normalize: bool | str = False, mask: Tensor | None = None
) -> Tensor:
    """Local POD embedding in the original's order: scale, cell (row by row), columns' then rows' means, channel.

    Args:
        x: (B, C, H, W).
        scales: cells per side.
        normalize: see `scale_divisors`.
        mask: (B, H, W) bool: positions that are set to 0 first.

    Returns:
        (B, D).
    """
    x = x if mask is None else x.masked_fill(mask[:, None], 0.0)
    parts = []
    for scale, divisor in zip(scales, scale_divisors(scales, normalize), strict=True):
        size = x.shape[3] // scale
        if size and x.shape[2] >= size * scale:
            rows, columns = _cell_means(x, scale, size)
            rows = rows.unflatten(2, (scale, size)).permute(0, 2, 4, 1, 3)
            columns = columns.unflatten(3, (scale, size)).permute(0, 2, 3, 1, 4)
            parts.append(torch.stack([rows, columns], dim=3).flatten(1) / divisor)
        elif size:
            parts += [part / divisor for part in _cut_cells(x, scale, size)]
    return torch.cat(parts, dim=1)


def global_embedding(x: Tensor, scales: Sequence[int]) -> Tensor:
    """(B, D): average pooling with kernels width // s, then sums of columns and of rows."""
    parts = []
    for scale in scales:
        pooled = F.avg_pool2d(x, x.shape[3] // scale)
        parts += [pooled.sum(dim=2).flatten(1), pooled.sum(dim=3).flatten(1)]
    return torch.cat(parts, dim=1)
