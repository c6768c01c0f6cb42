"""Adapters: losses of label maps."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

import segmentation.losses as losses
from common.parity import Fixture, reproduces


def loss_and_gradient(fixture: Fixture, loss: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """Of a loss of the logits."""
    logits = fixture.inputs["inputs"].requires_grad_()
    value = loss(logits)
    value.backward(fixture.inputs["grad_out"])
    return {"out.loss": value, "grad.inputs": logits.grad}


def reduced(values: Tensor, fixture: Fixture) -> Tensor:
    """The reduction that the recording names; means run over everything."""
    return values.mean() if fixture.args.get("reduction") == "mean" else values


@reproduces("seg.loss.unce", "seg.loss.unce_masked")
def unbiased_cross_entropy(fixture: Fixture) -> dict[str, Tensor]:
    inputs, old = fixture.inputs, fixture.args["old_cl"]
    return loss_and_gradient(
        fixture, lambda z: losses.unbiased_cross_entropy(z, inputs["labels"].long(), old, inputs.get("mask"))
    )


@reproduces("seg.loss.unkd_none", "seg.loss.unkd_mean", "seg.loss.unkd_alpha", "seg.loss.kd", "seg.loss.kd_domain")
def distillations(fixture: Fixture) -> dict[str, Tensor]:
    inputs = fixture.inputs
    function = losses.unbiased_distillation if ".unkd" in fixture.id else losses.distillation

    def loss(logits: Tensor) -> Tensor:
        values = function(logits, inputs["targets"], fixture.args["alpha"])
        return reduced(values * inputs["mask"] if "mask" in inputs else values, fixture)

    return loss_and_gradient(fixture, loss)


@reproduces("seg.loss.bce_ignore_none", "seg.loss.bce_ignore_mean", "seg.loss.bce_ignore_sum")
def binary(fixture: Fixture) -> dict[str, Tensor]:
    labels, reduction = fixture.inputs["labels"].long(), fixture.args["reduction"]

    def loss(logits: Tensor) -> Tensor:
        values = losses.binary_cross_entropy(logits, labels)
        return values if reduction == "none" else losses.over_labelled(values, labels, reduction)

    return loss_and_gradient(fixture, loss)


@reproduces("seg.loss.icarl_all", "seg.loss.icarl_bkg")
def icarl(fixture: Fixture) -> dict[str, Tensor]:
    inputs = fixture.inputs

    def loss(logits: Tensor) -> Tensor:
        values = losses.icarl_disjoint(logits, inputs["labels"].long(), inputs["output_old"], fixture.args["bkg"])
        return reduced(values, fixture)

    return loss_and_gradient(fixture, loss)


@reproduces("seg.loss.focal", "seg.loss.focal_new")
def focal(fixture: Fixture) -> dict[str, Tensor]:
    labels, args = fixture.inputs["labels"].long(), fixture.args
    if "index" in args:
        return loss_and_gradient(
            fixture, lambda z: losses.focal_on_new(z, labels, args["gamma"], args["index"], args["alpha"])
        )
    return loss_and_gradient(fixture, lambda z: losses.focal(z, labels, args["gamma"], args["alpha"]))


@reproduces("seg.loss.bce_sigmoid_trim", "seg.loss.bce_sigmoid_sum")
def sigmoid_distillation(fixture: Fixture) -> dict[str, Tensor]:
    args, old = fixture.args, fixture.inputs["targets"]
    return loss_and_gradient(fixture, lambda z: losses.sigmoid_distillation(z, old, args["shape"], args["alpha"]))


@reproduces("seg.loss.exkd_gt", "seg.loss.exkd_sum")
def excluded_distillation(fixture: Fixture) -> dict[str, Tensor]:
    args, inputs = fixture.args, fixture.inputs
    return loss_and_gradient(
        fixture,
        lambda z: losses.excluded_distillation(
            z, inputs["targets"], inputs["labels"].long(), args["initial_nb_classes"], args["temperature_semiold"],
            args["new_reduction"],
        ),
    )  # fmt: skip


@reproduces("seg.loss.soft_certain", "seg.loss.soft_uncertain")
def soft_pseudo_labels(fixture: Fixture) -> dict[str, Tensor]:
    args, inputs = fixture.args, fixture.inputs
    certain = ~inputs["mask_background"]
    if args["mode"] == "soft_uncertain":
        certain = certain | (inputs["mask_valid"] & inputs["mask_background"])
    return loss_and_gradient(
        fixture,
        lambda z: losses.soft_cross_entropy(
            z, inputs["labels"].long(), inputs["logits_old"], certain, args["pseudo_soft_factor"]
        ),
    )


@reproduces("seg.plop.entropy")
def entropy(fixture: Fixture) -> dict[str, Tensor]:
    return {"out.entropy": losses.pixel_entropy(fixture.inputs["probs"])}
