"""Segmentation steps done literally, as the originals do them; for speed comparisons and their test.

Labels are mapped pixel by pixel through a Python function. Local POD cuts 21 cells out of every map of both networks
and averages each twice; pooled-cube distillation averages over every window of both networks' squared maps. Every map's
distance is checked on the host, every term is read there. VDFD's penalty widens each tensor to one copy per class. The
networks are ours, but their dilated convolutions also compute the taps that see nothing but padding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.literal_vdfd import literal_contribution
from common.backbones.abn import ABN, InPlaceABN, activate
from common.backbones.deeplab import DilatedConv2d
from common.continual.hypermodel import GCN, normalised_adjacency
from segmentation.pckd import CubeFactors
from segmentation.vdfd import SavedStep, classifier_rows


def literal_label_map(labels: Tensor, positions: Mapping[int, int], otherwise: int) -> Tensor:
    """Training labels of one image, one call of a function per pixel.

    Args:
        labels: (H, W) uint8 values of a label image.
        positions: raw value -> training label.
        otherwise: training label of all other values.
    """
    return labels.clone().apply_(lambda value: positions.get(value, otherwise))


class PlainNorm(ABN):
    """The in-place norm's formula, left to autograd: every intermediate map is kept."""

    def forward(self, x: Tensor) -> Tensor:
        """act((|weight| + eps) (x - mean) / sqrt(variance + eps) + bias)."""
        shape = (1, -1, 1, 1)
        mean, variance = self.running_mean, self.running_var
        if self.training:
            mean, variance = x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3), correction=0)
            with torch.no_grad():
                count = x.numel() / x.shape[1]
                self.num_batches_tracked += 1
                self.running_mean.mul_(1 - self.momentum).add_(self.momentum * mean)
                self.running_var.mul_(1 - self.momentum).add_(self.momentum * variance * count / (count - 1))
        normalised = (x - mean.view(shape)) / torch.sqrt(variance + self.eps).view(shape)
        y = normalised * (self.weight.abs() + self.eps).view(shape) + self.bias.view(shape)
        return activate(y, self.activation, self.activation_param)


def literal_network(network: nn.Module, plain_norms: bool) -> nn.Module:
    """A network with all taps of all convolutions; same weights, modes and keys.

    Args:
        network: is changed.
        plain_norms: also leave the formula of every in-place norm to autograd.
    """
    for part in network.modules():
        if isinstance(part, DilatedConv2d):
            part.__class__ = nn.Conv2d
        elif plain_norms and isinstance(part, InPlaceABN):
            part.__class__ = PlainNorm
    return network


# --- losses of logits -------------------------------------------------------------------------------------------------


def literal_unbiased_cross_entropy(logits: Tensor, labels: Tensor, old: int) -> Tensor:
    """Per pixel, through a full map of log-probabilities."""
    outputs = torch.zeros_like(logits)
    everything = torch.logsumexp(logits, dim=1)
    outputs[:, 0] = torch.logsumexp(logits[:, :old], dim=1) - everything
    outputs[:, old:] = logits[:, old:] - everything.unsqueeze(1)
    labels = labels.clone()
    labels[labels < old] = 0
    return F.nll_loss(outputs, labels, ignore_index=255, reduction="none")


def literal_unbiased_distillation(logits: Tensor, old_logits: Tensor) -> Tensor:
    """Scalar, with gathered copies of the background's channels."""
    old = old_logits.shape[1]
    chosen = torch.tensor([0, *range(old, logits.shape[1])], device=logits.device)
    everything = torch.logsumexp(logits, dim=1)
    known = logits[:, 1:old] - everything.unsqueeze(1)
    background = torch.logsumexp(torch.index_select(logits, 1, chosen), dim=1) - everything
    target = torch.softmax(old_logits, dim=1)
    return -((target[:, 0] * background + (target[:, 1:] * known).sum(dim=1)) / old).mean()


