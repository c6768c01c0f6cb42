"""Classifiers that grow by one block per task.

Source: S2VTouser/RFD@ede67fa and gqk/cl-lite@f0ddf02 head/dynamic_simple.py, head/dynamic_cosine.py.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.backbones.staged import spatial_mean
from common.training.errors import UserError

CLASSIFIERS = ("two_linear", "linear", "cosine")
_INITIAL_STD = 0.001


class DynamicHead(nn.Module):
    """Pools a feature map and classifies it with one classifier per task, logits in task order.

    Args:
        num_features: F, channels of the map.
        classifier: "two_linear": F -> F -> classes without anything between (RFD); "linear": one layer, weights
            drawn with standard deviation 0.001 (R-DFCIL, ABD's port); "cosine": cosine similarity times a learned
            scale.
        bias: whether the linear layers have biases.
    """

    def __init__(self, num_features: int, classifier: str = "two_linear", bias: bool = False) -> None:
        super().__init__()
        if classifier not in CLASSIFIERS:
            raise UserError(f"unknown classifier {classifier!r}; expected one of {', '.join(CLASSIFIERS)}")
        self.num_features, self.kind, self.bias = num_features, classifier, bias
        self.classifiers = nn.ModuleList()
        self.sigma = nn.Parameter(torch.ones(())) if classifier == "cosine" else None

    def append(self, classes: int) -> None:
        """Add the classifier of one more task, freshly initialised. # rng: its weights, see `classifier`"""
        width = self.num_features
        if self.kind == "two_linear":
            # original: the initialiser of the one-layer head does not recognise the container, so both layers keep
            # torch's default
            new: nn.Module = nn.Sequential(
                nn.Linear(width, width, bias=self.bias), nn.Linear(width, classes, bias=self.bias)
            )
        else:
            new = nn.Linear(width, classes, bias=self.bias and self.kind == "linear")
            nn.init.normal_(new.weight, 0.0, _INITIAL_STD)  # rng: after the draws of the default
            if new.bias is not None:
                nn.init.zeros_(new.bias)
        if self.sigma is not None:
            new = new.to(self.sigma.device)
        elif len(self.classifiers):
            new = new.to(next(self.classifiers.parameters()).device)
        self.classifiers.append(new)

    def pool(self, feature_map: Tensor) -> Tensor:
        """(N, F, h, w) -> (N, F), the mean over space."""
        return spatial_mean(feature_map)

    def classify(self, features: Tensor) -> Tensor:
        """(N, F) -> (N, classes of all tasks) logits."""
        if self.kind == "cosine":
            weights = torch.cat([classifier.weight for classifier in self.classifiers])
            return self.sigma * F.linear(F.normalize(features), F.normalize(weights))
        return torch.cat([classifier(features) for classifier in self.classifiers], dim=1)

    def forward(self, feature_map: Tensor) -> Tensor:
        """(N, F, h, w) -> logits."""
        return self.classify(self.pool(feature_map))
