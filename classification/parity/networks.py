"""Adapters: blocks, whole networks, the hypermodel."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from classification.vdfd.optimization import backbone_names
from common.backbones.registry import build_backbone
from common.backbones.resnet_vdfd import PreActBlock, PreActBottleneck
from common.continual.hypermodel import GCN, bottleneck_gcn, normalised_adjacency, residual_gcn
from common.parity import Fixture, reproduces


def gradients(module: nn.Module, prefix: str = "grad.") -> dict[str, Tensor]:
    """Gradients of a module's parameters by name, for those that have one."""
    return {f"{prefix}{name}": p.grad for name, p in module.named_parameters() if p.grad is not None}


@reproduces("vdfd.gcn.adjacency")
def adjacency(fixture: Fixture) -> dict[str, Tensor]:
    return {f"out.{name}": normalised_adjacency(affinity) for name, affinity in fixture.inputs.items()}


@reproduces("vdfd.gcn.class_forward", "vdfd.gcn.task_forward")
def gcn_forward(fixture: Fixture) -> dict[str, Tensor]:
    args = fixture.args
    hypermodel = GCN(args["feat"], args["hidden"], args["out"], args["residual"])
    hypermodel.load_state_dict(fixture.params)
    output = hypermodel(normalised_adjacency(fixture.inputs["A"]), fixture.inputs["x"])  # recorded with raw affinities
    (output * fixture.inputs["cotangent"]).sum().backward()
    return {"out.y": output, **gradients(hypermodel)}


@reproduces("vdfd.gcn.reset")
def gcn_reset(fixture: Fixture) -> dict[str, Tensor]:
    args = fixture.args
    hypermodel = GCN(args["feat"], args["hidden"], args["out"], residual=False)
    torch.manual_seed(args["seed"])
    hypermodel.reset()
    return {f"after.{key}": value for key, value in hypermodel.state_dict().items()}


@reproduces(
    "vdfd.net.block_preact_identity",
    "vdfd.net.block_preact_down",
    "vdfd.net.block_bottleneck_identity",
    "vdfd.net.block_bottleneck_down",
)
def block(fixture: Fixture) -> dict[str, Tensor]:
    args = fixture.args
    kind = PreActBottleneck if "bottleneck" in fixture.id else PreActBlock
    module = kind(args["in_planes"], args["planes"], args.get("stride", 1))
    module.load_state_dict(fixture.params)
    module.train(args["mode"] == "train")
    images = fixture.inputs["x"].requires_grad_()
    output = module(images)
    (output * fixture.inputs["cotangent"]).sum().backward()
    statistics = {f"after.{name}": value for name, value in module.named_buffers()}
    return {"out.y": output, "grad.x": images.grad, **gradients(module), **statistics}


@reproduces("vdfd.net.resnet18_eval", "vdfd.net.resnet18_train", "vdfd.net.resnet18_ssl_eval")
def resnet18_single_head(fixture: Fixture) -> dict[str, object]:
    model = build_backbone("resnet", "resnet18")
    model.set_heads({"All": fixture.args["head_out"]})
    fixture.fill(model)
    model.train(fixture.args["mode"] == "train")
    with torch.no_grad():
        embedding = model.embed(fixture.inputs["x"])
    outputs: dict[str, object] = {"out.embedding": embedding, "out.logits_All": model.last(embedding)["All"]}
    if model.training:
        watched = ("bn_last.running_mean", "bn_last.running_var", "stage1.0.bn1.running_var")
        outputs |= {f"out.{name}": model.state_dict()[name] for name in watched}
    return outputs | _description(model, residual_gcn(model.num_features))


@reproduces("vdfd.net.resnet18_multihead", "vdfd.net.resnet50_multihead", "vdfd.net.resnet32_multihead")
def resnet_multihead(fixture: Fixture) -> dict[str, object]:
    model = build_backbone("resnet", fixture.id.split(".")[-1].split("_")[0])
    model.set_heads({str(task + 1): fixture.args["classes"] for task in range(fixture.args["tasks"])})
    fixture.fill(model)
    model.eval()
    with torch.no_grad():
        logits = torch.stack(list(model(fixture.inputs["x"]).values()))
    description = _description(model, bottleneck_gcn(model.num_features))
    description.pop("args.reg_params")  # recorded for the single-head networks only
    return {"out.logits": logits, **description}


@reproduces("vdfd.net.lenet", "vdfd.net.alexnet", "vdfd.net.mlp")
def small_network(fixture: Fixture) -> dict[str, object]:
    family = fixture.id.split(".")[-1]
    name = {"lenet": "LeNet", "alexnet": "AlexNet", "mlp": "MLP"}[family]
    model = build_backbone(family, name)
    fixture.fill(model)
    model.eval()
    with torch.no_grad():
        logits = model(fixture.inputs["x"])
    return {"out.y": logits, "args.keys": list(model.state_dict()), "args.n_params": _count(model)}


def _description(model: nn.Module, hypermodel: nn.Module) -> dict[str, object]:
    regularised = backbone_names(model)
    return {
        "args.keys": list(model.state_dict()),
        "args.n_params": _count(model),
        "args.hyper_params": _count(hypermodel),
        "args.n_reg_params": len(regularised),
        "args.reg_params": regularised,
    }


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
