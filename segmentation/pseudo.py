"""Pseudo-labels for background pixels, from the old network (PLOP).

Source: arthurdouillard/CVPR2021_PLOP (commit 4b4a060) train.py, Trainer.train and Trainer.find_median. "Background" is
every pixel whose training label is below C_o, the number of old classes; ignored pixels are not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.training.errors import UserError
from segmentation.losses import IGNORE, pixel_entropy

MODES = ("naive", "confidence", "median", "entropy")
"""And threshold_<confidence>."""


@dataclass(frozen=True)
class PseudoLabels:
    """What pseudo-labelling makes of a batch.

    Attributes:
        labels: (B, H, W) rewritten labels.
        background: (B, H, W) bool: pixels that were background.
        valid: (B, H, W) bool: pixels whose pseudo-label counts; None where the mode has no such rule.
        predicted: (B, H, W) the old network's classes.
        weight: (B, H, W) weight of each pixel's loss; None: 1.
        factor: (B, 1, 1) weight of each image's loss; None: 1.
    """

    labels: Tensor
    background: Tensor
    predicted: Tensor
    valid: Tensor | None = None
    weight: Tensor | None = None
    factor: Tensor | None = None


def confidence_threshold(mode: str) -> float | None:
    """x of the mode threshold_x; None for the other modes.

    Raises:
        UserError: for an unknown mode.
    """
    if mode.startswith("threshold_"):
        try:
            return float(mode.removeprefix("threshold_"))
        except ValueError as error:
            raise UserError(f"--pseudo {mode}: expected a number after threshold_") from error
    if mode not in MODES:
        raise UserError(f"--pseudo {mode}: expected {', '.join(MODES)} or threshold_<confidence>")
    return None


def pseudo_label(
    labels: Tensor, old_logits: Tensor, config: Any, thresholds: Tensor | None, classes: int
) -> PseudoLabels:
    """Rewrite a batch's labels; `labels` itself stays as it is.

    Args:
        labels: (B, H, W).
        old_logits: (B, C_o, H, W).
        config: flags (--pseudo and those below it).
        thresholds: (C,) of the modes median and entropy.
        classes: C, all classes so far.
    """
    mode = config.pseudo
    old_classes = old_logits.shape[1]
    background = labels < old_classes
    probabilities = old_logits.softmax(dim=1)
    confidence, predicted = probabilities.max(dim=1)
    if mode == "entropy":
        assert thresholds is not None
        uncertainty = pixel_entropy(probabilities, config.entropy_reduction)
        uncertainty = uncertainty / largest_entropy(config, classes, old_classes)
        valid = uncertainty < thresholds[predicted]
        return _by_entropy(labels, background, predicted, valid, config)
    rewritten = torch.where(background, predicted, labels)
    if mode == "naive":
        return PseudoLabels(rewritten, background, predicted)
    if mode == "confidence":
        weight = torch.where(background, confidence, 1.0)
        return PseudoLabels(rewritten, background, predicted, weight=weight)
    if mode == "median":
        assert thresholds is not None
        unsure = confidence < thresholds[predicted]
    else:
        unsure = confidence < confidence_threshold(mode)
    # why: with --ce_on_pseudo the criterion sees the original labels, as in the mode entropy
    rewritten = labels if config.ce_on_pseudo else rewritten.masked_fill(background & unsure, IGNORE)
    return PseudoLabels(rewritten, background, predicted, valid=~unsure)


def _by_entropy(labels: Tensor, background: Tensor, predicted: Tensor, valid: Tensor, config: Any) -> PseudoLabels:
    """Labels of the mode entropy: the old network's class where it is sure enough, otherwise ignored."""
    chosen = background & valid
    if config.pseudo_soft == "soft_certain" or config.ce_on_pseudo:
        rewritten = labels
    elif config.pseudo_soft == "soft_uncertain":
        rewritten = torch.where(chosen, predicted, labels)
    else:
        rewritten = labels.masked_fill(background & ~valid, IGNORE)
        if config.pseudo_ablation is None:
            rewritten = torch.where(chosen, predicted, rewritten)
        elif config.pseudo_ablation == "removed_errors":
            rewritten = rewritten.masked_fill(chosen & (labels != predicted), IGNORE)
    factor = None
    if config.classif_adaptive_factor:
        share = chosen.flatten(1).sum(dim=1) / (background.flatten(1).sum(dim=1) + 1e-6)
        if config.classif_adaptive_min_factor:
            share = share.clamp(min=config.classif_adaptive_min_factor)
        factor = share.view(-1, 1, 1)
    return PseudoLabels(rewritten, background, predicted, valid, factor=factor)


