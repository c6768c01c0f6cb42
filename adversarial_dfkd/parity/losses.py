"""Adapters: loss terms."""

from __future__ import annotations

from torch import Tensor

from adversarial_dfkd.losses import Weights, disagreement_loss, gaussian_statistics_divergence, generator_loss
from common.losses.distillation import temperature_kl
from common.parity import Fixture, reproduces


@reproduces("lra.loss.js_divergence")
def disagreement(fixture: Fixture) -> dict[str, Tensor]:
    outputs = {}
    for case in range(fixture.args["cases"]):
        student = fixture.inputs[f"student{case}"].requires_grad_()
        teacher, temperature = fixture.inputs[f"teacher{case}"], fixture.args["temperature"]
        loss = disagreement_loss(student, teacher, temperature=temperature)
        loss.backward()
        outputs |= {f"out.loss{case}": loss, f"grad.student{case}": student.grad}
    return outputs


@reproduces("lra.loss.generator_total_default", "lra.loss.generator_total_other")
def total(fixture: Fixture) -> dict[str, Tensor]:
    args, x = fixture.args, fixture.inputs["X"].requires_grad_()
    classes = args["num_classes"]
    weights = Weights(args["oh"], args["ie"], args["a"])
    loss, adversarial = generator_loss(x[:, :classes], x[:, classes:], x @ fixture.inputs["W"], weights)
    loss.backward()
    return {"out.loss_gen": loss, "out.loss_disagreement": adversarial, "grad.X": x.grad}


@reproduces("lra.loss.kdloss_unused")
def kl(fixture: Fixture) -> dict[str, Tensor]:
    outputs = {}
    for case, temperature in enumerate(fixture.args["temperatures"]):
        student = fixture.inputs[f"student{case}"].requires_grad_()
        loss = temperature_kl(student, fixture.inputs[f"teacher{case}"], temperature)
        loss.backward()
        outputs |= {f"out.loss{case}": loss, f"grad.student{case}": student.grad}
    return outputs


@reproduces("lra.loss.bn_gaussian_unused")
def statistics(fixture: Fixture) -> dict[str, Tensor]:
    x = fixture.inputs["x"].requires_grad_()
    divergence = gaussian_statistics_divergence(x, fixture.inputs["running_mean"], fixture.inputs["running_var"])
    divergence.sum().backward()
    return {"out.per_channel": divergence, "grad.x": x.grad}
