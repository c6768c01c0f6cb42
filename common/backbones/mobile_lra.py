"""torchvision's MobileNetV2 with a stem of stride 1, and its SqueezeNet 1.1, as staged classifiers for small images.

Source: gaurav104/LRA@40a8941 (students `mobilenet` and `squeezenet`); keys and initialisation are torchvision's.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import MobileNetV2, SqueezeNet

from common.backbones.classifier import StagedClassifier

TAPPED_BLOCKS = (4, 8, 12, 16)
"""Blocks of MobileNetV2 after which a map is handed out."""


class MobileNetV2Small(StagedClassifier, MobileNetV2):
    """MobileNetV2 of width 1 whose first convolution keeps the image size; dropout 0.2 before the classifier.

    Args:
        num_classes: outputs.
        in_channels: channels of the images.
    """

    forward = StagedClassifier.forward

    def __init__(self, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__(num_classes=num_classes)
        stem = self.features[0][0]
        if in_channels == 3:
            stem.stride = (1, 1)
        else:
            self.features[0][0] = nn.Conv2d(in_channels, stem.out_channels, 3, 1, 1, bias=False)
            nn.init.kaiming_normal_(self.features[0][0].weight, mode="fan_out")
        self.num_features = self.last_channel

    def stages(self, images: Tensor) -> list[Tensor]:
        """Maps after blocks 4, 8, 12 and 16 (8, 4, 4, 2 pixels a side for 32x32 images), and the feature vector."""
        x, maps = images, []
        for number, block in enumerate(self.features):
            x = block(x)
            if number in TAPPED_BLOCKS:
                maps.append(x)
        return [*maps, F.adaptive_avg_pool2d(x, 1).flatten(1)]

    def classify(self, features: Tensor) -> Tensor:
        """(B, num_features) -> logits."""
        return self.classifier(features)


class SqueezeNetSmall(SqueezeNet):
    """SqueezeNet 1.1; a ReLU follows the class convolution, so logits are not negative. It has no feature vector.

    Args:
        num_classes: outputs.
        in_channels: channels of the images.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__("1_1", num_classes=num_classes)
        if in_channels != 3:
            self.features[0] = nn.Conv2d(in_channels, 64, 3, 2)
            nn.init.kaiming_uniform_(self.features[0].weight)
            nn.init.zeros_(self.features[0].bias)
