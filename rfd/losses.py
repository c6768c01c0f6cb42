"""Losses of RFD and of the methods beside it. Logits are (N, C), features (N, F); all results are () scalars.

Each is a mean as the originals code it, before any factor (`rfd/factors.py`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from common.backbones.staged import spatial_mean

WRD_TEMPERATURE = 4.0
_PEARSON_EPS = 1e-8


def pearson_correlation(x: Tensor, y: Tensor) -> Tensor:
    """(N,) correlation of each row of x with the same row of y; 1e-8 is added to the product of the norms."""
    x = x - x.mean(dim=1, keepdim=True)
    y = y - y.mean(dim=1, keepdim=True)
    norms = torch.linalg.vector_norm(x, dim=1) * torch.linalg.vector_norm(y, dim=1)
    return (x * y).sum(dim=1) / (norms + _PEARSON_EPS)


def relation_distillation_loss(
    student: Tensor, teacher: Tensor, *, inter: float = 1.0, intra: float = 1.0, temperature: float = WRD_TEMPERATURE
) -> Tensor:
    """Weak-constraint relation distillation (WRD).

    inter * (1 - mean over samples of the correlation over classes)
    + intra * (1 - mean over classes of the correlation over samples), of the softened probabilities. No T^2.

    Source: S2VTouser/RFD@ede67fa `DIST`; the paper's text and figure speak of the second term only, the code has both
        with equal weights (README, Deviations R6).

    Args:
        student, teacher: (N, n_old) logits of the old classes; the teacher's are constants.
        inter, intra: weights of the two terms.
        temperature: of both softmaxes.
    """
    p = F.softmax(student / temperature, dim=1)
    q = F.softmax(teacher / temperature, dim=1)
    loss = 0.0
    if inter:
        loss = loss + inter * (1 - pearson_correlation(p, q).mean())
    if intra:
        loss = loss + intra * (1 - pearson_correlation(p.T, q.T).mean())
    return loss if isinstance(loss, Tensor) else p.new_zeros(())


def feature_distillation_loss(hybrid_map: Tensor, features: Tensor) -> Tensor:
    """Low-level feature distillation (LFD): mean over N F of (spatial mean of the hybrid map - features)^2.

    Args:
        hybrid_map: (N, F, h, w), the new network's later stages on the OLD network's first stage.
        features: (N, F) of the ordinary pass on the same images. The gradient reaches both.
    """
    return F.mse_loss(spatial_mean(hybrid_map), features)


def local_cross_entropy(logits: Tensor, target: Tensor, n_old: int) -> Tensor:
    """Cross-entropy over the classes from `n_old` on; targets count from 0 over all classes."""
    return F.cross_entropy(logits[:, n_old:], target - n_old)


def balanced_cross_entropy(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy over all classes with class weights, sum(w ce) / sum(w)."""
    return F.cross_entropy(logits, target, weight=weight)


def hard_distillation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """R-DFCIL's HKD: mean over N n_old of the absolute difference of logits."""
    return F.l1_loss(student, teacher)


def soft_cross_entropy(logits: Tensor, target_probabilities: Tensor, temperature: float) -> Tensor:
    """ABD's distillation: - sum_c q_c log softmax(logits / T)_c, mean over samples, no T^2.

    Source: GT-RIPL/AlwaysBeDreaming-DFCIL@9295039 learners (`loss_fn_kd`); its data weights are ignored there.
    """
    return -(target_probabilities * F.log_softmax(logits / temperature, dim=1)).sum(dim=1).mean()


def distillation_loss(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """`soft_cross_entropy` over the teacher's classes against softmax(teacher / T).

    Args:
        logits: (N, C), C at least as many as the teacher has.
        teacher: (N, n) logits.
    """
    return soft_cross_entropy(logits[:, : teacher.shape[1]], F.softmax(teacher / temperature, dim=1), temperature)


def padded_probabilities(teacher: Tensor, classes: int, temperature: float) -> Tensor:
    """(N, classes) softmax(teacher / T), zeros for the classes that the teacher does not know."""
    return F.pad(F.softmax(teacher / temperature, dim=1), (0, classes - teacher.shape[1]))


def weighted_cross_entropy(logits: Tensor, target: Tensor, sample_weight: Tensor | float = 1.0) -> Tensor:
    """Mean over N of weight * cross-entropy; not divided by the weights' sum (ABD)."""
    if not isinstance(sample_weight, Tensor) and sample_weight == 1.0:
        return F.cross_entropy(logits, target)
    return (F.cross_entropy(logits, target, reduction="none") * sample_weight).mean()


def multi_class_binary_loss(logits: Tensor, target: Tensor, teacher: Tensor | None) -> Tensor:
    """LwF.MC: sigmoid cross-entropy, summed over samples and classes, divided by the samples.

    Args:
        logits: (N, C) of all classes seen.
        target: (N,) labels, one-hot; the teacher's columns are replaced by its sigmoid outputs.
        teacher: (N, n_old) logits; None for the first task.
    """
    wanted = F.one_hot(target, logits.shape[1]).to(logits.dtype)
    if teacher is not None:
        wanted = torch.cat([torch.sigmoid(teacher), wanted[:, teacher.shape[1] :]], dim=1)
    return F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum") / len(logits)
