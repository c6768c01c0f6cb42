"""The small extra networks that VDFD's release carries and no command of it uses.

Source: XiaorongLi-95/VDFD@2c0dfce models/{lenet,alexnet,mlp}.py (MIT); sizes for 3x32x32 images (MLP: 1x28x28).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from common.backbones.heads import Backbone


class LeNetVDFD(Backbone):
    """Two 5x5 convolutions with batch norm and pooling, one hidden layer of 500."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(3, 20, 5, padding=2),
            nn.BatchNorm2d(20),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(20, 50, 5, padding=2),
            nn.BatchNorm2d(50),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.linear = nn.Sequential(nn.Linear(50 * 8 * 8, 500), nn.BatchNorm1d(500), nn.ReLU())
        self.num_features = 500
        self.last = nn.Linear(500, num_classes)

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, 32, 32) -> (B, 500)."""
        return self.linear(self.conv(images).flatten(1))


class AlexNetVDFD(Backbone):
    """Three unpadded convolutions (4x4, 3x3, 2x2) with pooling, two hidden layers of 2048.

    The release also has dropout layers; their places and rates are not known to us, so this network has none: it
    equals the released one in evaluation mode only.
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 4)
        self.conv2 = nn.Conv2d(64, 128, 3)
        self.conv3 = nn.Conv2d(128, 256, 2)
        self.fc1 = nn.Linear(1024, 2048)
        self.fc2 = nn.Linear(2048, 2048)
        self.num_features = 2048
        self.last = nn.Linear(2048, num_classes)

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, 32, 32) -> (B, 2048)."""
        x = images
        for convolution in (self.conv1, self.conv2, self.conv3):
            x = F.max_pool2d(F.relu(convolution(x)), 2)
        return F.relu(self.fc2(F.relu(self.fc1(x.flatten(1)))))


class MLPVDFD(Backbone):
    """784-100-100 with ReLU and without biases."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.fc1 = nn.Linear(784, 100, bias=False)
        self.fc2 = nn.Linear(100, 100, bias=False)
        self.num_features = 100
        self.last = nn.Linear(100, num_classes, bias=False)

    def embed(self, images: Tensor) -> Tensor:
        """(B, 1, 28, 28) or (B, 784) -> (B, 100)."""
        return F.relu(self.fc2(F.relu(self.fc1(images.flatten(1)))))


class CNNVDFD(Backbone):
    """Three 3x3 convolutions with tanh and pooling; the flattened map is the embedding.

    The release describes no more than "three tanh layers, no classifier"; the channel numbers are ours.
    """

    def __init__(self, num_classes: int = 10, channels: tuple[int, int, int] = (32, 64, 128)) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, channels[0], 3, padding=1)
        self.conv2 = nn.Conv2d(channels[0], channels[1], 3, padding=1)
        self.conv3 = nn.Conv2d(channels[1], channels[2], 3, padding=1)
        self.num_features = channels[2] * 4 * 4
        self.last = nn.Linear(self.num_features, num_classes)

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, 32, 32) -> (B, 2048)."""
        x = images
        for convolution in (self.conv1, self.conv2, self.conv3):
            x = F.max_pool2d(F.tanh(convolution(x)), 2)
        return x.flatten(1)
