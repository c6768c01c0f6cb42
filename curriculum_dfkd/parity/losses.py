"""Adapters: loss terms and the curriculum."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from common.losses.distillation import clamped_jensen_shannon, jensen_shannon_agreement, temperature_kl
from common.losses.inversion import (
    BatchNormTaps,
    activation_loss,
    batch_norm_distance,
    negative_class_entropy,
    one_hot_loss,
    total_variation,
)
from common.parity import Fixture, reproduces
from common.seeded_fill import fill_seeded
from curriculum_dfkd.curriculum import KINDS, Pace, pace_of, self_paced_weight, student_losses, weighted_loss
from curriculum_dfkd.networks import build_network
from curriculum_dfkd.synthesis.contrast import ContrastiveHead, contrastive_loss, supervised_contrast
from curriculum_dfkd.synthesis.generative import agreement_mask, decision_adversarial_loss

Term = Callable[..., Tensor]


def value_and_gradient(loss: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
    """The loss and its gradients; 0 where none arrives."""
    loss.backward(retain_graph=True)
    gradients = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad.clone() for leaf in leaves]
    for leaf in leaves:
        leaf.grad = None
    return loss, *gradients


@reproduces("cudfkd.loss.kldiv_t1", "cudfkd.loss.kldiv_t3", "cudfkd.loss.kldiv_t20")
def kl(fixture: Fixture) -> dict[str, Tensor]:
    logits, targets = fixture.inputs["logits"].requires_grad_(), fixture.inputs["targets"]
    outputs = {}
    for reduction in ("batchmean", "none", "sum", "mean"):
        value = temperature_kl(logits, targets, fixture.args["T"], reduction)
        weights = torch.linspace(-1, 1, value.numel()).view(value.shape) if reduction == "none" else 1.0
        _, gradient = value_and_gradient((value * weights).sum(), logits)
        outputs |= {f"out.{reduction}": value, f"grad.logits_{reduction}": gradient}
    return outputs


@reproduces("cudfkd.loss.jsdiv_t1", "cudfkd.loss.jsdiv_t3")
def js(fixture: Fixture) -> dict[str, Tensor]:
    logits, targets = fixture.inputs["logits"].requires_grad_(), fixture.inputs["targets"]
    temperature = fixture.args["T"]
    value, gradient = value_and_gradient(clamped_jensen_shannon(logits, targets, temperature), logits)
    agreement, of_agreement = value_and_gradient(jensen_shannon_agreement(logits, targets, temperature), logits)
    return {
        "out.js": value, "grad.logits": gradient, "out.adv_js_cudfkd": agreement, "grad.logits_adv": of_agreement,
    }


@reproduces("cudfkd.loss.onehot")
def one_hot(fixture: Fixture) -> dict[str, Tensor]:
    return _of_one(fixture, "logits", one_hot_loss)


@reproduces("cudfkd.loss.class_balance")
def class_balance(fixture: Fixture) -> dict[str, Tensor]:
    return _of_one(fixture, "logits", negative_class_entropy)


@reproduces("cudfkd.loss.entropy")
def entropy(fixture: Fixture) -> dict[str, Tensor]:
    return _of_one(fixture, "logits", lambda logits: -negative_class_entropy(logits, fixture.args["T"]))


@reproduces("cudfkd.loss.activation")
def activation(fixture: Fixture) -> dict[str, Tensor]:
    return _of_one(fixture, "features", activation_loss)


@reproduces("cudfkd.loss.tv")
def variation(fixture: Fixture) -> dict[str, Tensor]:
    return _of_one(fixture, "x", total_variation)


@reproduces("cudfkd.loss.l2")
def frobenius(fixture: Fixture) -> dict[str, Tensor]:
    return _of_one(fixture, "x", torch.linalg.vector_norm)


@reproduces("cudfkd.loss.l1_logits")
def l1_logits(fixture: Fixture) -> dict[str, Tensor]:
    student = fixture.inputs["s"].requires_grad_()
    loss = student_losses("l1", student, fixture.inputs["t"], temperature=1.0, per_sample=False)
    loss, gradient = value_and_gradient(loss, student)
    return {"out.loss": loss, "grad.s": gradient}


@reproduces("cudfkd.loss.adv_kl_cudfkd", "cudfkd.loss.adv_kl_cmi")
def decision_adversarial(fixture: Fixture) -> dict[str, Tensor]:
    student, teacher = (fixture.inputs[name].requires_grad_() for name in ("s_logits", "t_logits"))
    loss = decision_adversarial_loss(student, teacher, fixture.args["T"])
    loss, of_student, of_teacher = value_and_gradient(loss, student, teacher)
    return {
        "out.mask": agreement_mask(student, teacher), "out.loss": loss, "grad.s_logits": of_student,
        "grad.t_logits": of_teacher,
    }


@reproduces("cudfkd.loss.bn_hook")
def norm_layer(fixture: Fixture) -> dict[str, Tensor]:
    mean, variance = fixture.inputs["running_mean"], fixture.inputs["running_var"]
    return _of_one(fixture, "x", lambda x: batch_norm_distance(x, mean, variance))


@reproduces("cudfkd.loss.bn_net")
def norm_layers(fixture: Fixture) -> dict[str, Tensor]:
    model = build_network(fixture.args["net"], fixture.args["num_classes"]).eval()
    fill_seeded(fixture, model, fixture.args["seed"])
    images = fixture.inputs["x"].requires_grad_()
    with BatchNormTaps(model).distances() as distances:
        model(images)
    loss, gradient = value_and_gradient(sum(distances), images)
    return {"out.per_layer": torch.stack(distances), "out.loss": loss, "grad.x": gradient}


@reproduces("cudfkd.loss.contrastive_empty", "cudfkd.loss.contrastive_bank")
def contrast(fixture: Fixture) -> dict[str, Tensor]:
    last = fixture.params["head.2.weight"]
    head = ContrastiveHead(last.shape[1], last.shape[0])
    head.load_state_dict(fixture.params)
    local, wide = (fixture.inputs[name].requires_grad_() for name in ("local", "global"))
    result = contrastive_loss(head, local, wide, fixture.inputs["bank"], fixture.args["cr_T"])
    loss, of_local, of_wide = value_and_gradient(result.loss, local, wide)
    outputs = {"out.proj": torch.cat([result.local, result.wide]), "out.per_row": result.per_row, "out.loss": loss}
    outputs |= {"grad.local": of_local, "grad.global": of_wide}
    return outputs | {f"grad.{name}": parameter.grad for name, parameter in head.named_parameters()}


@reproduces("cudfkd.loss.supcon_one", "cudfkd.loss.supcon_all")
def supervised(fixture: Fixture) -> dict[str, Tensor]:
    args, features = fixture.args, fixture.inputs["features"].requires_grad_()
    result = supervised_contrast(features, args["temperature"], args["base_temperature"], args["mode"])
    _, gradient = value_and_gradient(result.loss.mean(), features)
    return {"out.loss": result.loss, "out.logits": result.logits, "grad.features": gradient}


@reproduces("cudfkd.curriculum.v_hard", "cudfkd.curriculum.v_soft", "cudfkd.curriculum.v_log")
def weights(fixture: Fixture) -> dict[str, Tensor]:
    kind, losses = f"curr_{fixture.args['type']}", fixture.inputs["l"]
    outputs = {}
    for number, threshold in enumerate(fixture.args["lambdas"]):
        together = self_paced_weight(kind, losses, threshold)
        alone = [self_paced_weight(kind, loss, threshold) for loss in losses]
        outputs |= {
            f"out.v_{number}": together.v,
            f"out.g_{number}": together.g,
            f"out.vscalar_{number}": torch.stack([one.v for one in alone]),
            f"out.gscalar_{number}": torch.stack([one.g for one in alone]),
        }
    return outputs


@reproduces("cudfkd.curriculum.lambda")
def threshold(fixture: Fixture) -> dict[str, list[float]]:
    return {
        f"out.{dataset}_{lambda_0:g}": [
            Pace(lambda_0, pace_of(dataset)).at(iteration) for iteration in fixture.inputs["iter"].tolist()
        ]
        for dataset in ("cifar10", "cifar100")
        for lambda_0 in fixture.args["lambda_0"]
    }


@reproduces("cudfkd.curriculum.kd_kl_a", "cudfkd.curriculum.kd_l1_a", "cudfkd.curriculum.kd_kl_b")
def weighted(fixture: Fixture) -> dict[str, Tensor]:
    args, kind = fixture.args, f"curr_{fixture.args['type']}"
    assert kind in KINDS
    student, outputs = fixture.inputs["s"].requires_grad_(), {}
    for level in ("batch", "sample"):
        losses = student_losses(args["loss"], student, fixture.inputs["t"], args["T"], per_sample=level == "sample")
        result = weighted_loss(kind, losses, args["lambda"])
        _, gradient = value_and_gradient(result.loss, student)
        outputs |= {
            f"out.{level}_l": losses,
            f"out.{level}_v": self_paced_weight(kind, losses.detach(), args["lambda"]).v,
            f"out.{level}_loss": result.loss,
            f"grad.s_{level}": gradient,
        }
    return outputs


def _of_one(fixture: Fixture, name: str, term: Term) -> dict[str, Tensor]:
    leaf = fixture.inputs[name].requires_grad_()
    loss, gradient = value_and_gradient(term(leaf), leaf)
    return {"out.loss": loss, f"grad.{name}": gradient}
