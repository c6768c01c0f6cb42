"""How a subproject states which of its functions reproduces which recorded fixture.

A fixture is a set of numbers recorded by running an original: inputs, weights, arguments, outputs. An adapter is a
function that gets everything but the outputs and returns what our code computes; `repro parity` compares. An adapter
calls the public functions that training calls and nothing written for the comparison alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

Outputs = Mapping[str, Any]


@dataclass
class Fixture:
    """What an adapter may see of a recorded fixture.

    Attributes:
        id: name of the fixture, e.g. "vdfd.reg.task_t3".
        args: arguments of the recording (plain JSON values).
        inputs: tensors recorded as `in.<name>`, under `<name>`; dtype as recorded.
        params: tensors recorded as `param.<key>`, under `<key>` (state-dict keys of the original).
        disturbance: relative size of the noise that `fill` puts on weights made by a rule; only the self-test of
            the comparison sets it.
        base: another recording that this one builds on (weights stored once for several), where the adapter asks for
            it; None otherwise.
    """

    id: str
    args: dict[str, Any]
    inputs: dict[str, Tensor]
    params: dict[str, Tensor] = field(default_factory=dict)
    disturbance: float = 0.0
    base: Fixture | None = None

    def under(self, prefix: str) -> dict[str, Tensor]:
        """Weights whose key starts with `prefix`, the prefix taken off."""
        return {key[len(prefix) :]: value for key, value in self.params.items() if key.startswith(prefix)}

    def fill(self, module: nn.Module) -> nn.Module:
        """Fill every entry of the module's state dict by the rule named in `args["init"]`; returns the module."""
        state = fill_by_rule(module.state_dict(), self.args["init"])
        if self.disturbance:
            state = {key: disturbed(value, self.disturbance, seed=k) for k, (key, value) in enumerate(state.items())}
        module.load_state_dict(state)
        return module


@dataclass(frozen=True)
class Adapter:
    """A function of a fixture, and how its outputs are compared.

    Attributes:
        compute: fixture -> named outputs, named as in the recording ("out.loss", "grad.x", "after.bn1.weight").
        derive: applied to our outputs and to the recorded ones alike before the comparison, where what was recorded
            is free in part (the sign of a singular vector); None compares as recorded.
        base: id of a fixture of the same folder that the adapter gets as `Fixture.base`; None: none.
        needs_base: whether a folder without that fixture is malformed; otherwise `Fixture.base` is None there.
    """

    compute: Callable[[Fixture], Outputs]
    derive: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None
    base: str | None = None
    needs_base: bool = True


ADAPTERS: dict[str, Adapter] = {}
"""Fixture id -> adapter, filled by importing a subproject's `parity` module."""


def reproduces(
    *ids: str,
    derive: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None,
    base: str | None = None,
    needs_base: bool = True,
):
    """Register a function as the counterpart of one or more recorded fixtures."""

    def register(compute: Callable[[Fixture], Outputs]) -> Callable[[Fixture], Outputs]:
        for id in ids:
            if id in ADAPTERS:
                raise ValueError(f"two adapters for fixture {id}")
            ADAPTERS[id] = Adapter(compute, derive, base, needs_base)
        return compute

    return register


def disturbed(value: Tensor, size: float, seed: int) -> Tensor:
    """Every entry times 1 + size * (+1 or -1) at random; integer tensors come back as they are."""
    if not value.is_floating_point():
        return value
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, value.shape, generator=generator, dtype=torch.int8).to(value.dtype) * 2 - 1
    return value * (1 + size * signs)


# --- rules that fill a state dict without storing it (defined with the fixtures) ------------------------------------


def fill_by_rule(state: Mapping[str, Tensor], rule: str) -> dict[str, Tensor]:
    """New values for every entry of a state dict by a named rule ("sine" or "hash").

    Raises:
        ValueError: for an unknown rule.
    """
    rules = {"sine": _sine_entry, "hash": _hash_entry}
    if rule not in rules:
        raise ValueError(f"unknown fill rule {rule!r}; known: {', '.join(rules)}")
    return {key: rules[rule](k, key, value) for k, (key, value) in enumerate(state.items())}


def _sine_entry(k: int, key: str, value: Tensor) -> Tensor:
    """0.1 sin(0.37 k + 0.011 j); running variances 1 + 0.1 |sin|; integer buffers 0."""
    if not value.is_floating_point():
        return torch.zeros_like(value)
    wave = torch.sin(0.37 * k + 0.011 * torch.arange(value.numel(), dtype=torch.float64))
    entry = 1 + 0.1 * wave.abs() if key.endswith("running_var") else 0.1 * wave
    return entry.reshape(value.shape).to(value.dtype)


def _hash_entry(k: int, key: str, value: Tensor) -> Tensor:
    """Pseudo-random uniform numbers from the fractional part of a large sine, scaled by the kind of entry."""
    keeps_value = key.endswith(("num_batches_tracked", "attn_mask", "relative_position_index"))
    if keeps_value or not value.is_floating_point():
        return value.clone()
    phase = 12.9898 * (torch.arange(value.numel(), dtype=torch.float64) + 1) + 78.233 * (k + 1)
    scaled = 43758.5453 * torch.sin(phase)
    uniform = 2 * (scaled - scaled.floor()) - 1
    if key.endswith("relative_position_bias_table"):
        entry = 0.3 * uniform
    elif value.dim() > 1:
        entry = uniform * math.sqrt(3 / (value.numel() // value.shape[0]))
    elif key.endswith("running_var"):
        entry = 1 + 0.2 * uniform.abs()
    elif key.endswith("weight"):
        entry = 1 + 0.2 * uniform
    else:
        entry = 0.1 * uniform
    return entry.reshape(value.shape).to(value.dtype)
