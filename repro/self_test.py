"""Tests that the comparison can fail: 1 % of noise in inputs or weights has to turn every fixture red."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from common.parity import Adapter, Fixture, disturbed
from repro.parity import PASSED, Outcome, compare, open_recording, replay
from repro.recorded import Entry, Recording

INSENSITIVE_KNOWN: dict[str, str] = {
    "rfd.data.class_order": "it has neither inputs nor arguments",
    "rfd.abd.step.shared_weights": "weights for other recordings; what is compared is that they fit the network",
    "prompt_distill.module.dual.eval": "its only input picks the nearest key; 1 % of noise picks the same one",
    "seg.module.deeplab.init_stats": "it compares standard deviations of random weights within 15 %",
    "seg.module.resnet101.full_eval": "sine weights have rank 2 and leave the network blind to its input",
    "seg.module.resnet101.param_counts": "its arguments are names of networks",
    "seg.rcil.resnet101.param_counts": "its arguments are names of networks",
    **{
        f"lra.net.{size}.{part}_sine": "this fill leaves the network nearly blind to its input; its weights are noticed"
        for size in ("generator32", "generator64", "generator_x8")
        for part in ("novel", "encoder")
    },
    **{
        f"seg.{name}": "it has neither inputs nor numbers among its arguments; mutations of our tables are noticed"
        for name in (
            "data.labelmap_voc_0",
            "data.labelmap_voc_1",
            "data.labelmap_ade",
            "data.labelmap_domain",
            "data.domain_ids",
            "data.colormap",
            "metric.average_csv_voc",
            "metric.average_csv_domain",
        )
    },
}
"""Fixture id -> why a disturbance of 1 % may leave its comparison green."""

DISTURBANCE = 0.01
DRAWS = 20
"""A comparison counts as insensitive if it stays green for this many random disturbances (a class that wins by far
still wins, a wrong label stays wrong)."""

SENSITIVE, INSENSITIVE, KNOWN = "sensitive", "INSENSITIVE", "known insensitive"
"""Status of a fixture whose undisturbed comparison passes; the others keep the status of `repro.parity.replay`."""


def self_test(entry: Entry, adapters: Mapping[str, Adapter]) -> Outcome:
    """Disturb what the adapter sees by 1 %, inputs and weights in turn, and expect the comparison to fail.

    An adapter that raises on disturbed input noticed the disturbance.
    """
    start = time.perf_counter()
    undisturbed = replay(entry, adapters)
    if undisturbed.status != PASSED:
        return undisturbed
    adapter = adapters[entry.id]
    recording = open_recording(entry, adapter)
    green = [
        part
        for part, disturb in _parts(recording.fixture).items()
        if all(_stays_green(entry, recording, adapter, disturb(seed)) for seed in range(DRAWS))
    ]
    seconds = time.perf_counter() - start
    if not green:
        return Outcome(entry.id, SENSITIVE, undisturbed.compared, seconds=seconds)
    if entry.id in INSENSITIVE_KNOWN:
        return Outcome(entry.id, KNOWN, undisturbed.compared, seconds=seconds, reasons=(INSENSITIVE_KNOWN[entry.id],))
    reason = f"still green with its {' and its '.join(green)} disturbed by {DISTURBANCE:.0%}"
    return Outcome(entry.id, INSENSITIVE, undisturbed.compared, seconds=seconds, reasons=(reason,))


def _parts(fixture: Fixture) -> dict[str, Callable[[int], Fixture]]:
    """The parts of a fixture that can be disturbed: name -> function of a seed."""
    parts: dict[str, Callable[[int], Fixture]] = {}
    every = [fixture] if fixture.base is None else [fixture, fixture.base]
    if any(one.inputs for one in every):
        parts["inputs"] = lambda seed: _with_base(
            fixture, lambda one: dataclasses.replace(one, inputs=_disturb_all(one.inputs, seed))
        )
    if any(one.params for one in every) or "init" in fixture.args:
        parts["weights"] = lambda seed: _with_base(
            fixture,
            lambda one: dataclasses.replace(one, params=_disturb_weights(one.params, seed), disturbance=DISTURBANCE),
        )
    if not parts:
        parts["arguments"] = lambda seed: dataclasses.replace(fixture, args=_disturb_args(fixture.args))
    return parts


def _with_base(fixture: Fixture, disturb: Callable[[Fixture], Fixture]) -> Fixture:
    """Disturb a fixture and the one that it builds on."""
    base = None if fixture.base is None else disturb(fixture.base)
    return dataclasses.replace(disturb(fixture), base=base)


def _stays_green(entry: Entry, recording: Recording, adapter: Adapter, fixture: Fixture) -> bool:
    try:
        return compare(entry, recording, adapter, fixture).passed
    except Exception:  # whatever an adapter says about disturbed input, it noticed
        return False


def _disturb_all(tensors: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    return {
        name: disturbed(value, DISTURBANCE, seed=1000 * seed + n)
        if value.is_floating_point()
        else _replace_some(value, seed=1000 * seed + n)
        for n, (name, value) in enumerate(tensors.items())
    }


def _disturb_weights(tensors: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """why: counters among the weights stay as they are; a changed counter would hide that the weights are not used."""
    floats = {name: value for name, value in tensors.items() if value.is_floating_point()}
    return {**tensors, **_disturb_all(floats or tensors, seed)}


def _replace_some(value: Tensor, seed: int) -> Tensor:
    """Replace 1 % of the integers, at least one, by another value between the smallest and the largest."""
    if not value.numel():
        return value
    generator = torch.Generator().manual_seed(seed)
    flat = value.reshape(-1).to(torch.int64)
    low, span = int(flat.min()), int(flat.max() - flat.min()) + 1
    if span == 1:
        low, span = (low - 1, 2) if low > 0 else (low, 2)
    count = max(1, round(DISTURBANCE * flat.numel()))
    where = torch.randperm(flat.numel(), generator=generator)[:count]
    shift = torch.randint(1, span, (count,), generator=generator)
    flat = flat.clone()
    flat[where] = low + (flat[where] - low + shift) % span
    return flat.reshape(value.shape).to(value.dtype)


def _disturb_args(args: Mapping[str, object]) -> dict[str, object]:
    """Every float times 1.01; where there is none, seeds plus 1; where there is none either, every integer plus 1."""
    scaled = {key: _scale(value) for key, value in args.items()}
    if scaled != args:
        return scaled
    integers = [key for key, value in args.items() if isinstance(value, int) and not isinstance(value, bool)]
    chosen = [key for key in integers if key == "seed" or key.endswith("_seed")] or integers
    return {key: value + 1 if key in chosen else value for key, value in args.items()}


def _scale(value: object) -> object:
    if isinstance(value, float):
        return value * (1 + DISTURBANCE)
    if isinstance(value, dict):
        return {key: _scale(item) for key, item in value.items()}
    return [_scale(item) for item in value] if isinstance(value, list) else value
