"""Element-wise comparison of what our code computes with what was recorded."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

ARGS_RTOL = 1e-9
"""Relative tolerance of numbers inside recorded arguments."""


@dataclass
class Comparison:
    """How far two sets of named outputs are apart.

    Attributes:
        compared: number of outputs compared.
        max_abs, max_rel: largest absolute and relative deviation (relative to the recorded number, where that is
            not 0); infinite where only one side is finite.
        problems: one line per output that deviates by more than its tolerance, is missing, or has the wrong shape.
    """

    compared: int = 0
    max_abs: float = 0.0
    max_rel: float = 0.0
    problems: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.problems and self.compared > 0


def as_tensor(value: Any) -> Tensor:
    """A number, (nested) list, array or tensor as a detached tensor on the CPU; Python floats keep double precision."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    return torch.from_numpy(np.array(value))


def compare_tensors(ours: Mapping[str, Tensor], recorded: Mapping[str, Tensor], rtol: float, atol: float) -> Comparison:
    """Compare every recorded tensor; a name on one side only is a problem.

    Args:
        ours, recorded: tensors by name.
        rtol, atol: |a - b| <= atol + rtol * |b|, element by element; integers and truth values must be equal.
    """
    result = Comparison()
    for name in recorded.keys() - ours.keys():
        result.problems.append(f"{name}: not returned")
    for name in ours.keys() - recorded.keys():
        result.problems.append(f"{name}: returned, but not recorded")
    for name in recorded:
        if name in ours:
            _compare_one(name, ours[name], recorded[name], rtol, atol, result)
    return result


def compare_args(ours: Mapping[str, Any], recorded: Mapping[str, Any], result: Comparison) -> None:
    """Compare recorded arguments that are answers, after turning both sides into plain JSON values.

    Args:
        ours, recorded: values by name ("args.<key>").
        result: is extended.
    """
    for name in sorted(recorded.keys() - ours.keys()):
        result.problems.append(f"{name}: not returned")
    for name, value in ours.items():
        if name not in recorded:
            result.problems.append(f"{name}: returned, but not recorded")
            continue
        result.compared += 1
        difference = _first_difference(_plain(value), _plain(recorded[name]), name)
        if difference:
            result.problems.append(difference)


def _compare_one(name: str, a: Tensor, b: Tensor, rtol: float, atol: float, result: Comparison) -> None:
    result.compared += 1
    if a.shape != b.shape:
        result.problems.append(f"{name}: shape {tuple(a.shape)}, recorded {tuple(b.shape)}")
        return
    is_exact = not b.is_floating_point()
    if is_exact and not a.is_floating_point():
        a, b = a.to(torch.int64), b.to(torch.int64)
        equal = a == b
    else:
        a, b = a.to(torch.float64), b.to(torch.float64)
        equal = (a == b) | (a.isnan() & b.isnan())
    distance = (a - b).abs().to(torch.float64)
    distance = torch.where(equal, 0.0, torch.where(distance.isnan(), math.inf, distance))
    relative = torch.where(b == 0, 0.0, distance / b.abs().to(torch.float64))
    relative = torch.where(relative.isnan(), math.inf, relative)
    bound = torch.zeros_like(distance) if is_exact else atol + rtol * b.abs()
    wrong = ~equal & ~(torch.isfinite(distance) & (distance <= bound))
    if distance.numel():
        result.max_abs = max(result.max_abs, distance.max().item())
        result.max_rel = max(result.max_rel, relative.max().item())
    if wrong.any():
        kind = "must be equal" if is_exact else f"rtol {rtol:g}, atol {atol:g}"
        result.problems.append(
            f"{name}: {int(wrong.sum())} of {wrong.numel()} numbers differ, "
            f"at most by {distance.max().item():.3g} ({kind})"
        )


def _plain(value: Any) -> Any:
    """Plain JSON values: tensors become lists, tuples lists, keys texts."""

    def simplify(item: Any) -> Any:
        if isinstance(item, Tensor):
            return item.detach().tolist()
        if isinstance(item, (np.ndarray, np.generic)):
            return item.tolist()
        raise TypeError(f"{type(item).__name__} cannot stand in a recorded argument")

    return json.loads(json.dumps(value, default=simplify))


def _first_difference(a: Any, b: Any, place: str) -> str | None:
    if isinstance(a, dict) and isinstance(b, dict):
        if a.keys() != b.keys():
            return f"{place}: keys {sorted(a)}, recorded {sorted(b)}"
        pairs = [(a[key], b[key], f"{place}.{key}") for key in b]
    elif isinstance(a, list) and isinstance(b, list):
        if len(a) != len(b):
            return f"{place}: {len(a)} entries, recorded {len(b)}"
        pairs = [(x, y, f"{place}[{n}]") for n, (x, y) in enumerate(zip(a, b, strict=True))]
    else:
        return None if _same_scalar(a, b) else f"{place}: {a!r}, recorded {b!r}"
    return next((found for found in (_first_difference(*pair) for pair in pairs) if found), None)


def _same_scalar(a: Any, b: Any) -> bool:
    is_number = all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in (a, b))
    if is_number and (isinstance(a, float) or isinstance(b, float)):
        return abs(a - b) <= ARGS_RTOL * abs(b)
    return type(a) is type(b) and a == b