def literal_pseudo_labels(
    labels: Tensor, old_logits: Tensor, thresholds: Tensor, classes: int
) -> tuple[Tensor, Tensor]:
    """PLOP's rewritten labels and the weight of each image."""
    labels, old = labels.clone(), old_logits.shape[1]
    background = labels < old
    probabilities = torch.softmax(old_logits, dim=1)
    _, predicted = probabilities.max(dim=1)
    uncertainty = -torch.mean(probabilities * torch.log(probabilities + 1e-8), dim=1) / math.log(old)
    valid = uncertainty / math.log(classes) < thresholds[predicted]
    labels[~valid & background] = 255
    labels[valid & background] = predicted[valid & background]
    count = (valid & background).float().sum(dim=(1, 2))
    return labels, (count / (background.float().sum(dim=(1, 2)) + 1e-6))[:, None, None]


# --- feature maps -----------------------------------------------------------------------------------------------------


def fold(old: Tensor, new: Tensor, old_classes: int) -> Tensor:
    """Sum of the extra channels in channel 0."""
    if old.shape == new.shape:
        return new
    folded = torch.zeros_like(old)
    folded[:, 0] = new[:, 0] + new[:, old_classes:].sum(dim=1)
    folded[:, 1:] = new[:, 1:old_classes]
    return folded


def literal_local_pod(x: Tensor) -> Tensor:
    """(B, D), cell by cell."""
    parts = []
    for scale in (1, 2, 4):
        size = x.shape[3] // scale
        for i in range(scale):
            for j in range(scale):
                cell = x[:, :, i * size : (i + 1) * size, j * size : (j + 1) * size]
                parts.append(cell.mean(dim=3).reshape(len(x), -1))
                parts.append(cell.mean(dim=2).reshape(len(x), -1))
    return torch.cat(parts, dim=1)


def checked(distance: Tensor) -> Tensor:
    """The distance, once the host has seen that it is finite and not negative."""
    assert torch.isfinite(distance).all() and (distance >= 0).all()
    return distance


def literal_pod(
    old_maps: Sequence[Tensor], new_maps: Sequence[Tensor], factor: float, last: float, counts: tuple[int, int, int]
) -> Tensor:
    """PLOP's distance of maps."""
    old_classes, classes, new_classes = counts
    total = torch.zeros((), device=new_maps[0].device)
    for number, (old, new) in enumerate(zip(old_maps, new_maps, strict=True)):
        squares = old**2, fold(old, new, old_classes) ** 2
        a, b = (literal_local_pod(square) for square in squares)
        weight = last if number == len(new_maps) - 1 else factor
        total = total + checked(weight * math.sqrt(classes / new_classes) * torch.norm(a - b, dim=1).mean())
    return total / len(new_maps)


