"""Adapters: activated batch norms, residual blocks, bodies, heads, classifiers."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from common.backbones.abn import ABN, InPlaceABN
from common.backbones.deeplab import DeepLabV3, ResidualBlock, ResNet
from common.parity import Fixture, reproduces
from segmentation.network import IncrementalSegmentationModule
from segmentation.parity.building import (
    described_body,
    fill,
    inplace_norm,
    parameter_gradients,
    stated_slope,
    statistics_of,
)

_ABN_IDS = [
    *(f"seg.abn.abn.{name}" for name in ("leaky_relu.train", "leaky_relu.eval", "elu.train")),
    *(
        f"seg.abn.inplace.{name}"
        for name in (
            "leaky_relu.train", "leaky_relu.eval", "slope1.train", "slope1.eval", "elu.train", "identity.train",
            "identity.eval", "no_affine.train", "momentum_eps.train",
        )
    ),
]  # fmt: skip


@reproduces(*_ABN_IDS)
def activated_norm(fixture: Fixture) -> dict[str, Tensor]:
    args = fixture.args
    make = {"ABN": ABN, "InPlaceABN": InPlaceABN}[args["cls"]]
    norm = make(
        args["shape"][1], eps=args["eps"], momentum=args["momentum"], affine=args["affine"],
        activation=args["activation"], activation_param=args["activation_param"],
    )  # fmt: skip
    norm.load_state_dict(fixture.params)
    x, y = run_norm(norm.train(args["training"]), fixture.inputs["x"], fixture.inputs["grad_out"])
    return {"out.y": y, "grad.x": x.grad} | parameter_gradients(norm) | statistics_of(norm)


def run_norm(norm: nn.Module, x: Tensor, grad_out: Tensor) -> tuple[Tensor, Tensor]:
    """Forward and backward; a copy of the input is what gets overwritten."""
    x = x.requires_grad_()
    y = norm(x.clone())
    y.backward(grad_out)
    return x, y


@reproduces("seg.abn.bn_vs_inplace")
def both_norms(fixture: Fixture) -> dict[str, Any]:
    outputs: dict[str, Any] = {}
    results = []
    for name, make in (("abn", ABN), ("inplace", InPlaceABN)):
        activation = {key: fixture.args[key] for key in ("activation", "activation_param")}
        norm = make(fixture.inputs["x"].shape[1], **activation)
        norm.load_state_dict(fixture.params, strict=False)
        x, y = run_norm(norm, fixture.inputs["x"].clone(), fixture.inputs["grad_out"])
        outputs |= {f"out.y_{name}": y, f"grad.x_{name}": x.grad}
        outputs |= {f"{key}_{name}": value for key, value in parameter_gradients(norm).items()}
        results.append((y.detach(), x.grad))
    differences = [(own - other).abs().max() for own, other in zip(*results, strict=True)]
    return outputs | {"out.max_abs_diff": torch.stack(differences)}


@reproduces("seg.abn.inplace.double_backward")
def two_backward_passes(fixture: Fixture) -> dict[str, Tensor]:
    x = fixture.inputs["x"].requires_grad_()
    norm = InPlaceABN(x.shape[1], **{key: fixture.args[key] for key in ("activation", "activation_param")})
    y = norm(x.clone())
    outputs = {}
    for number in (1, 2):
        wanted = {"x": x, "weight": norm.weight, "bias": norm.bias}
        found = torch.autograd.grad(y, list(wanted.values()), fixture.inputs[f"grad_out{number}"], retain_graph=True)
        outputs |= {f"grad.{name}{number}": value for name, value in zip(wanted, found, strict=True)}
    return outputs


# --- blocks, bodies, heads --------------------------------------------------------------------------------------------

_BLOCKS = ("bottleneck_proj_train", "bottleneck_last_train", "bottleneck_last_eval", "basic_train")


@reproduces(*(f"seg.module.residual.{name}" for name in (*_BLOCKS, "basic_proj_last_train")))
def residual_block(fixture: Fixture) -> dict[str, Tensor]:
    args = fixture.args
    norm = inplace_norm(stated_slope(args["norm"]))
    block = ResidualBlock(args["in_channels"], args["channels"], norm, args["stride"], args["dilation"], args["last"])
    block.load_state_dict(fixture.params)
    block.train(args["training"])
    x = fixture.inputs["x"].requires_grad_()
    result = block(x)
    outputs = list(result) if args["last"] else [result]
    torch.autograd.backward(outputs, [fixture.inputs[f"grad_out{k}"] for k in range(len(outputs))])
    named = {f"out.y{k}": output for k, output in enumerate(outputs)}
    return named | {"grad.x": x.grad} | parameter_gradients(block) | statistics_of(block)


_HEADS = ("train", "eval_pool_even", "eval_pool_odd", "eval_pool_larger", "eval_nopool")


@reproduces(*(f"seg.module.deeplab.{name}" for name in _HEADS))
def head(fixture: Fixture) -> dict[str, Tensor]:
    args = fixture.args
    module = DeepLabV3(
        args["in_channels"], args["out_channels"], inplace_norm(), hidden=args["hidden_channels"],
        out_stride=args["out_stride"], pooling_size=args["pooling_size"],
    )  # fmt: skip
    return run_head(module, fixture)


def run_head(module: nn.Module, fixture: Fixture) -> dict[str, Tensor]:
    """Forward and backward of a head with recorded weights."""
    module.load_state_dict(fixture.params)
    module.train(fixture.args["training"])
    x = fixture.inputs["x"].requires_grad_()
    y = module(x)
    y.backward(fixture.inputs["grad_out"])
    return {"out.y": y, "grad.x": x.grad} | parameter_gradients(module) | statistics_of(module)


@reproduces("seg.module.deeplab.init_stats")
def head_initialisation(fixture: Fixture) -> dict[str, Any]:
    args = fixture.args
    module = DeepLabV3(args["in_channels"], args["out_channels"], inplace_norm(), hidden=args["hidden_channels"])
    convolutions = [part for part in module.modules() if isinstance(part, nn.Conv2d)]
    expected = []
    for part in convolutions:
        inputs, outputs = nn.init._calculate_fan_in_and_fan_out(part.weight)
        expected.append(nn.init.calculate_gain("leaky_relu", 0.01) * (2.0 / (inputs + outputs)) ** 0.5)
    return {
        "out.std": torch.stack([part.weight.std() for part in convolutions]),
        "out.expected_std": torch.tensor(expected),
    }


_BODIES = ("basic_os16_train", "basic_os8_train", "bottleneck_os16_train", "bottleneck_os16_eval")


@reproduces(*(f"seg.module.resnet.{name}" for name in _BODIES))
def small_body(fixture: Fixture) -> dict[str, Tensor]:
    args = fixture.args
    body = ResNet(args["structure"], args["bottleneck"], inplace_norm(), args["output_stride"])
    last, maps = run_body(body, fixture)
    step = args["channel_step"]
    return {"out.y0": last[:, ::step]} | {f"out.att{k}": value[:, ::step] for k, value in enumerate(maps)}


@reproduces("seg.module.resnet101.full_eval", "seg.module.resnet101.full_train")
def large_body(fixture: Fixture) -> dict[str, Tensor]:
    args = fixture.args
    body = described_body(f"ResNet structure 3-4-23-3 bottleneck, output stride {args['output_stride']}", 0.01)
    last, maps = run_body(body, fixture)
    taps = {f"out.att{k}": value[:, :: args["att_channel_step"]] for k, value in enumerate(maps)}
    return {"out.y": last[:, :: args["y_channel_step"]]} | taps


def run_body(body: ResNet, fixture: Fixture) -> tuple[Tensor, list[Tensor]]:
    """Forward of a body filled by a rule."""
    fill(fixture, body).train(fixture.args["training"])
    with torch.no_grad():
        return body(fixture.inputs["x"])


# --- whole networks ---------------------------------------------------------------------------------------------------


class RecordedBody(nn.Module):
    """The one convolution that recordings use as a body, "4x4 stride-4"; its output serves as every stage map."""

    def __init__(self, weight: Tensor, maps: int, stride: int | None = None) -> None:
        super().__init__()
        outputs, inputs, size, _ = weight.shape
        self.c = nn.Conv2d(inputs, outputs, size, stride=stride or size, bias=False)
        self.maps = maps

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Last map and stage maps."""
        last = self.c(x)
        return last, [last] * self.maps


