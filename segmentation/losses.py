"""Losses of a batch of label maps: cross-entropies, distillations of logits, entropies.

Formulas of arthurdouillard/CVPR2021_PLOP (commit 4b4a060) utils/loss.py and train.py, many of which come from
fcdl94/MiB. Logits are (B, C, H, W); labels (B, H, W) integers, 255 = ignored; the old network's logits have the first
C_o of the C channels. "Per pixel" results are (B, H, W) maps in which ignored pixels are 0; their mean runs over all
pixels, the ignored ones included.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = 255
"""Label of pixels that do not count."""


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Per pixel."""
    return F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")


def unbiased_cross_entropy(
    logits: Tensor, labels: Tensor, old_classes: int, ignored: Tensor | None = None
) -> Tensor:
    """Per pixel; a label below `old_classes` stands for the background or any old class (MiB).

    Args:
        logits: (B, C, H, W).
        labels: (B, H, W).
        old_classes: C_o.
        ignored: (B, H, W) bool: further pixels that do not count.
    """
    void = labels == IGNORE if ignored is None else (labels == IGNORE) | ignored
    everything = torch.logsumexp(logits, dim=1)
    old = torch.logsumexp(logits[:, :old_classes], dim=1)
    own = logits.gather(1, labels.masked_fill(void, 0).unsqueeze(1)).squeeze(1)
    return (everything - torch.where(labels < old_classes, old, own)).masked_fill(void, 0.0)


def distillation(logits: Tensor, old_logits: Tensor, alpha: float = 1.0) -> Tensor:
    """LwF, per pixel: cross-entropy of the old classes' probabilities, divided by their number.

    Args:
        logits: (B, C, H, W); channels from C_o on are left out.
        old_logits: (B, C_o, H, W), constant.
        alpha: factor of the old logits.
    """
    old_classes = old_logits.shape[1]
    target = (alpha * old_logits).softmax(dim=1)
    return -(target * logits[:, :old_classes].log_softmax(dim=1)).sum(dim=1) / old_classes


def unbiased_distillation(logits: Tensor, old_logits: Tensor, alpha: float = 1.0) -> Tensor:
    """MiB, per pixel: as `distillation`, but background and new classes together stand for the old background."""
    old_classes = old_logits.shape[1]
    target = (alpha * old_logits).softmax(dim=1)
    everything = torch.logsumexp(logits, dim=1, keepdim=True)
    background = torch.logsumexp(torch.cat([logits[:, :1], logits[:, old_classes:]], dim=1), dim=1, keepdim=True)
    known = torch.cat([background, logits[:, 1:old_classes]], dim=1) - everything
    return -(target * known).sum(dim=1) / old_classes


def binary_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Per pixel: summed over the classes, each against all others."""
    target = _one_hot(logits, labels)
    summed = F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(dim=1)
    return summed.masked_fill(labels == IGNORE, 0.0)


def over_labelled(values: Tensor, labels: Tensor, reduction: str) -> Tensor:
    """Mean or sum of a map over the pixels that are not ignored."""
    total = values.masked_fill(labels == IGNORE, 0.0).sum()
    return total if reduction == "sum" else total / (labels != IGNORE).sum()


def icarl_combined(logits: Tensor, old_logits: Tensor) -> Tensor:
    """LWF-MC: number of old classes times the mean binary cross-entropy with the old network's sigmoids. Scalar."""
    old_classes = old_logits.shape[1]
    return old_classes * F.binary_cross_entropy_with_logits(logits[:, :old_classes], old_logits.sigmoid())


def icarl_disjoint(logits: Tensor, labels: Tensor, old_probabilities: Tensor, background: bool = False) -> Tensor:
    """Per pixel: binary cross-entropies summed over the classes; old classes against the old network's sigmoids.

    Nothing is left out at ignored pixels: their labels count as "none of the classes".

    Args:
        logits: (B, C, H, W).
        labels: (B, H, W).
        old_probabilities: (B, C_o, H, W) sigmoids of the old network.
        background: whether class 0 follows the labels.
    """
    target = _one_hot(logits, labels)
    first = 1 if background else 0
    target[:, first : old_probabilities.shape[1]] = old_probabilities[:, first:]
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(dim=1)


def focal(logits: Tensor, labels: Tensor, gamma: float, alpha: float = 1.0) -> Tensor:
    """Per pixel: alpha (1 - p)^gamma times the cross-entropy, p the label's probability."""
    return _focused(cross_entropy(logits, labels), gamma, alpha)


def focal_on_new(logits: Tensor, labels: Tensor, gamma: float, old_classes: int, alpha: float = 1.0) -> Tensor:
    """Per pixel: `focal` at new classes' pixels, plain cross-entropy at the others."""
    plain = cross_entropy(logits, labels)
    return torch.where(labels >= old_classes, _focused(plain, gamma, alpha), plain)


