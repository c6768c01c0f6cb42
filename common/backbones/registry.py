"""Networks by the originals' names: `--model_type` is the family (a module there), `--model_name` the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from common.backbones.heads import Backbone
from common.backbones.resnet_vdfd import resnet18, resnet32, resnet50, resnet101
from common.backbones.small import CNNVDFD, MLPVDFD, AlexNetVDFD, LeNetVDFD
from common.backbones.swin_vdfd import SwinTransformer
from common.training.errors import UserError

BACKBONES: dict[tuple[str, str], Callable[..., Backbone]] = {
    ("resnet", "resnet18"): resnet18,
    ("resnet", "resnet32"): resnet32,
    ("resnet", "resnet50"): resnet50,
    ("resnet", "resnet101"): resnet101,
    ("lenet", "LeNet"): LeNetVDFD,
    ("alexnet", "AlexNet"): AlexNetVDFD,
    ("mlp", "MLP"): MLPVDFD,
    ("cnn", "CNN"): CNNVDFD,
    ("swin", "SwinTransformer"): SwinTransformer,
}
_RESIZABLE = {("resnet", "resnet18")}


def build_backbone(
    model_type: str,
    model_name: str,
    *,
    widths: Sequence[int] | None = None,
    blocks: Sequence[int] | None = None,
) -> Backbone:
    """A freshly initialised network (draws from torch's global generator).

    Args:
        model_type: family, e.g. "resnet".
        model_name: network in that family, e.g. "resnet18".
        widths: planes per stage, for networks whose size can be chosen.
        blocks: blocks per stage, likewise.

    Raises:
        UserError: for an unknown name, or a size given to a network that has only one.
    """
    key = (model_type, model_name)
    if key not in BACKBONES:
        known = ", ".join(f"--model_type {family} --model_name {name}" for family, name in BACKBONES)
        raise UserError(f"unknown network --model_type {model_type} --model_name {model_name}; known: {known}")
    sizes = {name: tuple(value) for name, value in (("widths", widths), ("blocks", blocks)) if value is not None}
    if sizes and key not in _RESIZABLE:
        raise UserError(f"--widths and --blocks change the size of resnet18 only, not of {model_name}")
    for name, values in sizes.items():
        if min(values, default=0) < 1:
            raise UserError(f"--{name} expects positive numbers, found {' '.join(map(str, values)) or 'none'}")
    if len(sizes.get("widths", (0,) * 4)) != len(sizes.get("blocks", (0,) * 4)):
        raise UserError("--widths and --blocks expect as many numbers as each other (4 stages by default)")
    return BACKBONES[key](**sizes)