def literal_cubes(
    old_maps: Sequence[Tensor], new_maps: Sequence[Tensor], factors: CubeFactors, counts: tuple[int, int, int]
) -> Tensor:
    """RCIL's two distances of maps."""
    old_classes, classes, new_classes = counts
    schedule, last = math.sqrt(classes / new_classes), len(new_maps) - 1
    spatial = channel = torch.zeros((), device=new_maps[0].device)
    for number, (old, new) in enumerate(zip(old_maps, new_maps, strict=True)):
        squares = old**2, fold(old, new, old_classes) ** 2
        distances = []
        for window in (4, 8, 12, 16, 20, 24):
            a, b = (F.avg_pool2d(square, window, 1, window // 2).flatten(1) for square in squares)
            distances.append(torch.norm(a - b, dim=1).mean())
        weight = factors.spatial_last if number == last else factors.spatial
        spatial = spatial + checked(weight * schedule * sum(distances) / len(distances))
        if number < last:
            a, b = (F.avg_pool1d(s.flatten(2).transpose(1, 2), 3, 1, 1).flatten(1) for s in squares)
            weight = factors.channel_last if number == last - 1 else factors.channel
            channel = channel + checked(weight * schedule * torch.norm(a - b, dim=1).mean())
    return spatial / len(new_maps) + channel / last


# --- steps ------------------------------------------------------------------------------------------------------------


class LiteralStep:
    """One iteration of PLOP or RCIL after another, on networks of its own.

    Args:
        method: "PLOP" or "RCIL".
        network, old_network: in their modes.
        counts: old, all and new classes.
        thresholds: of PLOP's pseudo-labels.
        factors: of RCIL's distances.
        lr: learning rate.
    """

    def __init__(
        self, method: str, network: nn.Module, old_network: nn.Module, counts: tuple[int, int, int],
        thresholds: Tensor | None, factors: CubeFactors | None, lr: float,
    ) -> None:  # fmt: skip
        self.network, self.old_network, self.counts = network, old_network, counts
        self.thresholds, self.factors = thresholds, factors
        self.losses: Callable[..., dict[str, Tensor]] = self.plop if method == "PLOP" else self.rcil
        self.optimizer = torch.optim.SGD(
            [p for p in network.parameters() if p.requires_grad], lr, momentum=0.9, nesterov=True, weight_decay=1e-4,
            foreach=False,
        )  # fmt: skip

    def __call__(self, images: Tensor, raw: Tensor, positions: Mapping[int, int]) -> dict[str, float]:
        """Take the step; returns the terms."""
        labels = torch.stack([literal_label_map(one, positions, 0) for one in raw]).long()
        with torch.no_grad():
            old_logits, old = self.old_network(images)
        logits, new = self.network(images)
        old_maps = [*old["attentions"], old["sem_logits_small"]]
        new_maps = [*new["attentions"], new["sem_logits_small"]]
        terms = self.losses(logits, old_logits, labels, old_maps, new_maps)
        self.optimizer.zero_grad()
        sum(terms.values()).backward()
        self.optimizer.step()
        return {name: value.item() for name, value in terms.items()}

    def plop(self, logits: Tensor, old_logits: Tensor, labels: Tensor, old: Any, new: Any) -> dict[str, Tensor]:
        """Pseudo-labels and local POD."""
        assert self.thresholds is not None
        labels, weight = literal_pseudo_labels(labels, old_logits, self.thresholds, self.counts[1])
        loss = F.cross_entropy(logits, labels, ignore_index=255, reduction="none")
        return {"ce": (weight * loss).mean(), "pod": literal_pod(old, new, 0.01, 0.0005, self.counts)}

    def rcil(self, logits: Tensor, old_logits: Tensor, labels: Tensor, old: Any, new: Any) -> dict[str, Tensor]:
        """Unbiased losses and pooled cubes."""
        assert self.factors is not None
        return {
            "ce": literal_unbiased_cross_entropy(logits, labels, self.counts[0]).mean(),
            "lkd": 100 * literal_unbiased_distillation(logits, old_logits),
            "pod": literal_cubes(old, new, self.factors, self.counts),
        }


def literal_penalty(network: nn.Module, hypermodel: GCN, steps: Sequence[SavedStep], eps: float) -> Tensor:
    """VDFD's penalty with the classifier's exact rule, tensor by tensor, one copy per class."""
    parameters = dict(network.named_parameters())
    rows, biases = classifier_rows(network)
    total = torch.zeros((), dtype=torch.float64)
    for step in steps:
        gw = torch.stack([literal_contribution(parameters[name], f) for name, f in step.factors.items()]).sum(dim=0)
        gw = gw + rows[: step.classes] @ step.features + biases[: step.classes]
        nodes = step.prototypes
        features = F.normalize(hypermodel(normalised_adjacency(nodes @ nodes.T), nodes), dim=1).double()
        precision = features @ features.T
        delta = (gw - step.gw_star).double()
        identity = torch.eye(len(delta), dtype=torch.float64)
        total = total + delta @ precision @ delta - torch.logdet(precision + eps * identity)
    return total
