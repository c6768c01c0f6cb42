"""Fills a state dict by a seeded integer hash instead of storing it: the rule of the `cudfkd` and `lra` recordings.

Entry k of a state dict (all entries counted) and element j in C order give a 32-bit number by multiplications and
shifts; its quotient u by 2**32 is scaled by the kind of entry.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from common.parity import Fixture, disturbed

_MASK = 0xFFFFFFFF


def seeded_state(state: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """New values for every entry; floating-point ones keep their dtype, rounded to float32 first."""
    return {key: _entry(k, key, value, seed).to(value.dtype) for k, (key, value) in enumerate(state.items())}


def blended_state(state: Mapping[str, Tensor], seeds: Sequence[int], weights: Sequence[float]) -> dict[str, Tensor]:
    """Weighted sum of several fills, entry by entry in float64, rounded to float32."""
    parts = [
        {key: _entry(k, key, value, seed).to(torch.float64) for k, (key, value) in enumerate(state.items())}
        for seed in seeds
    ]
    mixed = {
        key: sum(weight * part[key] for weight, part in zip(weights, parts, strict=True)) for key in state
    }
    return {key: mixed[key].to(torch.float32).to(value.dtype) for key, value in state.items()}


def fill_seeded(
    fixture: Fixture, module: nn.Module, seeds: int | Sequence[int], weights: Sequence[float] = (1.0,)
) -> nn.Module:
    """Fill a module for an adapter; honours the disturbance of a self-test. Returns the module."""
    if isinstance(seeds, int):
        state = seeded_state(module.state_dict(), seeds)
    else:
        state = blended_state(module.state_dict(), seeds, weights)
    if fixture.disturbance:
        state = {key: disturbed(value, fixture.disturbance, seed=k) for k, (key, value) in enumerate(state.items())}
    module.load_state_dict(state)
    return module


def _entry(k: int, key: str, value: Tensor, seed: int) -> Tensor:
    if value.dim() == 0:
        return torch.zeros((), dtype=torch.float32)
    uniform = _uniform(k, value.numel(), seed)
    signed = 2 * uniform - 1
    if key.endswith("running_var"):
        entry = 0.5 + uniform
    elif key.endswith("running_mean"):
        entry = 0.2 * signed
    elif value.dim() > 1:
        entry = signed * math.sqrt(6 / (value.numel() / value.shape[0]))
    elif key.endswith("weight"):
        entry = 1 + 0.2 * signed
    else:
        entry = 0.1 * signed
    return entry.reshape(value.shape).to(torch.float32)


def _uniform(k: int, count: int, seed: int) -> Tensor:
    """(count,) float64 in [0, 1). why int64: products of two 32-bit numbers wrap modulo 2**64, then are cut to 32."""
    x = torch.arange(count, dtype=torch.int64) * 0x9E3779B1 + (k * 0x85EBCA77 + seed * 0xC2B2AE3D + 0x27D4EB2F) % 2**32
    x &= _MASK
    x ^= x >> 16
    x = (x * 0x7FEB352D) & _MASK
    x ^= x >> 15
    x = (x * 0x846CA68B) & _MASK
    x ^= x >> 16
    return x.to(torch.float64) / 2**32
