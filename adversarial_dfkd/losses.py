"""Loss terms. Logits are (B, K), feature vectors (B, D), images (B, C, H, W) normalised; every value is a () tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from common.losses.distillation import PROBABILITY_FLOOR, jensen_shannon_agreement
from common.losses.inversion import activation_loss, negative_class_entropy, one_hot_loss

EntropyLog = Literal["log10", "ln"]
_LOGARITHMS = {"log10": torch.log10, "ln": torch.log}

TEMPERATURE = 3.0
"""Of the disagreement between teacher and student."""

KL_WEIGHT = 1e-5
"""Of the VAE's prior term."""


@dataclass(frozen=True)
class Weights:
    """Weights of the generator's terms, and their form.

    Attributes:
        oh: of the one-hot term.
        ie: of the information entropy.
        a: of the activation term.
        bn: of the norm layers' statistics; 0 in the original, which defines the term and never uses it.
        entropy_log: logarithm of the information entropy. original: base 10 (D9).
        js_floor: lower limit of probabilities in the adversarial term, 1 minus it is the upper one (D10).
    """

    oh: float = 1.0
    ie: float = 5.0
    a: float = 0.1
    bn: float = 0.0
    entropy_log: EntropyLog = "log10"
    js_floor: float = PROBABILITY_FLOOR


def disagreement_loss(
    student: Tensor, teacher: Tensor, floor: float = PROBABILITY_FLOOR, temperature: float = TEMPERATURE
) -> Tensor:
    """1 minus the clamped Jensen-Shannon divergence at a temperature, mean over all B K elements, limited to [0, 1].

    The gradient reaches the images through the student only.
    Source: gaurav104/LRA@40a8941, the adversarial term of the novel generator.
    """
    return jensen_shannon_agreement(student, teacher.detach(), temperature, "mean", floor)


def entropy_term(teacher: Tensor, logarithm: EntropyLog = "log10") -> Tensor:
    """sum_k m_k log m_k of the mean class probabilities m."""
    return negative_class_entropy(teacher, log=_LOGARITHMS[logarithm])


def generator_loss(teacher: Tensor, features: Tensor, student: Tensor, weights: Weights) -> tuple[Tensor, Tensor]:
    """What the novel generator minimises.

    Args:
        teacher: its logits.
        features: its feature vectors.
        student: its logits.
        weights: of the terms (all but `bn`).

    Returns:
        oh L_oh + ie L_ie + a L_act + L_adv, and L_adv.
    """
    adversarial = disagreement_loss(student, teacher, weights.js_floor)
    prior = weights.oh * one_hot_loss(teacher) + weights.ie * entropy_term(teacher, weights.entropy_log)
    return prior + weights.a * activation_loss(features) + adversarial, adversarial


def latent_loss(teacher: Tensor, z: Tensor, weights: Weights) -> Tensor:
    """What replayed latent vectors minimise: certain and balanced classes, and every dimension near N(0, 1).

    Args:
        teacher: (m, K) logits of the images decoded from z; m of at least 2.
        z: (m, D) latent vectors; mean and unbiased variance are over m.
    """
    spread = (z.var(dim=0) - 1).square().mean() + z.mean(dim=0).square().mean()
    return weights.ie * entropy_term(teacher, weights.entropy_log) + weights.oh * one_hot_loss(teacher) + spread


def distillation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean absolute difference of the logits, over all B K elements."""
    return F.l1_loss(student, teacher)


def autoencoder_loss(
    images: Tensor, rebuilt: Tensor, logits: Tensor, rebuilt_logits: Tensor, mu: Tensor, log_var: Tensor
) -> Tensor:
    """Mean absolute differences of images and of the teacher's logits, plus 1e-5 KL(N(mu, exp log_var) || N(0, 1)).

    Args:
        images, logits: targets, constants.
        rebuilt, rebuilt_logits: what the decoder made of them.
        mu, log_var: (B, D) of the encoder; the KL is summed over D and averaged over B.
    """
    divergence = -0.5 * (1 + log_var - mu.square() - log_var.exp()).sum(dim=1).mean()
    return F.l1_loss(rebuilt, images) + F.l1_loss(rebuilt_logits, logits) + KL_WEIGHT * divergence


def gaussian_statistics_divergence(x: Tensor, running_mean: Tensor, running_var: Tensor) -> Tensor:
    """(C,) KL(N(mean, var) || N(running_mean, running_var)) of a norm layer's input (N, C, h, w), biased variance."""
    mean = x.mean(dim=(0, 2, 3))
    variance = (x - mean[:, None, None]).square().mean(dim=(0, 2, 3))
    ratio = (variance + (mean - running_mean).square()) / running_var
    return 0.5 * (running_var.log() - variance.log()) - 0.5 * (1 - ratio)
