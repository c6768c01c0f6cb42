"""What data-free distillation asks of a network: logits, the features before its classifier, the maps between."""

from __future__ import annotations

from torch import Tensor, nn


class StagedClassifier(nn.Module):
    """A classifier that runs through stages to one feature vector per image.

    A subclass provides `stages` and `classify`; the three ways of calling it follow.

    Attributes:
        num_features: width of the feature vector.
    """

    num_features: int

    def stages(self, images: Tensor) -> list[Tensor]:
        """(B, C, H, W) normalised images -> the map after every stage, and last the (B, num_features) vector."""
        raise NotImplementedError

    def classify(self, features: Tensor) -> Tensor:
        """(B, num_features) -> (B, classes) logits."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) normalised images -> (B, classes) logits."""
        return self.classify(self.stages(images)[-1])

    def with_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) normalised images -> logits and feature vectors."""
        features = self.stages(images)[-1]
        return self.classify(features), features


def redraw_convolutions(module: nn.Module, linear_std: float | None = None) -> None:
    """Second pass of initialisation: convolutions N(0, 2 / (k k outputs)), norms 1 and 0, biases 0.

    Source: zju-vipa/CMI@9e79fa9 datafree/models/classifiers/{wresnet,vgg}.py.

    Args:
        module: visited in the order of `modules()`. # rng: one draw per convolution, and per linear layer if asked for
        linear_std: standard deviation for linear weights; None leaves their first draw.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            fan_out = layer.kernel_size[0] * layer.kernel_size[1] * layer.out_channels
            nn.init.normal_(layer.weight, 0.0, (2.0 / fan_out) ** 0.5)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.Linear):
            if linear_std is not None:
                nn.init.normal_(layer.weight, 0.0, linear_std)
            nn.init.zeros_(layer.bias)
