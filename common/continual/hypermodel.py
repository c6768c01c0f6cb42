"""The graph network that turns stored classifier rows into the precision matrices of the regulariser.

It generates no network weights: its input is the class graph of one stored task, its output one feature row per
class, from which `regulariser.precision_matrices` builds the precision. One network serves all stored tasks.

Source: VDFD supplement, section on the precision network; XiaorongLi-95/VDFD@2c0dfce models/gcn.py (MIT).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def normalised_adjacency(affinity: Tensor) -> Tensor:
    """D^-1/2 (A + I) D^-1/2 with the degrees of A + I.

    A node of negative degree gets the factor 0, as in the original (where its square root is NaN); so does a node
    of degree zero, which the original leaves infinite (D21).

    Args:
        affinity: (..., C, C) cosines between the classes of a task.

    Returns:
        (..., C, C) tensor.
    """
    with_loops = affinity + torch.eye(affinity.shape[-1], dtype=affinity.dtype, device=affinity.device)
    degree = with_loops.sum(dim=-2)
    scale = torch.where(degree > 0, degree.clamp_min(torch.finfo(degree.dtype).tiny).rsqrt(), 0.0)
    return scale.unsqueeze(-1) * with_loops * scale.unsqueeze(-2)


class GraphLayer(nn.Module):
    """N X W^T + b: average over the neighbours, then a linear layer."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)

    def forward(self, adjacency: Tensor, nodes: Tensor) -> Tensor:
        """(..., C, C) adjacency and (..., C, in) nodes -> (..., C, out)."""
        return self.linear(adjacency @ nodes)


class GCN(nn.Module):
    """Two graph layers with a ReLU between them.

    Args:
        features: width of the prototypes (the backbone's embedding).
        hidden: width between the layers.
        out: width of the output; equal to `features` with `residual`.
        residual: add the prototypes to the output.
    """

    def __init__(self, features: int, hidden: int, out: int, residual: bool) -> None:
        super().__init__()
        if residual and out != features:
            raise ValueError(f"a residual hypermodel returns as many features as it gets ({features}), not {out}")
        self.gcn_layer1 = GraphLayer(features, hidden)
        self.gcn_layer2 = GraphLayer(hidden, out)
        self.residual = residual

    def forward(self, adjacency: Tensor, prototypes: Tensor) -> Tensor:
        """(..., C, C) normalised adjacency and (..., C, F) prototypes -> (..., C, out)."""
        hidden = torch.relu(self.gcn_layer1(adjacency, prototypes))
        features = self.gcn_layer2(adjacency, hidden)
        return features + prototypes if self.residual else features

    def reset(self) -> None:
        """Draw both layers anew with their default initialisation (at the start of every task but the first).

        On the CPU, so that runs on CPU and GPU draw the same numbers.
        """
        # rng: layer 1 before layer 2, weight before bias
        for layer in (self.gcn_layer1.linear, self.gcn_layer2.linear):
            drawn = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
            layer.load_state_dict(drawn.state_dict())


def bottleneck_gcn(features: int) -> GCN:
    """The task-incremental form: F -> F/16 -> F/8, no residual (original: task_incremental/models/gcn.py)."""
    return GCN(features, features // 16, features // 8, residual=False)


def residual_gcn(features: int) -> GCN:
    """The class-incremental form: F -> F -> F plus the prototypes (original: class_incremental/models/gcn.py)."""
    return GCN(features, features, features, residual=True)


HYPERMODELS = {"bottleneck": bottleneck_gcn, "residual": residual_gcn}
"""Names for `--gcn` (D7)."""
