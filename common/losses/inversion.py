"""What synthetic images are asked to do to a trained classifier. Logits are (B, K), feature vectors (B, D)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def one_hot_loss(logits: Tensor) -> Tensor:
    """Cross-entropy of the logits against their own largest class: small if the classifier is certain."""
    return F.cross_entropy(logits, logits.argmax(dim=1))


def activation_loss(features: Tensor) -> Tensor:
    """Minus the mean absolute feature."""
    return -features.abs().mean()


def negative_class_entropy(
    logits: Tensor, temperature: float = 1.0, log: Callable[[Tensor], Tensor] = torch.log
) -> Tensor:
    """sum_k m_k log m_k of the class probabilities m averaged over the batch; smallest if all classes are as frequent.

    Args:
        logits: (B, K).
        temperature: of the softmax.
        log: natural logarithm, or `torch.log10` where the original has it. No epsilon: a class mean of 0 gives NaN.
    """
    mean = F.softmax(logits / temperature, dim=1).mean(dim=0)
    return (mean * log(mean)).sum()


def total_variation(images: Tensor) -> Tensor:
    """Mean absolute difference to the right, lower, lower left and lower right neighbour, summed over the four.

    Source: zju-vipa/CMI@9e79fa9 datafree/criterions.py `get_image_prior_losses`, L1 form.
    """
    right = images[:, :, :, :-1] - images[:, :, :, 1:]
    down = images[:, :, :-1] - images[:, :, 1:]
    rising = images[:, :, 1:, :-1] - images[:, :, :-1, 1:]
    falling = images[:, :, :-1, :-1] - images[:, :, 1:, 1:]
    return sum(difference.abs().mean() for difference in (right, down, rising, falling))


def batch_norm_distance(x: Tensor, running_mean: Tensor, running_var: Tensor) -> Tensor:
    """||running_var - var||_2 + ||running_mean - mean||_2 of a norm layer's input.

    Source: zju-vipa/CMI@9e79fa9 datafree/hooks.py `DeepInversionHook`.

    Args:
        x: (B, C, h, w) input of the layer; mean and biased variance are over B, h and w.
        running_mean, running_var: (C,) statistics of the training data; constants.
    """
    mean, variance = channel_moments(x)
    return torch.linalg.vector_norm(running_var - variance) + torch.linalg.vector_norm(running_mean - mean)


def channel_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """(B, C, h, w) -> mean and biased variance per channel over B, h and w, (C,) each; differentiable once."""
    return _Moments.apply(x)


class _Moments(torch.autograd.Function):
    """(B, C, h, w) -> mean and biased variance per channel, (C,) each.

    why not torch.var: on a CPU it takes several times as long over strided dimensions; and with the gradient
    (g_mean + 2 g_var (x - mean)) / n written out, backward is one pass over the activation.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        mean = x.mean(dim=(0, 2, 3))
        centred = x - mean[:, None, None]
        ctx.save_for_backward(centred)
        return mean, centred.square().mean(dim=(0, 2, 3))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, of_mean: Tensor, of_variance: Tensor) -> Tensor:
        (centred,) = ctx.saved_tensors
        count = centred.numel() // centred.shape[1]
        constant = (of_mean / count)[:, None, None].expand_as(centred)
        return torch.addcmul(constant, centred, (2 * of_variance / count)[:, None, None])


class BatchNormTaps:
    """Listens to the inputs of all norm layers of a network, only where and while it is asked to.

    Args:
        model: the network.

    Attributes:
        layers: its BatchNorm2d layers, in the order of `modules()`.
    """

    def __init__(self, model: nn.Module) -> None:
        self.layers = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]

    @contextlib.contextmanager
    def listening(self, measure: Callable[[nn.BatchNorm2d, Tensor], Tensor]) -> Iterator[list[Tensor]]:
        """Collect measure(layer, input) of every layer, in the order in which they are called."""
        found: list[Tensor] = []

        def listen(layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            found.append(measure(layer, arguments[0]))

        handles = [layer.register_forward_pre_hook(listen) for layer in self.layers]
        try:
            yield found
        finally:
            for handle in handles:
                handle.remove()

    def distances(self) -> contextlib.AbstractContextManager[list[Tensor]]:
        """Collect `batch_norm_distance` of every layer."""
        return self.listening(
            lambda layer, x: batch_norm_distance(x.float(), layer.running_mean.detach(), layer.running_var.detach())
        )
