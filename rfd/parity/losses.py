"""Adapters: losses and their gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from common.losses.distillation import temperature_kl
from common.parity import Fixture, reproduces
from rfd import losses
from rfd.relation import RelationEmbeddings, angle_relation_loss, distance_relation_loss


def with_gradients(fixture: Fixture, names: tuple[str, ...], compute: Callable[..., Tensor]) -> dict[str, Tensor]:
    """The loss, and its gradients with respect to the named inputs."""
    inputs = {name: value.requires_grad_(name in names) for name, value in fixture.inputs.items()}
    loss = compute(**inputs)
    loss.backward()
    return {"out.loss": loss} | {f"grad.{name}": inputs[name].grad for name in names}


@reproduces("rfd.loss.dist", "rfd.loss.dist_inter", "rfd.loss.dist_intra")
def relation_distillation(fixture: Fixture) -> dict[str, Tensor]:
    args = fixture.args
    return with_gradients(
        fixture,
        ("student",),
        lambda student, teacher: losses.relation_distillation_loss(
            student, teacher, inter=args["beta"], intra=args["gamma"], temperature=args["tau"]
        ),
    )


@reproduces("rfd.loss.pearson")
def pearson(fixture: Fixture) -> dict[str, Tensor]:
    x, y = fixture.inputs["x"], fixture.inputs["y"]
    return {"out.corr": losses.pearson_correlation(x, y), "out.corr_T": losses.pearson_correlation(x.T, y.T)}


@reproduces("rfd.loss.lfd")
def feature_distillation(fixture: Fixture) -> dict[str, Tensor]:
    return with_gradients(
        fixture,
        ("hybrid_map", "new_feature"),
        lambda hybrid_map, new_feature: losses.feature_distillation_loss(hybrid_map, new_feature),
    )


@reproduces("rfd.loss.local_ce")
def local_cross_entropy(fixture: Fixture) -> dict[str, Tensor]:
    return with_gradients(
        fixture,
        ("logits",),
        lambda logits, target: losses.local_cross_entropy(logits, target, fixture.args["n_old"]),
    )


@reproduces("rfd.loss.finetune_ce")
def finetuning_cross_entropy(fixture: Fixture) -> dict[str, Tensor]:
    return with_gradients(fixture, ("logits",), losses.balanced_cross_entropy)


@reproduces("rfd.loss.hkd")
def hard_distillation(fixture: Fixture) -> dict[str, Tensor]:
    return with_gradients(fixture, ("student",), losses.hard_distillation_loss)


@reproduces("rfd.loss.rkd_angle")
def embedded_angles(fixture: Fixture) -> dict[str, Tensor]:
    embeddings = RelationEmbeddings(fixture.args["in_dim"], fixture.args["proj_dim"])
    embeddings.load_state_dict(fixture.params)
    outputs = with_gradients(fixture, ("student",), embeddings)
    return outputs | {f"grad.{name}": parameter.grad for name, parameter in embeddings.named_parameters()}


@reproduces("rfd.loss.rkd_angle_plain")
def plain_angles(fixture: Fixture) -> dict[str, Tensor]:
    return with_gradients(fixture, ("student",), angle_relation_loss)


@reproduces("rfd.loss.rkd_distance")
def distances(fixture: Fixture) -> dict[str, Tensor]:
    return with_gradients(fixture, ("student",), distance_relation_loss)


@reproduces("rfd.loss.distill_ce")
def library_distillation(fixture: Fixture) -> dict[str, Tensor]:
    temperature = fixture.args["tau"]

    def compute(student: Tensor, teacher: Tensor) -> Tensor:
        classes = min(student.shape[1], teacher.shape[1])
        return temperature_kl(student[:, :classes], teacher[:, :classes], temperature) / temperature**2

    return with_gradients(fixture, ("student",), compute)


@reproduces("rfd.abd.loss.kd")
def soft_targets_of_a_teacher(fixture: Fixture) -> dict[str, Tensor]:
    args = fixture.args
    return with_gradients(
        fixture,
        ("scores",),
        lambda scores, target_scores: losses.distillation_loss(scores, target_scores[:, : args["n_old"]], args["T"]),
    )


@reproduces("rfd.abd.loss.kd_soft")
def given_soft_targets(fixture: Fixture) -> dict[str, Tensor]:
    return with_gradients(
        fixture,
        ("scores",),
        lambda scores, target_probs: losses.soft_cross_entropy(scores, target_probs, fixture.args["T"]),
    )


def gradients(module: nn.Module, prefix: str) -> dict[str, Tensor]:
    """Gradients of the parameters that have one, by name."""
    return {f"{prefix}{name}": p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def norms(tensors: list[Tensor]) -> Tensor:
    """(n,) float32 L2 norms."""
    return torch.stack([torch.linalg.vector_norm(tensor.float()) for tensor in tensors])