def recorded_network(fixture: Fixture) -> IncrementalSegmentationModule:
    """Body, head and classifiers with the recorded weights."""
    params = fixture.params
    features, hidden = params["head.pool_red_conv.weight"].shape[:2]
    stride = re.search(r"stride-(\d+)", fixture.args.get("body", ""))
    body = RecordedBody(
        params["body.c.weight"], fixture.args.get("n_attentions", 2), int(stride.group(1)) if stride else None
    )
    head = DeepLabV3(body.c.out_channels, features, inplace_norm(), hidden=hidden, pooling_size=32)
    sizes = [len(value) for key, value in params.items() if key.startswith("cls.") and key.endswith("weight")]
    network = IncrementalSegmentationModule(body, head, features, sizes, cosine="scalar" in params)
    network.load_state_dict(params)
    return network


@reproduces("seg.module.segmenter.voc", "seg.module.segmenter.domain")
def segmenter(fixture: Fixture) -> dict[str, Tensor]:
    network = recorded_network(fixture).train()
    logits, features = network(fixture.inputs["x"])
    named = {f"out.{name}": features[name] for name in ("sem_logits_small", "pre_logits", "body")}
    return {"out.sem_logits": logits} | named


@reproduces("seg.module.init_balanced.plop", "seg.module.init_balanced.cosine")
def balanced_start(fixture: Fixture) -> dict[str, Tensor]:
    network = recorded_network(fixture)
    network.start_balanced(copy_bias=True)
    return classifiers_of(network)


@reproduces("seg.rcil.init_balanced.voc")
def rcil_balanced_start(fixture: Fixture) -> dict[str, Tensor]:
    network = bare_classifiers(fixture)
    network.start_balanced(copy_bias=False)
    return classifiers_of(network)


@reproduces(*(f"seg.module.align_weight.{only}" for only in ("old", "background", "all")))
def aligned_weight(fixture: Fixture) -> dict[str, Tensor]:
    network = bare_classifiers(fixture)
    network.align_weight(fixture.args["only"])
    newest = f"after.cls.{len(network.cls) - 1}.weight"
    return {newest: classifiers_of(network)[newest]}


def bare_classifiers(fixture: Fixture) -> IncrementalSegmentationModule:
    """Recorded classifiers, without body and head."""
    weights = [value for key, value in fixture.params.items() if key.endswith("weight")]
    network = IncrementalSegmentationModule(
        nn.Identity(), nn.Identity(), weights[0].shape[1], [len(weight) for weight in weights]
    )
    network.load_state_dict(fixture.params)
    return network


def classifiers_of(network: IncrementalSegmentationModule) -> dict[str, Tensor]:
    """Their weights, as outputs."""
    return {f"after.{key}": value for key, value in network.state_dict().items() if key.startswith("cls.")}
