"""From a fixture's arguments and weights to the objects that training uses."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from common.backbones.abn import InPlaceABN, MakeNorm
from common.backbones.deeplab import DeepLabV3, ResNet
from common.parity import Fixture, disturbed, fill_by_rule
from segmentation.rcil.network import BranchMix, RcilBlock, RcilDeepLabV3


def inplace_norm(slope: float = 0.01) -> MakeNorm:
    """InPlaceABN with leaky ReLU."""
    return functools.partial(InPlaceABN, activation="leaky_relu", activation_param=slope)


def stated_slope(text: str) -> float:
    """The last number of a text like "InPlaceABN leaky_relu slope 1.0"."""
    return float(re.findall(r"[\d.]+", text)[-1])


def filled_state(state: Mapping[str, Tensor], rule: str, disturbance: float = 0.0) -> dict[str, Tensor]:
    """New values by a rule of the specification: "sine", or this paper's "hash"."""
    if rule == "hash":
        filled = {key: hash_entry(k, key, value) for k, (key, value) in enumerate(state.items())}
    else:
        filled = fill_by_rule(state, rule)
    if disturbance:
        filled = {key: disturbed(value, disturbance, seed=k) for k, (key, value) in enumerate(filled.items())}
    return filled


def fill(fixture: Fixture, module: nn.Module) -> nn.Module:
    """Fill a module by the fixture's rule."""
    module.load_state_dict(filled_state(module.state_dict(), fixture.args["init"], fixture.disturbance))
    return module


def hash_entry(k: int, key: str, value: Tensor) -> Tensor:
    """Pseudo-random numbers from the fractional part of a large sine, scaled by the kind of entry."""
    if not value.is_floating_point():
        return torch.zeros_like(value)
    phase = 12.9898 * (k + 1) + 78.233 * torch.arange(1, value.numel() + 1, dtype=torch.float64)
    x = 43758.5453 * torch.sin(phase)
    uniform = 2 * (x - x.floor()) - 1
    if value.dim() >= 2:
        entry = uniform * math.sqrt(6 / (value.numel() / value.shape[0]))
    elif key.endswith("running_var"):
        entry = 1 + 0.2 * uniform.abs()
    elif key.endswith("weight"):
        entry = 1 + 0.2 * uniform
    else:
        entry = 0.1 * uniform
    return entry.reshape(value.shape).to(value.dtype)


def described_body(text: str, slope: float) -> ResNet:
    """The body of a text like "ResNet structure 1-1-1-1 basic blocks, output stride 16, InPlaceABN"."""
    structure = [int(number) for number in re.search(r"structure ([\d-]+)", text).group(1).split("-")]
    options = {"block": RcilBlock} if text.startswith("RCIL") else {}
    return ResNet(structure, "bottleneck" in text, inplace_norm(slope), described_stride(text), **options)


def described_stride(text: str) -> int:
    """The output stride of a body's text; the head spreads its dilations by it."""
    return int(re.search(r"output stride (\d+)", text).group(1))


def described_head(text: str, slope: float, rcil: bool, out_stride: int, pooling: int = 32) -> DeepLabV3:
    """The head of a text like "in 512, hidden 8, out 16"."""
    inputs, hidden, outputs = (int(re.search(rf"{name} (\d+)", text).group(1)) for name in ("in", "hidden", "out"))
    make = RcilDeepLabV3 if rcil else DeepLabV3
    return make(
        inputs, outputs, inplace_norm(slope), hidden=hidden, out_stride=out_stride, pooling_size=pooling,
        gain_slope=slope,
    )  # fmt: skip


def preset_mixes(module: nn.Module, draws: list[Tensor]) -> None:
    """Give the recorded draws of one forward pass to the mixes, in their order."""
    mixes = [part for part in module.modules() if isinstance(part, BranchMix)]
    for mix, drawn in zip(mixes, draws, strict=True):
        mix.drawn = drawn.flatten()


def parameter_gradients(module: nn.Module, prefix: str = "grad.") -> dict[str, Tensor]:
    """Gradients of all parameters that got one."""
    return {f"{prefix}{name}": value.grad for name, value in module.named_parameters() if value.grad is not None}


def statistics_of(module: nn.Module) -> dict[str, Tensor]:
    """Running statistics and counters."""
    ends = ("running_mean", "running_var", "num_batches_tracked")
    return {f"after.{key}": value for key, value in module.state_dict().items() if key.endswith(ends)}
