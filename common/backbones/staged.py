"""Backbones whose stages can be entered from outside: what feature-level distillation across networks needs."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Network = TypeVar("Network", bound=nn.Module)


class StagedBackbone(nn.Module):
    """A convolutional network in four stages that ends in an unpooled feature map.

    Attributes:
        num_features: channels of the last map.
    """

    num_features: int

    def first_stage(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) normalised images -> map of the stem and the first stage."""
        raise NotImplementedError

    def later_stages(self, first: Tensor) -> list[Tensor]:
        """Map of a first stage (of this or another network of the same widths) -> maps of stages 2, 3 and 4."""
        raise NotImplementedError

    def stage_outputs(self, images: Tensor) -> list[Tensor]:
        """Maps of all four stages."""
        first = self.first_stage(images)
        return [first, *self.later_stages(first)]

    def from_first_stage(self, first: Tensor) -> Tensor:
        """Last map, from the map of a first stage."""
        return self.later_stages(first)[-1]

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) normalised images -> (N, num_features, h, w) map of the last stage."""
        return self.stage_outputs(images)[-1]


def spatial_mean(feature_map: Tensor) -> Tensor:
    """(N, F, h, w) -> (N, F), the mean over space.

    why a hook: the gradient of a mean is one number repeated without memory of its own. The additions of a residual
    network hand it on as it is, and norm layers are slow where gradient and input lie differently in memory.
    """
    if feature_map.requires_grad:
        is_last = feature_map.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if is_last else torch.contiguous_format
        feature_map.register_hook(lambda gradient: gradient.contiguous(memory_format=layout))
    return feature_map.mean(dim=(2, 3))


def every_nth(x: Tensor, stride: int) -> Tensor:
    """Every `stride`-th row and column of (N, C, H, W), from the first.

    why not a slice: the gradient of a slice is always laid out channels first.
    """
    return F.avg_pool2d(x, 1, stride)


def initialise_residual(network: nn.Module, last_norms: list[nn.BatchNorm2d], nonlinearity: str = "relu") -> None:
    """Kaiming-normal convolutions (fan out), batch norms at 1 and 0, the last one of every block at weight 0.

    The convolutions keep the order of their construction. # rng: one normal draw per convolution
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity=nonlinearity)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
    for norm in last_norms:
        nn.init.zeros_(norm.weight)


def folded(network: Network) -> Network:
    """A copy for evaluation whose convolutions contain the batch norms that follow them; the same function, rounded
    otherwise.

    A norm belongs to the convolution that stands directly before it among its siblings, as in the residual networks
    here.
    """
    copied = copy.deepcopy(network).eval()
    for parent in list(copied.modules()):
        children = list(parent.named_children())
        for (name, convolution), (norm_name, norm) in zip(children, children[1:], strict=False):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, name, fuse_conv_bn_eval(convolution, norm))
                setattr(parent, norm_name, nn.Identity())
    return copied
