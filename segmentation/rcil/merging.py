"""Merging RCIL's two branches at the start of a step, and keeping the merged one as it is.

Source: zhangchbin/RCIL (commit b9aad58) run.py, merge, mergex, convert_model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from segmentation.rcil.network import RcilBlock, RcilDeepLabV3


def add_merge_biases(module: nn.Module) -> None:
    """Zero biases for the convolutions that will hold merged branches; a network saved after a merge has them."""
    for convolutions, _ in _frozen_parts(module):
        for convolution in convolutions:
            if convolution.bias is None:
                convolution.bias = nn.Parameter(torch.zeros_like(convolution.weight[:, 0, 0, 0]))


def has_merge_biases(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict was saved after a merge."""
    return any(key.endswith(("convs.conv2.bias", "map_convs.0.bias")) for key in state)


def merge_branches(module: nn.Module, compensate: bool = False) -> None:
    """Merge every pair of branches inside, in place: the first one becomes their mean, without a norm of its own.

    Args:
        module: with RcilBlock or RcilDeepLabV3 inside; in evaluation its output stays the same as long as both
            branches are averaged *and* the second one is silent, so a step does not start at the old function (D5).
        compensate: also give the second branch the merged weights, so that the step does start at the old function.
    """
    add_merge_biases(module)
    for part in module.modules():
        if isinstance(part, RcilBlock):
            pairs = [(part.convs["conv2"], part.convs["conv2_new"])]
            _merge(pairs, part.convs["bn2"], part.convs["bn2_new"], compensate)
        elif isinstance(part, RcilDeepLabV3):
            pairs = list(zip(part.map_convs, part.map_convs_new, strict=True))
            _merge(pairs, part.map_bn, part.map_bn_new, compensate)


@torch.no_grad()
def _merge(
    pairs: Sequence[tuple[nn.Conv2d, nn.Conv2d]], norm: nn.Module, norm_new: nn.Module, compensate: bool
) -> None:
    """conv <- half of the one behind its norm plus half of the other; norm <- nothing."""
    sizes = [old.weight.shape[0] for old, _ in pairs]
    old_scales, old_shifts = _half_affine(norm, sizes)
    new_scales, new_shifts = _half_affine(norm_new, sizes)
    for (old, new), old_scale, old_shift, new_scale, new_shift in zip(
        pairs, old_scales, old_shifts, new_scales, new_shifts, strict=True
    ):
        weight = old.weight * old_scale.view(-1, 1, 1, 1) + new.weight * new_scale.view(-1, 1, 1, 1)
        old.weight.copy_(weight)
        old.bias.copy_(old_shift + old.bias * old_scale + new_shift)
    norm.weight.fill_(1.0)
    norm.bias.zero_()
    norm.running_mean.zero_()
    norm.running_var.fill_(1.0)
    norm.eps = 0.0
    if compensate:
        _copy_to_second(pairs, norm_new)


def _half_affine(norm: nn.Module, sizes: Sequence[int]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Half of a norm in evaluation as factor and shift per channel, parted among convolutions."""
    scale = (norm.weight.abs() + norm.eps) / 2 / torch.sqrt(norm.running_var + norm.eps)
    shift = norm.bias / 2 - norm.running_mean * scale
    return scale.split(list(sizes)), shift.split(list(sizes))


def _copy_to_second(pairs: Sequence[tuple[nn.Conv2d, nn.Conv2d]], norm: nn.Module) -> None:
    """The second branch computes what the merged first one does, in evaluation: biases go into its norm."""
    for old, new in pairs:
        new.weight.copy_(old.weight)
    norm.weight.fill_(1.0)
    norm.bias.copy_(torch.cat([old.bias for old, _ in pairs]))
    norm.running_mean.zero_()
    norm.running_var.fill_(1.0)


def merged_parameters(module: nn.Module) -> Iterator[nn.Parameter]:
    """Parameters of the first branches, which the next merge rewrites; they are frozen from then on."""
    for convolutions, norm in _frozen_parts(module):
        for part in (*convolutions, norm):
            yield from part.parameters()


def freeze_merged(module: nn.Module) -> None:
    """No gradients and no statistics for merged branches; again after every call of `train()`."""
    for convolutions, norm in _frozen_parts(module):
        for part in (*convolutions, norm):
            part.requires_grad_(False)
        norm.eval()


def _frozen_parts(module: nn.Module) -> Iterator[tuple[Sequence[nn.Conv2d], nn.Module]]:
    for part in module.modules():
        if isinstance(part, RcilBlock):
            yield [part.convs["conv2"]], part.convs["bn2"]
        elif isinstance(part, RcilDeepLabV3):
            yield list(part.map_convs), part.map_bn


def second_branches_from_first(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A body's weights (pretrained, one branch) with the second branches copied from the first ones."""
    copies = {
        key.replace(f".{name}.", f".{name}_new."): value
        for key, value in state.items()
        for name in ("conv2", "bn2")
        if f".convs.{name}." in key
    }
    return {**state, **copies}
