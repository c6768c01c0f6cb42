"""Adapters: classifiers, generators, initialisation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from common.backbones.generators_cmi import (
    ImageGenerator,
    cudfkd_generator,
    large_generator,
    redraw_generator,
    small_generator,
)
from common.parity import Fixture, reproduces
from common.seeded_fill import fill_seeded
from curriculum_dfkd.networks import build_network

NAMES = ("wrn16_1", "wrn16_2", "wrn40_1", "wrn40_2", "resnet18", "resnet34", "vgg11", "vgg8", "resnet8x4")
GRADIENT_RECORDED = ("wrn16_1", "vgg8", "resnet8x4")
"""Networks whose image gradient was recorded."""


def probe(output: Tensor) -> Tensor:
    """sum of the output times sin(0.7 j), j over the flattened output."""
    weights = torch.sin(0.7 * torch.arange(output.numel(), dtype=torch.float64)).to(output.dtype)
    return (output.flatten() * weights).sum()


def statistics(module: nn.Module, kind: str) -> Tensor:
    """Sum of each norm layer's running mean or variance, in the order of the state dict."""
    return torch.stack([value.sum() for key, value in module.state_dict().items() if key.endswith(kind)])


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@reproduces(*(f"cudfkd.{kind}.{name}" for kind in ("net", "net_hash") for name in NAMES))
def network(fixture: Fixture) -> dict[str, object]:
    model = build_network(fixture.args["net"], fixture.args["num_classes"])
    if fixture.args["init"] == "hash":
        fill_seeded(fixture, model, fixture.args["seed"])
    else:
        fixture.fill(model)
    images = fixture.inputs["x"].requires_grad_()
    with torch.no_grad():
        eval_logits, eval_features = model.eval().with_features(images)
    train_logits, train_features = model.train().with_features(images)
    outputs: dict[str, object] = {
        "out.eval_logits": eval_logits,
        "out.eval_features": eval_features,
        "out.train_logits": train_logits,
        "out.train_features": train_features,
        "out.running_mean_sum": statistics(model, "running_mean"),
        "out.running_var_sum": statistics(model, "running_var"),
        "args.n_params": count(model),
    }
    if ".net_hash." in fixture.id and fixture.args["net"] in GRADIENT_RECORDED:
        probe(train_logits).backward()
        outputs["grad.x"] = images.grad
    return outputs


def build_generator(kind: str, nz: int, ngf: int, img_size: int) -> ImageGenerator:
    if kind.startswith("cudfkd_d"):
        return cudfkd_generator(nz, ngf, img_size, depth=int(kind[-1]))
    return {"large": large_generator, "small": small_generator}[kind](nz, ngf, img_size)


@reproduces(
    "cudfkd.gen.large_tiny", "cudfkd.gen.large_full", "cudfkd.gen.small_tiny", "cudfkd.gen.small_full",
    "cudfkd.gen.cudfkd_d2_tiny", "cudfkd.gen.cudfkd_d2_full", "cudfkd.gen.cudfkd_d3_tiny",
)  # fmt: skip
def generator(fixture: Fixture) -> dict[str, object]:
    kind, size = fixture.id.split(".")[-1].rsplit("_", 1)
    model = build_generator(kind, fixture.args["nz"], fixture.args["ngf"], fixture.args["img_size"])
    fill_seeded(fixture, model, fixture.args["seed"])
    z = fixture.inputs["z"].requires_grad_()
    with torch.no_grad():
        evaluated = model.eval()(z)
    trained = model.train()(z)
    probe(trained).backward()
    outputs: dict[str, object] = {
        "out.eval": evaluated, "out.train": trained, "grad.z": z.grad, "args.n_params": count(model),
    }
    if size == "tiny":
        first = next(name for name, _ in model.named_parameters())  # the linear weight is too large to be recorded
        outputs |= {f"grad.{name}": p.grad for name, p in model.named_parameters() if name != first}
        outputs |= {f"after.{name}": value for name, value in model.named_buffers() if "running" in name}
    return outputs


@reproduces("cudfkd.init.wrn16_1", "cudfkd.init.wrn40_2", "cudfkd.init.resnet18", "cudfkd.init.vgg11")
def initialisation(fixture: Fixture) -> dict[str, Tensor]:
    torch.manual_seed(fixture.args["torch_seed"])
    model = build_network(fixture.id.split(".")[-1], fixture.args["num_classes"])
    flat = [parameter.detach().flatten() for parameter in model.parameters()]
    return {
        "out.head": torch.stack([values[:3] for values in flat]),
        "out.sum": torch.stack([values.sum() for values in flat]),
        "out.abssum": torch.stack([values.abs().sum() for values in flat]),
    }


@reproduces("cudfkd.init.generator_reset")
def generator_reset(fixture: Fixture) -> dict[str, Tensor]:
    torch.manual_seed(fixture.args["torch_seed"])
    model = cudfkd_generator(fixture.args["nz"], fixture.args["ngf"])
    redraw_generator(model)
    outputs = {f"out.{name}": value for name, value in model.named_parameters() if name != "project.1.weight"}
    weight = model.project[1].weight
    return outputs | {"out.project_sum": weight.sum(), "out.project_head": weight.flatten()[:8]}
