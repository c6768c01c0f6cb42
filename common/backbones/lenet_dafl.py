"""LeNet-5 for 32x32 images and a version with half the channels.

Source: the form of DAFL's release that gaurav104/LRA@40a8941 carries.
"""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from common.backbones.classifier import StagedClassifier


class LeNet5(StagedClassifier):
    """Three 5x5 convolutions, two 2x2 poolings, two linear layers; the feature vector feeds the first of these.

    Args:
        num_classes: outputs.
        in_channels: channels of the images.
        widths: channels of the convolutions, and width of the hidden layer.
    """

    def __init__(
        self, num_classes: int = 10, in_channels: int = 1, widths: tuple[int, int, int, int] = (6, 16, 120, 84)
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, widths[0], 5)
        self.conv2 = nn.Conv2d(widths[0], widths[1], 5)
        self.conv3 = nn.Conv2d(widths[1], widths[2], 5)
        self.fc1 = nn.Linear(widths[2], widths[3])
        self.fc2 = nn.Linear(widths[3], num_classes)
        self.num_features = widths[2]

    def stages(self, images: Tensor) -> list[Tensor]:
        """(B, c, 32, 32) -> maps of 14 and 5 pixels a side, and the feature vector."""
        first = F.max_pool2d(F.relu(self.conv1(images)), 2)
        second = F.max_pool2d(F.relu(self.conv2(first)), 2)
        return [first, second, F.relu(self.conv3(second)).flatten(1)]

    def classify(self, features: Tensor) -> Tensor:
        """(B, num_features) -> logits."""
        return self.fc2(F.relu(self.fc1(features)))


LeNet5Half = partial(LeNet5, widths=(3, 8, 60, 42))
