"""The student's update: distillation on current and replayed images, and LRA's meta-learning term.

LRA takes one imagined step on the current images ("acquire") and asks that the stepped student still knows the
replayed ones ("retain"):

    theta' = theta - alpha (d L_acq / d theta + lambda theta)        total = L_ret(theta') + L_kd(theta)

Source: arXiv 2302.14290; gaurav104/LRA@40a8941, student steps of `PREDFKDMetaAgent` and `PREDFKDMemMetaAgent`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from adversarial_dfkd.losses import distillation_loss

MetaGradient = Literal["detached", "first_order", "second_order"]

WEIGHT_DECAY = 5e-4
"""Of the student's SGD and of the imagined step."""

HELD_OUT_PART = 8
"""With `holdout`, one part in eight of the current images is kept out of the imagined step."""


@dataclass(frozen=True)
class MetaUpdate:
    """How the meta-learning term is formed.

    Attributes:
        gradient: what of it reaches the student. "detached": nothing, as in the released code, where the imagined step
            starts from copies that are not connected to the student (D1); "second_order": all of it, as the paper
            describes it; "first_order": without the Hessian of L_acq.
        rate: alpha, learning rate of the imagined step.
        holdout: step on the first 7/8 of the current images only and add the stepped student's loss on the rest
            (an alternative that the original defines and never uses).
    """

    gradient: MetaGradient
    rate: float
    holdout: bool = False


def imagined_losses(
    student: nn.Module, current: Tensor, replayed: Tensor, current_targets: Tensor, replayed_targets: Tensor,
    meta: MetaUpdate,
) -> dict[str, Tensor]:
    """Losses of the stepped student.

    Norm layers see batch statistics in both passes; what they would add to the running ones is thrown away.

    Args:
        student: in training mode; not changed.
        current: (B, C, H, W) novel images.
        replayed: (m, C, H, W) images from the memory.
        current_targets, replayed_targets: the teacher's logits.
        meta: how the loss is connected to the student.

    Returns:
        "retention", and with `holdout` "held_out": () losses; with gradient "detached" they are constants.
    """
    connected = meta.gradient != "detached"
    kept = len(current) * (HELD_OUT_PART - 1) // HELD_OUT_PART if meta.holdout else len(current)
    buffers = {name: value.clone() for name, value in student.named_buffers()}
    weights = dict(student.named_parameters())
    if not connected:
        weights = {name: value.detach().requires_grad_() for name, value in weights.items()}

    def loss_at(values: dict[str, Tensor], images: Tensor, targets: Tensor) -> Tensor:
        logits = functional_call(student, (values, buffers), (images,))
        return distillation_loss(logits.to(targets.dtype), targets)

    acquired = loss_at(weights, current[:kept], current_targets[:kept])
    slopes = torch.autograd.grad(acquired, list(weights.values()), create_graph=meta.gradient == "second_order")
    with contextlib.nullcontext() if connected else torch.no_grad():
        stepped = {
            name: value - meta.rate * (slope + WEIGHT_DECAY * value)
            for (name, value), slope in zip(weights.items(), slopes, strict=True)
        }
        terms = {"retention": loss_at(stepped, replayed, replayed_targets)}
        if meta.holdout:
            terms["held_out"] = loss_at(stepped, current[kept:], current_targets[kept:])
    return terms


def student_losses(
    student: nn.Module, current: Tensor, replayed: Tensor | None, targets: Tensor, meta: MetaUpdate | None,
    measure: bool = True,
) -> dict[str, Tensor]:
    """What a student step minimises, and what it reports.

    Args:
        student: in training mode; its running statistics move once, with all images together.
        current: (B, C, H, W) novel images.
        replayed: (m, C, H, W) images from the memory; None: there are none yet, the loss is plain.
        targets: (B + m, K) teacher's logits of both together.
        meta: None for the plain methods.
        measure: also report the meta term where it has no gradient; False leaves out that dead work.

    Returns:
        "loss" to be minimised; "kd"; where they were computed, "retention" (and "held_out"), and "total", the sum of
        all of them.
    """
    terms: dict[str, Tensor] = {}
    if meta is not None and replayed is not None and (measure or meta.gradient != "detached"):
        halves = targets.split([len(current), len(replayed)])
        terms = imagined_losses(student, current, replayed, *halves, meta)
    images = current if replayed is None else torch.cat([current, replayed])
    kd = distillation_loss(student(images).to(targets.dtype), targets)
    if terms:
        terms["total"] = sum(terms.values()) + kd
    loss = terms["total"] if terms and meta.gradient != "detached" else kd
    return {"loss": loss, "kd": kd} | terms


@contextlib.contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """No gradients for a module's weights inside; gradients still flow through it to its input."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)
