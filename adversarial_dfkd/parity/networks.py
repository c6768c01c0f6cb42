"""Adapters: networks, generators, initialisation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from adversarial_dfkd.data import FACTS
from adversarial_dfkd.networks import (
    STUDENTS,
    build_memory_generator,
    build_novel_generator,
    build_student,
    build_teacher,
    resnet34_tiny,
)
from common.backbones.classifier import StagedClassifier
from common.backbones.lenet_dafl import LeNet5
from common.parity import Fixture, disturbed, fill_by_rule, reproduces
from common.seeded_fill import fill_seeded

NETWORKS = {
    "lenet5": LeNet5,
    "lenet5half": STUDENTS["lenet"],
    "resnet18": STUDENTS["resnet18"],
    "resnet34": STUDENTS["resnet34"],
    "myresnet18": STUDENTS["resnet18_64"],
    "myresnet34": resnet34_tiny,
    **{name.replace("-", "", 1).replace("-", "_"): STUDENTS[name] for name in STUDENTS if name.startswith("wrn-")},
    "mobilenetv2": STUDENTS["mobilenet"],
    "squeezenet": STUDENTS["squeezenet"],
}
WITH_DROPOUT = ("mobilenetv2", "squeezenet")
"""Recorded in evaluation mode only."""
NET_LIMIT = 256
"""Numbers up to which a feature map, or a buffer, was recorded in full."""


def sampled(value: Tensor, limit: int) -> Tensor:
    """The tensor, or every ceil(n / limit)-th entry of the flattened one if it has more than `limit` entries."""
    count = value.numel()
    return value.flatten()[:: -(-count // limit)] if count > limit else value


def fill(fixture: Fixture, module: nn.Module, rule: str) -> nn.Module:
    """Fill by one of several rules that a recording was made with."""
    if rule == "hash":
        return fill_seeded(fixture, module, fixture.args["seed"])
    state = fill_by_rule(module.state_dict(), rule)
    if fixture.disturbance:
        state = {key: disturbed(value, fixture.disturbance, seed=k) for k, (key, value) in enumerate(state.items())}
    module.load_state_dict(state)
    return module


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@reproduces(*(f"lra.net.{name}" for name in NETWORKS if name != "wrn10_1"))
def network(fixture: Fixture) -> dict[str, Any]:
    name, x = fixture.id.split(".")[-1], fixture.inputs["x"]
    model = NETWORKS[name](**fixture.args["kwargs"])
    outputs: dict[str, Any] = {
        "args.parameters": parameters(model),
        "args.buffers": sum(buffer.numel() for buffer in model.buffers()),
        "args.state_dict_entries": len(model.state_dict()),
    }
    for rule in fixture.args["init"]:
        with torch.no_grad():
            fill(fixture, model, rule).eval()
            outputs[f"out.{rule}_eval_logits"] = model(x)
            if rule == "hash" and isinstance(model, StagedClassifier):
                stages = model.stages(x)
                outputs["args.feature_shapes"] = [list(stage.shape) for stage in stages]
                outputs |= {f"out.hash_eval_feature{i}": sampled(stage, NET_LIMIT) for i, stage in enumerate(stages)}
            if name not in WITH_DROPOUT:
                fill(fixture, model, rule).train()
                outputs[f"out.{rule}_train_logits"] = model(x)
                if rule == "hash":
                    outputs |= statistics_after(model)
    return outputs


def statistics_after(model: nn.Module) -> dict[str, Tensor]:
    """Running statistics of the first and of the last norm layer, if there is any."""
    norms = {key: layer for key, layer in model.named_modules() if isinstance(layer, nn.BatchNorm2d)}
    return {
        f"after.{key}.{name}": sampled(getattr(norms[key], name).clone(), NET_LIMIT)
        for key in [*norms][:1] + [*norms][-1:]
        for name in ("running_mean", "running_var")
    }


@reproduces("lra.net.teacher_resnet34")
def teacher(fixture: Fixture) -> dict[str, Any]:
    facts = FACTS[fixture.args["dataset"]]
    model = build_teacher("resnet34", facts.classes, facts.channels)
    fill_seeded(fixture, model, fixture.args["seed"]).eval()
    with torch.no_grad():
        stages = model.stages(fixture.inputs["x"])
        logits = model.classify(stages[-1])
    return {
        "out.logits": logits,
        "out.last_feature": stages[-1],
        "args.parameters": parameters(model),
        "args.feature_shapes": [list(stage.shape) for stage in stages],
    }


_SIZES = ("generator32", "generator64", "generator_x8")


def of_size(fixture: Fixture) -> tuple[int, int, int, int]:
    """Latent length, size, channels and upsampling of a recording."""
    upsampling = 8 if "generator_x8" in fixture.id else 4
    return fixture.args["latent_dim"], fixture.args["img_size"], FACTS[fixture.args["dataset"]].channels, upsampling


def buffers_after(module: nn.Module) -> dict[str, Tensor]:
    return {
        f"after.{name}": sampled(value.clone(), NET_LIMIT)
        for name, value in module.named_buffers()
        if not name.endswith(("num_batches_tracked", "spread"))  # the second is a constant of ours
    }


_KINDS = ("novel_sine", "novel_hash", "memory_sine", "memory_hash")


@reproduces(*(f"lra.net.{size}.{kind}" for size in _SIZES for kind in _KINDS))
def generator(fixture: Fixture) -> dict[str, Any]:
    shape = of_size(fixture)
    model = build_novel_generator(*shape) if ".novel_" in fixture.id else build_memory_generator(*shape)[0]
    fill(fixture, model, fixture.args["init"]).train()
    z, limit = fixture.inputs["z"], fixture.args["sample_limit"]
    with torch.no_grad():
        trained = model(z)
        outputs = buffers_after(model)
        evaluated = model.eval()(z)
    return outputs | {
        "out.train_images": sampled(trained, limit),
        "out.eval_images": sampled(evaluated, limit),
        "args.out_shape": list(trained.shape),
        "args.parameters": parameters(model),
    }


@reproduces(*(f"lra.net.{size}.encoder_{rule}" for size in _SIZES for rule in ("sine", "hash")))
def encoder(fixture: Fixture) -> dict[str, Any]:
    model = build_memory_generator(*of_size(fixture))[1]
    fill(fixture, model, fixture.args["init"]).train()
    images, noise = fixture.inputs["images"], fixture.inputs["eps"]
    outputs: dict[str, Any] = {"args.parameters": parameters(model)}
    for mode in ("train", "eval"):
        with torch.no_grad():
            z, mu, log_var = model.train(mode == "train")(images, noise)
        outputs |= {f"out.{mode}_mu": mu, f"out.{mode}_log_var": log_var}
        if fixture.args["init"] == "hash":  # under the other rule exp(log_var) is beyond float32
            outputs[f"out.{mode}_z"] = z
        if mode == "train":
            outputs |= buffers_after(model)
    return outputs


@reproduces("lra.init.generative_replay", "lra.init.memory_bank")
def initialisation(fixture: Fixture) -> dict[str, Tensor]:
    config = fixture.args["config"]
    facts = FACTS[config["dataset"]]
    torch.manual_seed(fixture.args["seed"])
    shape = config["latent_dim"], config["img_size"], facts.channels
    modules: dict[str, nn.Module] = {"novel_generator": build_novel_generator(*shape)}
    if fixture.id.endswith("generative_replay"):
        modules["mem_generator"], modules["encoder"] = build_memory_generator(*shape)
    modules["student"] = build_student(config["student"], config["dataset"], facts.classes, facts.channels)
    outputs = {"out.next_randn": torch.randn(4)}
    for name, module in modules.items():
        state = [value.double() for value in module.state_dict().values()]
        outputs[f"out.{name}_sum_l2"] = torch.stack([torch.stack([v.sum(), v.norm()]) for v in state])
        outputs[f"out.{name}_first"] = torch.stack([value.flatten()[0] for value in state])
    return outputs
