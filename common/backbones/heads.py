"""Backbones with replaceable classifier heads.

Every backbone maps images to an embedding (`embed`) and holds its classifier as `last`: one linear layer, or several
named ones (`TaskHeads`). State-dict keys are then `last.weight`, or `last.<head>.weight`, as in the originals.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn


class TaskHeads(nn.ModuleDict):
    """Named linear classifiers over one embedding.

    Args:
        num_features: width of the embedding.
        out_features: head name -> number of outputs, in the order in which the heads are initialised.
        bias: whether the heads have biases.
    """

    def __init__(self, num_features: int, out_features: Mapping[str, int], bias: bool = False) -> None:
        # rng: default initialisation, head by head
        super().__init__({name: nn.Linear(num_features, size, bias=bias) for name, size in out_features.items()})

    def forward(self, embedding: Tensor) -> dict[str, Tensor]:
        """(B, F) embedding -> {head: (B, outputs) logits} of every head."""
        return {name: head(embedding) for name, head in self.items()}


class Backbone(nn.Module):
    """A network up to its embedding, and its classifier `last`.

    Attributes:
        num_features: width of the embedding.
        last: the classifier; a `nn.Linear` after construction, `TaskHeads` after `set_heads`.
    """

    num_features: int
    last: nn.Module

    def embed(self, images: Tensor) -> Tensor:
        """(B, C, H, W) normalised images -> (B, F) embedding."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor | dict[str, Tensor]:
        """(B, C, H, W) normalised images -> logits of `last` (a dict with `TaskHeads`)."""
        return self.last(self.embed(images))

    def set_heads(self, out_features: Mapping[str, int], bias: bool = False) -> None:
        """Replace the classifier by fresh named heads."""
        self.last = TaskHeads(self.num_features, out_features, bias)
