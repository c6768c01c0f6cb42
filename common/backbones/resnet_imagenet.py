"""torchvision's ResNets, and their form for 64x64 images: 3x3 stem of stride 1 with bias, no pooling before the stages.

Source of the second form: gaurav104/LRA@40a8941 (teacher and student of Tiny-ImageNet) and ljrprocc/DataFree@bf3096b
datafree_kd.py (teacher of Tiny-ImageNet); keys as in the former.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torchvision.models import resnet18, resnet34, resnet50

from common.backbones.classifier import StagedClassifier


class ImageNetResNet(StagedClassifier):
    """A torchvision ResNet as a staged classifier.

    Args:
        depth: 18, 34 or 50.
        num_classes: outputs.
        in_channels: channels of the images.
        stem: "imagenet" (7x7, stride 2, max pooling) or "tiny" (3x3, stride 1, bias, no pooling).
    """

    def __init__(
        self, depth: int, num_classes: int = 1000, in_channels: int = 3, stem: Literal["imagenet", "tiny"] = "imagenet"
    ) -> None:
        super().__init__()
        self.resnet = {18: resnet18, 34: resnet34, 50: resnet50}[depth](weights=None)
        # rng: torchvision's initialisation of the whole network first, then the replaced layers in this order
        if stem == "tiny":
            self.resnet.conv1 = nn.Conv2d(in_channels, 64, 3, 1, 1)
            self.resnet.maxpool = nn.Identity()
        elif in_channels != 3:
            self.resnet.conv1 = nn.Conv2d(in_channels, 64, 7, 2, 3, bias=False)
        self.num_features = self.resnet.fc.in_features
        self.resnet.fc = nn.Linear(self.num_features, num_classes)

    def stages(self, images: Tensor) -> list[Tensor]:
        """Maps after the four stages, and the feature vector."""
        net = self.resnet
        x = net.maxpool(net.relu(net.bn1(net.conv1(images))))
        maps = []
        for layer in (net.layer1, net.layer2, net.layer3, net.layer4):
            x = layer(x)
            maps.append(x)
        return [*maps, net.avgpool(x).flatten(1)]

    def classify(self, features: Tensor) -> Tensor:
        """(B, num_features) -> logits."""
        return self.resnet.fc(features)
