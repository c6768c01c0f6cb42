"""Networks of this paper: a staged backbone with a growing head, and the one with outputs for all classes at once."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from common.backbones.generators_dfcil import (
    LATENT,
    DFCILGenerator,
    cifar_generator,
    imagenet_generator,
    tiny_imagenet_generator,
)
from common.backbones.heads import Backbone
from common.backbones.resnet_cllite import CifarResNet, ImageNetResNet18
from common.backbones.staged import StagedBackbone, spatial_mean
from common.training.errors import UserError
from rfd.heads import DynamicHead


class IncrementalNetwork(nn.Module):
    """Backbone and growing head, under the originals' state names `backbone.*` and `head.*`."""

    def __init__(self, backbone: StagedBackbone, classifier: str = "two_linear", bias: bool = False) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = DynamicHead(backbone.num_features, classifier, bias)

    def features(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) normalised images -> (N, F), the value at the neck."""
        return self.head.pool(self.backbone(images))

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) normalised images -> (N, classes so far) logits."""
        return self.head.classify(self.features(images))

    def add_tasks(self, sizes: Sequence[int]) -> None:
        """Append one classifier per task."""
        for size in sizes:
            self.head.append(size)


class FixedHeadNetwork(Backbone):
    """A staged backbone with one linear layer over all classes from the start, as ABD's learners expect it."""

    def __init__(self, backbone: StagedBackbone, out_dim: int) -> None:
        super().__init__()
        self.backbone, self.num_features = backbone, backbone.num_features
        self.last = nn.Linear(backbone.num_features, out_dim)

    def embed(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) normalised images -> (N, F)."""
        return spatial_mean(self.backbone(images))


def build_backbone(dataset: str, blocks: int = 5, width: int = 16) -> StagedBackbone:
    """The backbone of a data set. # rng: its initial weights

    Args:
        dataset: a name that begins with "imagenet" takes the ImageNet network, every other the CIFAR network.
        blocks, width: size of the CIFAR network.

    Raises:
        UserError: for a size that the network cannot have.
    """
    if dataset.startswith("imagenet"):
        if (blocks, width) != (5, 16):
            raise UserError("--model.blocks and --model.width change the CIFAR network only; leave them out here")
        return ImageNetResNet18()
    if blocks < 2 or width < 1:
        raise UserError(f"--model.blocks expects at least 2 and --model.width at least 1, found {blocks} and {width}")
    return CifarResNet(blocks, width)


def build_generator(image_size: int, latent: int = LATENT, width: int | None = None) -> DFCILGenerator:
    """The generator for images of a size: up to 32 pixels the CIFAR one, up to 64 Tiny-ImageNet's, else ImageNet's.

    # rng: its initial weights

    Args:
        image_size: height and width, pixels.
        latent: width of the noise.
        width: channels of the CIFAR generator's first maps; None: the published 128.

    Raises:
        UserError: for a width given to another generator.
    """
    if width is not None:
        if image_size > 32 or width < 2:
            raise UserError("--model.gen_width changes the generator for 32 x 32 images only, and is at least 2")
        return DFCILGenerator(latent, image_size, width, (width, width // 2))
    if image_size <= 32:
        return cifar_generator(latent, image_size)
    return (tiny_imagenet_generator if image_size <= 64 else imagenet_generator)(latent, image_size)


def frozen(module: nn.Module) -> nn.Module:
    """The same module in evaluation mode, without gradients for its weights."""
    return module.eval().requires_grad_(False)
