"""Adapters: backbones, generators, heads."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from common.backbones import resnet_abd
from common.backbones.heads import Backbone
from common.backbones.resnet_cllite import CifarResNet, ImageNetResNet18
from common.backbones.staged import StagedBackbone
from common.parity import Fixture, reproduces
from rfd.heads import DynamicHead
from rfd.networks import build_backbone, build_generator
from rfd.parity.building import statistics_of, summary


@reproduces("rfd.net.resnet32_cifar", "rfd.net.resnet_cifar_small")
def cifar_backbone(fixture: Fixture) -> dict[str, object]:
    args = fixture.args
    network = CifarResNet(args["n"], args["nf"]) if "n" in args else build_backbone("cifar100")
    outputs, stages = _backbone_outputs(fixture, network)
    with torch.no_grad():
        again = network.from_first_stage(stages[0])
    return outputs | {
        "out.flag_stage1": stages[0],
        "out.flag_stage2_mean": stages[1].mean(dim=(2, 3)),
        "out.flag_stage3_mean": stages[2].mean(dim=(2, 3)),
        "out.get_features_of_stage1": again,
    }


@reproduces("rfd.net.resnet18")
def imagenet_backbone(fixture: Fixture) -> dict[str, object]:
    network = build_backbone("imagenet100")
    assert isinstance(network, ImageNetResNet18)
    outputs, stages = _backbone_outputs(fixture, network)
    return outputs | {f"out.flag_l{number}_mean": stages[number - 1].mean(dim=(2, 3)) for number in (1, 2, 3)}


@reproduces("rfd.net.resnet32_init")
def initial_weights(fixture: Fixture) -> dict[str, object]:
    torch.manual_seed(fixture.args["seed"])
    state = build_backbone("cifar100").state_dict()
    weights = [key for key in state if key.endswith(".weight")]
    return {
        "out.summary": summary(state),
        "args.keys": list(state),
        "args.zero_initialised": [key for key in weights if not state[key].any()],
    }


@reproduces("rfd.abd.net.resnet32", "rfd.abd.net.resnet18")
def abd_backbone(fixture: Fixture) -> dict[str, object]:
    build = resnet_abd.resnet32 if fixture.id.endswith("resnet32") else resnet_abd.resnet18
    network: Backbone = build(fixture.args["out_dim"])
    fixture.fill(network)
    images = fixture.inputs["x"]
    with torch.no_grad():
        network.eval()
        outputs: dict[str, object] = {"out.logits_eval": network(images), "out.pen_eval": network.embed(images)}
        outputs["out.logits_train"] = network.train()(images)
    return outputs | {"args.n_params": _parameters(network)}


@reproduces("rfd.gen.cifar", "rfd.gen.tiny_imagenet", "rfd.gen.imagenet")
def generator(fixture: Fixture) -> dict[str, object]:
    size = {"cifar": 32, "tiny_imagenet": 64, "imagenet": 224}[fixture.id.rpartition(".")[2]]
    network = build_generator(size, fixture.args["zdim"])
    fixture.fill(network)
    stride, outputs = fixture.args["stride"], {}
    with torch.no_grad():
        for mode in ("train", "eval"):
            images = network.train(mode == "train")(fixture.inputs["z"])
            outputs[f"out.{mode}_strided"] = images[:, :, ::stride, ::stride]
            outputs[f"out.{mode}_stats"] = torch.stack([images.mean(), images.std(), images.abs().max()])
    shape = list(images.shape)
    return outputs | {
        "out.bn_after_summary": summary(statistics_of(network)),
        "args.n_params": _parameters(network),
        "args.shape": shape,
    }  # fmt: skip


@reproduces("rfd.head.dynamic_two_linear", "rfd.head.dynamic_simple", "rfd.head.dynamic_cosine")
def head(fixture: Fixture) -> dict[str, Tensor]:
    kinds = {"dynamic_two_linear": "two_linear", "dynamic_simple": "linear", "dynamic_cosine": "cosine"}
    args, x = fixture.args, fixture.inputs["x"]
    built = DynamicHead(args["num_features"], kinds[fixture.id.rpartition(".")[2]], args.get("bias", False))
    for classes in args["classes"]:
        built.append(classes)
    built.load_state_dict({key: value.reshape(built.state_dict()[key].shape) for key, value in fixture.params.items()})
    with torch.no_grad():
        outputs = {"out.logits": built(x)}
        return outputs if built.kind == "cosine" else outputs | {"out.feature": built.pool(x)}


@reproduces("rfd.head.init", "rfd.head.init_upstream")
def initial_head(fixture: Fixture) -> dict[str, Tensor]:
    args = fixture.args
    torch.manual_seed(args["seed"])
    kind = "linear" if fixture.id.endswith("upstream") else "two_linear"
    built = DynamicHead(args["num_features"], kind, args["bias"])
    for classes in args["classes"]:
        built.append(classes)
    return {f"out.{key}": value for key, value in built.state_dict().items()}


def _backbone_outputs(fixture: Fixture, network: StagedBackbone) -> tuple[dict[str, object], list[Tensor]]:
    fixture.fill(network)
    images = fixture.inputs["x"]
    with torch.no_grad():
        evaluated = network.eval()(images)
        trained = network.train()(images)
        statistics = summary(statistics_of(network))
        stages = network.eval().stage_outputs(images)
    outputs: dict[str, object] = {"out.eval": evaluated, "out.train": trained, "out.bn_after_summary": statistics}
    counts = {"args.n_params": _parameters(network), "args.n_state": len(network.state_dict())}
    return outputs | counts, stages


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
