"""Adapters: training a generator and sampling from it."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from common.losses.inversion import batch_norm_distance
from common.parity import Fixture, reproduces
from rfd.inversion import GenerativeInversion, InversionRecipe
from rfd.inversion_losses import batch_norm_divergence, class_balance_loss, smoothing_kernel, smoothness_loss
from rfd.networks import IncrementalNetwork, frozen
from rfd.parity.building import described_abd_network, described_backbone, described_generator
from rfd.parity.losses import norms, with_gradients


@reproduces("rfd.inv.gaussian_kernel")
def kernel(fixture: Fixture) -> dict[str, Tensor]:
    args = fixture.args
    return {"out.weight": smoothing_kernel(args["channels"], args["kernel_size"], args["sigma"])}


@reproduces("rfd.inv.smooth_prior")
def smoothness(fixture: Fixture) -> dict[str, Tensor]:
    return with_gradients(fixture, ("x",), lambda x: smoothness_loss(x, smoothing_kernel(x.shape[1])))


@reproduces("rfd.inv.class_balance")
def class_balance(fixture: Fixture) -> dict[str, Tensor]:
    return with_gradients(fixture, ("logits",), class_balance_loss)


@reproduces("rfd.inv.bn_stat")
def statistics(fixture: Fixture) -> dict[str, Tensor]:
    outputs = {}
    for name, measure in (("kl", batch_norm_divergence), ("l2", batch_norm_distance)):
        x = fixture.inputs["x"].clone().requires_grad_()
        loss = measure(x, fixture.inputs["running_mean"], fixture.inputs["running_var"])
        loss.backward()
        outputs |= {f"out.{name}": loss, f"grad.x_{name}": x.grad}
    return outputs


@reproduces("rfd.abd.inv.bn_stat")
def abd_statistics(fixture: Fixture) -> dict[str, Tensor]:
    return with_gradients(fixture, ("x",), batch_norm_divergence)


@reproduces("rfd.inv.train")
def training(fixture: Fixture) -> dict[str, Tensor]:
    args = fixture.args
    teacher = _teacher(fixture)
    recipe = InversionRecipe(
        lr=args["lr"], temperature=args["tau"], smoothness=args["alpha_pr"], statistics=args["alpha_rf"]
    )
    inversion = GenerativeInversion(described_generator(fixture), teacher, teacher, recipe)
    losses, outputs = [], {}
    for number, noise in enumerate(fixture.inputs["z"]):
        terms = inversion.train_step(noise)
        losses.append(torch.stack([terms[name] for name in ("ce", "cb", "pr", "rf", "total")]))
        if number == 0:
            parameters = dict(inversion.generator.named_parameters())
            outputs["out.grad0_norm"] = norms([parameters[name].grad for name in args["grad0_norm_keys"]])
            chosen = ("conv_blocks2.3.weight", "conv_blocks2.3.bias", "conv_blocks2.1.weight", "conv_blocks1.1.bias")
            outputs |= {f"grad.{name}": parameters[name].grad.clone() for name in chosen}
    return (
        outputs
        | {"out.losses": torch.stack(losses)}
        | _after(fixture, inversion, ("conv_blocks1.1.bias", "conv_blocks0.0.running_mean"))
    )


@reproduces("rfd.inv.sample")
def sampling(fixture: Fixture) -> dict[str, Tensor]:
    teacher = _teacher(fixture)
    found = GenerativeInversion(described_generator(fixture), teacher, teacher, InversionRecipe()).sample(
        fixture.inputs["z"]
    )
    return {"out.x": found.images, "out.logits": found.logits, "out.label": found.labels}


@reproduces("rfd.abd.inv.train", base="rfd.abd.step.shared_weights")
def abd_training(fixture: Fixture) -> dict[str, Tensor]:
    args, base = fixture.args, fixture.base
    assert base is not None
    weights = base.under("old.")
    factor = re.search(r"multiplied by (\d+(?:\.\d+)?)", args["model"])
    assert factor is not None
    weights["last.weight"] = weights["last.weight"] * float(factor.group(1))
    network = described_abd_network(args["model"], len(weights["last.weight"]))
    network.load_state_dict(weights)
    teacher = frozen(network)
    recipe = InversionRecipe(
        lr=args["lr"], temperature=args["temp"], ce=args["ce_weight"], smoothness=args["prior_weight"],
        statistics=args["bn_weight"],
    )  # fmt: skip
    inversion = GenerativeInversion(
        described_generator(fixture), teacher, lambda images: teacher(images)[:, : args["n_seen"]], recipe
    )
    totals = [inversion.train_step(noise)["total"] for noise in fixture.inputs["z"]]
    return {"out.total": torch.stack(totals)} | _after(fixture, inversion, ())


def _teacher(fixture: Fixture) -> IncrementalNetwork:
    text = fixture.args["model"]
    found = re.search(r"classes \[([\d, ]+)\]", text)
    assert found is not None
    network = IncrementalNetwork(described_backbone(text))
    network.add_tasks([int(size) for size in found.group(1).split(",")])
    network.load_state_dict(fixture.under("model."))
    frozen(network)
    return network


def _after(fixture: Fixture, inversion: GenerativeInversion, more: tuple[str, ...]) -> dict[str, Tensor]:
    state = inversion.generator.state_dict()
    always = ("conv_blocks2.3.weight", "conv_blocks2.3.bias", "conv_blocks2.1.weight", "conv_blocks2.5.running_mean",
              "conv_blocks2.5.running_var")  # fmt: skip
    selected = {f"after.{name}": state[name] for name in (*always, *more)}
    return selected | {"out.after_norm": norms([state[name] for name in fixture.args["after_norm_keys"]])}
