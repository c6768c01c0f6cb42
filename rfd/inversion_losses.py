"""What a generator is trained for: images on which a frozen classifier behaves as on its training images.

Shared with other papers (`common.losses.inversion`): certainty, class frequencies, moments of a layer's input and the
L2 form of the batch-norm statistics. Here: the forms that only ABD, R-DFCIL and RFD use.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from common.losses.inversion import channel_moments, negative_class_entropy

_EPS = 1e-8


def class_balance_loss(logits: Tensor) -> Tensor:
    """1 + sum_c m_c ln m_c / ln C of the batch-mean class probabilities m; 0 if all classes are as frequent.

    original: without an epsilon, NaN if a class's mean probability underflows to 0; the run then stops and says so
    (README, Deviations R16).

    Args:
        logits: (N, C) over the old classes. A single class has nothing to balance: 0.
    """
    if logits.shape[1] < 2:
        return logits.new_zeros(())
    return 1 + negative_class_entropy(logits) / math.log(logits.shape[1])


def smoothing_kernel(channels: int = 3, size: int = 5, sigma: float = 1.0) -> Tensor:
    """(channels, 1, size, size) depthwise kernel of sum 1: a product over axes of exp(-((i - middle) / (2 sigma))^2).

    original: the exponent makes the effective standard deviation sqrt(2) sigma (README, Deviations R17).
    """
    steps = torch.arange(size, dtype=torch.float32) - (size - 1) / 2
    line = torch.exp(-((steps / (2 * sigma)) ** 2))
    kernel = torch.outer(line, line)
    return (kernel / kernel.sum()).expand(channels, 1, size, size).contiguous()


def smoothness_loss(images: Tensor, kernel: Tensor) -> Tensor:
    """Mean square of (image - smoothed image); mirrored borders; the gradient passes through both.

    Args:
        images: (N, channels, H, W).
        kernel: of `smoothing_kernel`, on the same device.
    """
    pad = kernel.shape[-1] // 2
    smoothed = F.conv2d(mirrored(mirrored(images, pad, -1), pad, -2), kernel.to(images.dtype), groups=images.shape[1])
    return F.mse_loss(images, smoothed)


def mirrored(x: Tensor, pad: int, dim: int) -> Tensor:
    """`F.pad(mode="reflect")` along one axis; why not that: on CUDA it adds up its gradient in varying order."""
    size = x.shape[dim]
    return torch.cat([x.narrow(dim, 1, pad).flip(dim), x, x.narrow(dim, size - 1 - pad, pad).flip(dim)], dim)


def batch_norm_divergence(x: Tensor, running_mean: Tensor, running_var: Tensor) -> Tensor:
    """Mean over channels of the divergence between the stored Gaussian of a norm layer and that of its input.

    0.5 * mean[ln(v / (rv + eps)) + (rv + (rm - mu)^2 + eps) / v - 1], v = biased variance + eps, eps = 1e-8.

    Args:
        x: (N, C, h, w) input of the layer; its mean and variance are over N, h and w.
        running_mean, running_var: (C,) stored statistics.
    """
    mean, variance = channel_moments(x)
    variance = variance + _EPS
    ratio = (running_var + (running_mean - mean).square() + _EPS) / variance
    return 0.5 * (torch.log(variance / (running_var + _EPS)) + ratio - 1).mean()
