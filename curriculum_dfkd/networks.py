"""Networks and generators by the names of the original's registry."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from common.backbones.classifier import StagedClassifier
from common.backbones.lenet_dafl import LeNet5, LeNet5Half
from common.backbones.mobile_repdistiller import MobileNetV2Half, ShuffleNetV2
from common.backbones.resnet_cifar import resnet18_cifar, resnet34_cifar, resnet50_cifar
from common.backbones.resnet_imagenet import ImageNetResNet
from common.backbones.resnet_repdistiller import WIDE, ThreeStageResNet
from common.backbones.vgg_repdistiller import vgg
from common.backbones.wresnet_zskt import WideResNet
from common.training.errors import UserError

NETWORKS: dict[str, Callable[..., StagedClassifier]] = {
    **{f"wrn{depth}_{widen}": partial(WideResNet, depth, widen) for depth in (16, 40) for widen in (1, 2)},
    "wrn10_1": partial(WideResNet, 10, 1),
    "resnet18": resnet18_cifar,
    "resnet34": resnet34_cifar,
    "resnet50": resnet50_cifar,
    **{f"vgg{depth}": partial(vgg, depth) for depth in (8, 11, 13)},
    **{f"resnet{depth}": partial(ThreeStageResNet, depth) for depth in (8, 20, 32, 56, 110)},
    **{f"resnet{depth}x4": partial(ThreeStageResNet, depth, WIDE) for depth in (8, 32)},
    "mobilenetv2": MobileNetV2Half,
    "shufflenetv2": ShuffleNetV2,
    "lenet5": LeNet5,
    "lenet5_half": LeNet5Half,
    **{f"resnet{depth}_imagenet": partial(ImageNetResNet, depth) for depth in (18, 34, 50)},
    **{f"resnet{depth}_tiny": partial(ImageNetResNet, depth, stem="tiny") for depth in (18, 34, 50)},
}
"""Name -> constructor (num_classes, in_channels). wrn10_1 serves tests; lenet5 and lenet5_half the desk bench."""


def build_network(name: str, num_classes: int, in_channels: int = 3) -> StagedClassifier:
    """A freshly initialised network (draws from torch's global generator).

    Raises:
        UserError: for an unknown name.
    """
    if name not in NETWORKS:
        raise UserError(f"unknown network {name!r}; expected one of: {', '.join(NETWORKS)}")
    return NETWORKS[name](num_classes=num_classes, in_channels=in_channels)
