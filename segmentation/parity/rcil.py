"""Adapters: RCIL's forms of block and head, merging, and the sizes of the published networks."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from common.parity import Fixture, reproduces
from segmentation.network import IncrementalSegmentationModule, build_network
from segmentation.options import SegmentationOptions
from segmentation.parity.building import (
    inplace_norm,
    parameter_gradients,
    preset_mixes,
    stated_slope,
    statistics_of,
)
from segmentation.parity.modules import run_head
from segmentation.rcil.merging import add_merge_biases, freeze_merged, merge_branches
from segmentation.rcil.network import RcilBlock, RcilDeepLabV3
from segmentation.tasks import find_task


@reproduces("seg.rcil.residual.proj_train", "seg.rcil.residual.last_train", "seg.rcil.residual.last_eval")
def residual_block(fixture: Fixture) -> dict[str, Tensor]:
    args = fixture.args
    norm = inplace_norm(stated_slope(args["norm"]))
    block = RcilBlock(args["in_channels"], args["channels"], norm, args["stride"], args["dilation"], args["last"])
    block.load_state_dict(fixture.params)
    block.train(args["training"])
    branches = watched_branches(block)
    preset_mixes(block, [fixture.inputs["r"]])
    x = fixture.inputs["x"].requires_grad_()
    result = block(x)
    y = result[0] if args["last"] else result
    y.backward(fixture.inputs["grad_out0"])
    outputs = {"out.y0": y, "grad.x": x.grad} | parameter_gradients(block) | statistics_of(block)
    return outputs | ({"out.attention": result[1], **branches} if args["last"] else {})


def watched_branches(block: RcilBlock) -> dict[str, Tensor]:
    """Filled with copies of both branches at the next forward pass."""
    kept: dict[str, Tensor] = {}
    for number, name in enumerate(("bn2", "bn2_new"), start=1):
        block.convs[name].register_forward_hook(
            lambda _module, _inputs, output, key=f"out.branch{number}": kept.__setitem__(key, output.detach().clone())
        )
    return kept


@reproduces("seg.rcil.deeplab.train", "seg.rcil.deeplab.eval")
def head(fixture: Fixture) -> dict[str, Tensor]:
    args = fixture.args
    module = RcilDeepLabV3(
        args["in_channels"], args["out_channels"], inplace_norm(1.0), hidden=args["hidden_channels"],
        out_stride=args["out_stride"], pooling_size=args["pooling_size"], gain_slope=1.0,
    )  # fmt: skip
    preset_mixes(module, [fixture.inputs["r"]])
    return run_head(module, fixture)


# --- merging ----------------------------------------------------------------------------------------------------------


@reproduces("seg.rcil.merge.residual")
def merged_block(fixture: Fixture) -> dict[str, Any]:
    params = fixture.params
    inner, inputs = params["convs.conv1.weight"].shape[:2]
    channels = (inner, params["convs.conv2.weight"].shape[0], params["convs.conv3.weight"].shape[0])
    block = RcilBlock(inputs, channels, inplace_norm(1.0))
    outputs = run_merge(block, fixture)
    hidden = nn.functional.leaky_relu(block.convs["bn1"](block.convs["conv1"](fixture.inputs["x"])), 0.01)
    with torch.no_grad():
        outputs["out.merged_branch"] = block.convs["bn2"](block.convs["conv2"](hidden))
    frozen = [name for name, value in block.named_parameters() if not value.requires_grad]
    return outputs | {"args.bn2_eps_after": block.convs["bn2"].eps, "args.requires_grad_false": frozen}


@reproduces("seg.rcil.merge.deeplab")
def merged_head(fixture: Fixture) -> dict[str, Any]:
    params = fixture.params
    hidden, inputs = params["global_pooling_conv.weight"].shape[:2]
    module = RcilDeepLabV3(inputs, params["red_bn.weight"].shape[0], inplace_norm(1.0), hidden=hidden, pooling_size=32)
    outputs = run_merge(module, fixture)
    kept = ("out.", "after.map_bn.", *(f"after.map_convs.{k}." for k in range(len(module.map_convs))))
    named = {name: value for name, value in outputs.items() if name.startswith(kept)}
    return named | {"args.map_bn_eps_after": module.map_bn.eps}


def run_merge(module: nn.Module, fixture: Fixture) -> dict[str, Any]:
    """Outputs in evaluation before and after merging; weights after it."""
    add_merge_biases(module)
    module.load_state_dict(fixture.params)
    module.eval()
    with torch.no_grad():
        before = module(fixture.inputs["x"].clone())
        merge_branches(module)
        freeze_merged(module)
        after = module(fixture.inputs["x"].clone())
    weights = {f"after.{key}": value for key, value in module.state_dict().items()}
    return {"out.y_before": before, "out.y_after_convert": after} | weights


# --- sizes ------------------------------------------------------------------------------------------------------------


def published_network(row: str, codebase: str) -> IncrementalSegmentationModule:
    """The ResNet-101 network of a row like "voc/15-5s/1", without memory for its weights."""
    dataset, task, step = row.split("/")
    config = dataclasses.replace(SegmentationOptions(), dataset=dataset, task=task, codebase=codebase)
    counts = find_task(dataset, task).classes_per_step(int(step))
    with torch.device("meta"):
        return build_network(config, counts)


def count(module: nn.Module) -> int:
    """Numbers in all parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


@reproduces("seg.module.resnet101.param_counts")
def sizes(fixture: Fixture) -> dict[str, Any]:
    rows = []
    for row in fixture.args["rows"]:
        network = published_network(row, "plop")
        found = {
            "total": count(network), "body": count(network.body), "head": count(network.head),
            "cls": count(network.cls), "state_dict_entries": len(network.state_dict()),
            "parameter_tensors": len(list(network.parameters())),
        }  # fmt: skip
        rows.append([found[column] for column in fixture.args["columns"]])
    return {"out.counts": rows}


@reproduces("seg.rcil.resnet101.param_counts")
def rcil_sizes(fixture: Fixture) -> dict[str, Any]:
    rows = []
    for row in fixture.args["rows"]:
        network = published_network(row, "rcil")
        found = {"total": count(network), "body": count(network.body), "head": count(network.head)}
        add_merge_biases(network)
        freeze_merged(network)
        found["state_dict_entries_with_biases"] = len(network.state_dict())
        found["trainable_after_freeze"] = sum(p.numel() for p in network.parameters() if p.requires_grad)
        found["bias_elements"] = count(network) - found["total"]
        rows.append([found[column] for column in fixture.args["columns"]])
    return {"out.counts": rows}