def largest_entropy(config: Any, classes: int, old_classes: int) -> float:
    """ln of the class count that scales entropies.

    original: the current count, though the entropies themselves are scaled by the old one (D3).
    """
    return math.log(classes if config.entropy_classes == "current" else old_classes)


# --- thresholds -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def find_thresholds(
    batches: Iterable[tuple[Tensor, Tensor]],
    old_network: nn.Module,
    config: Any,
    classes: int,
    device: torch.device,
    sum_over_processes: Any = None,
) -> Tensor:
    """Per class the median uncertainty (entropy) or confidence (median) of the old network on background pixels.

    Args:
        batches: (images, labels), as in training; one pass.
        old_network: images -> (logits, ...), in evaluation.
        config: flags.
        classes: all classes so far.
        device: where to compute.
        sum_over_processes: adds a tensor up over all processes, in place; None: there is one.

    Returns:
        (classes,) float32. NaN where the released search divides by an empty bin (D2); nothing is below it.
    """
    bins = config.pseudo_nb_bins or (100 if config.pseudo == "entropy" else 20)
    histograms = torch.zeros(classes * bins, dtype=torch.int64, device=device)
    for images, labels in batches:
        logits = old_network(images.to(device, non_blocking=True))[0]
        probabilities = logits.softmax(dim=1)
        values, predicted = probabilities.max(dim=1)
        if config.pseudo == "entropy":
            values = pixel_entropy(probabilities, config.entropy_reduction)
            values = values / largest_entropy(config, classes, logits.shape[1])
        chosen = labels.to(device, non_blocking=True) == 0
        place = (values * bins).floor().long().clamp(max=bins - 1) + predicted * bins
        histograms.scatter_add_(0, place.flatten(), chosen.flatten().long())
    if sum_over_processes is not None:
        sum_over_processes(histograms)
    search = released_median if config.median_search == "released" else exact_median
    medians = [search(row) for row in histograms.view(classes, bins).cpu()]
    bounded = torch.stack(medians)
    base = torch.tensor(config.threshold, dtype=torch.float32)
    # why not torch.clamp: it also keeps NaN, but maximum says so
    bounded = torch.maximum(bounded, base) if config.pseudo == "entropy" else torch.minimum(bounded, base)
    return bounded.to(device)


def released_median(histogram: Tensor) -> Tensor:
    """() the released search, which adds bin numbers where counts were meant (D2); 0 for an empty histogram.

    Args:
        histogram: (bins,) int64 counts of values in [0, 1).
    """
    bins, counts = len(histogram), histogram.to(torch.float32)
    total = counts.sum()
    if total == 0:
        return torch.zeros(())
    half, running, bin = total / 2, 0.0, 0
    for bin in range(bins):
        if running <= half <= running + counts[bin]:
            break
        running += bin
    return bin / bins + (half - running) / counts[bin] / bins


def exact_median(histogram: Tensor) -> Tensor:
    """() the median, linear within its bin; 0 for an empty histogram."""
    counts = histogram.to(torch.float64)
    total = counts.sum()
    if total == 0:
        return torch.zeros(())
    below = F.pad(counts.cumsum(0), (1, 0))
    bin = int(torch.searchsorted(below[1:], total / 2))
    return ((bin + (total / 2 - below[bin]) / counts[bin]) / len(histogram)).to(torch.float32)
