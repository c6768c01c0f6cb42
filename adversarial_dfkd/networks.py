"""Students, teachers, generators by the names of the original's configurations."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from common.backbones.classifier import StagedClassifier
from common.backbones.generators_predfkd import WIDE_EPSILON, LatentEncoder, LatentGenerator, UnitLength
from common.backbones.lenet_dafl import LeNet5, LeNet5Half
from common.backbones.mobile_lra import MobileNetV2Small, SqueezeNetSmall
from common.backbones.resnet_cifar import resnet18_cifar, resnet34_cifar
from common.backbones.resnet_imagenet import ImageNetResNet
from common.backbones.wresnet_zskt import WideResNet
from common.training.errors import UserError

resnet18_tiny = partial(ImageNetResNet, 18, stem="tiny")
resnet34_tiny = partial(ImageNetResNet, 34, stem="tiny")
_WIDE = {f"wrn-{depth}-{widen}": partial(WideResNet, depth, widen) for depth in (16, 40) for widen in (1, 2)}

STUDENTS: dict[str, Callable[..., nn.Module]] = {
    "lenet": LeNet5Half,
    "resnet18": resnet18_cifar,
    "resnet34": resnet34_cifar,
    "resnet18_64": resnet18_tiny,
    "mobilenet": MobileNetV2Small,
    "squeezenet": SqueezeNetSmall,
    **_WIDE,
    "wrn-10-1": partial(WideResNet, 10, 1),
}
"""Value of `student` -> constructor (num_classes, in_channels). wrn-40-2 and wrn-10-1 are added here."""

TEACHERS: dict[str, Callable[..., StagedClassifier]] = {
    "lenet5": LeNet5,
    "resnet18": resnet18_cifar,
    "resnet34": resnet34_cifar,
    "resnet18_64": resnet18_tiny,
    "resnet34_64": resnet34_tiny,
    **_WIDE,
    "wrn-10-1": partial(WideResNet, 10, 1),
}
"""Value of `teacher` (added here) -> constructor."""


def default_teacher(dataset: str) -> str:
    """The teacher's network that the original expects for a data set."""
    return {"MNIST": "lenet5", "tiny-imagenet": "resnet34_64"}.get(dataset, "resnet34")


def build_student(name: str, dataset: str, num_classes: int, channels: int) -> nn.Module:
    """A freshly initialised student (draws from torch's global generator).

    Raises:
        UserError: for an unknown name.
    """
    if name == "resnet18" and dataset == "tiny-imagenet":
        name = "resnet18_64"
    if name not in STUDENTS:
        raise UserError(f"student {name!r} is not offered; expected one of: {', '.join(STUDENTS)}")
    return STUDENTS[name](num_classes=num_classes, in_channels=channels)


def build_teacher(name: str, num_classes: int, channels: int) -> StagedClassifier:
    """A freshly initialised teacher network; its weights are loaded afterwards.

    Raises:
        UserError: for an unknown name.
    """
    if name not in TEACHERS:
        raise UserError(f"teacher {name!r} is not offered; expected one of: {', '.join(TEACHERS)}")
    return TEACHERS[name](num_classes=num_classes, in_channels=channels)


def build_novel_generator(
    latent_dim: int, img_size: int, channels: int, upsampling: int = 4, epsilon: float = WIDE_EPSILON
) -> LatentGenerator:
    """The generator that looks for images on which the student still disagrees with the teacher."""
    more = upsampling == 8
    return LatentGenerator(latent_dim, img_size, channels, spectral=True, more_upsampling=more, epsilon=epsilon)


def build_memory_generator(
    latent_dim: int, img_size: int, channels: int, upsampling: int = 4, epsilon: float = WIDE_EPSILON,
    unit: UnitLength = "columns",
) -> tuple[LatentGenerator, LatentEncoder]:  # fmt: skip
    """Decoder and encoder of the replay VAE. # rng: in this order"""
    more, shape = upsampling == 8, (latent_dim, img_size, channels)
    generator = LatentGenerator(*shape, spectral=False, more_upsampling=more, epsilon=epsilon)
    return generator, LatentEncoder(*shape, more_downsampling=more, epsilon=epsilon, unit=unit)