def sigmoid_distillation(logits: Tensor, old_logits: Tensor, shape: str, alpha: float = 1.0) -> Tensor:
    """(B, C_o, H, W): binary cross-entropy with the old network's sigmoids.

    Args:
        logits: (B, C, H, W).
        old_logits: (B, C_o, H, W), constant.
        shape: "trim" leaves the new channels out; "sum" puts their sum in channel 0's place.
        alpha: factor of the old logits.
    """
    old_classes = old_logits.shape[1]
    known = logits[:, :old_classes]
    if shape == "sum":
        known = torch.cat([logits[:, old_classes:].sum(dim=1, keepdim=True), known[:, 1:]], dim=1)
    return F.binary_cross_entropy_with_logits(known, (alpha * old_logits).sigmoid(), reduction="none")


def excluded_distillation(
    logits: Tensor, old_logits: Tensor, labels: Tensor, first_classes: int, temperature: float, new_slot: str
) -> Tensor:
    """Per pixel: distillation over the old classes and one slot for everything new.

    At pixels of new classes the old network's opinion about the background is moved to the new slot ("gt") or dropped
    ("sum").

    Args:
        logits: (B, C, H, W).
        old_logits: (B, C_o, H, W), constant.
        labels: (B, H, W).
        first_classes: classes of step 0.
        temperature: of the classes of the steps between the first and this one.
        new_slot: "gt": the label's logit stands in the new slot; "sum": the sum of the new channels.
    """
    old_classes = old_logits.shape[1]
    void = labels == IGNORE
    if new_slot == "gt":
        slot = logits.gather(1, labels.masked_fill(void, 0).unsqueeze(1))
    else:
        slot = logits[:, old_classes:].sum(dim=1, keepdim=True)
    student = torch.cat([logits[:, :old_classes], slot], dim=1)

    is_new = ((labels >= old_classes) & ~void).unsqueeze(1)
    moved = old_logits[:, :1] if new_slot == "gt" else torch.zeros_like(old_logits[:, :1])
    teacher = torch.cat(
        [
            old_logits[:, :1].masked_fill(is_new, 0.0),
            old_logits[:, 1:],
            moved.masked_fill(~is_new, 0.0),
        ],
        dim=1,
    )
    tau = logits.new_ones(old_classes + 1)
    if old_classes > first_classes:
        tau[first_classes:old_classes] = 1.0 / temperature
    tau = tau.view(1, -1, 1, 1)
    loss = -((tau * teacher).softmax(dim=1) * (tau * student).log_softmax(dim=1)).sum(dim=1)
    return loss.masked_fill(void, 0.0)


def soft_cross_entropy(
    logits: Tensor, labels: Tensor, old_logits: Tensor, certain: Tensor, factor: float
) -> Tensor:
    """Per pixel: cross-entropy where `certain`; elsewhere factor times the old classes' agreement.

    original: the second term has no minus sign (D20): sum over old classes of log p_old times p_new.

    Args:
        logits: (B, C, H, W).
        labels: (B, H, W).
        old_logits: (B, C_o, H, W), constant.
        certain: (B, H, W) bool.
        factor: of the second term.
    """
    old_classes = old_logits.shape[1]
    agreement = (old_logits.log_softmax(dim=1) * logits[:, :old_classes].softmax(dim=1)).sum(dim=1)
    return torch.where(certain, cross_entropy(logits, labels), factor * agreement)


def pixel_entropy(probabilities: Tensor, reduction: str = "mean") -> Tensor:
    """Per pixel: entropy divided by the logarithm of the number of classes.

    original: a mean over the classes where the paper has their sum (D1), so values are at most 1 / C.

    Args:
        probabilities: (B, C, H, W), summing to 1 over C.
        reduction: over the classes: "mean" (as released) or "sum".
    """
    terms = probabilities * torch.log(probabilities + 1e-8)
    reduced = terms.mean(dim=1) if reduction == "mean" else terms.sum(dim=1)
    return -reduced / math.log(probabilities.shape[1])


def _one_hot(logits: Tensor, labels: Tensor) -> Tensor:
    """(B, C, H, W) in the logits' dtype; ignored pixels are all 0."""
    void = labels == IGNORE
    target = torch.zeros_like(logits)
    return target.scatter_(1, labels.masked_fill(void, 0).unsqueeze(1), (~void).to(logits.dtype).unsqueeze(1))


def _focused(plain: Tensor, gamma: float, alpha: float) -> Tensor:
    return alpha * (1 - torch.exp(-plain)) ** gamma * plain
