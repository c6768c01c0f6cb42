"""VDFD's pieces on segmentation shapes."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import torch
from torch import Tensor

from common.backbones.abn import InPlaceABN
from common.backbones.deeplab import DeepLabV3
from common.continual.compression import Factors
from common.continual.hypermodel import GCN, normalised_adjacency
from common.parity import Fixture, reproduces
from segmentation.network import IncrementalSegmentationModule
from segmentation.options import SegmentationOptions
from segmentation.parity.modules import RecordedBody
from segmentation.vdfd import Functional, SavedStep, VdfdRegularizer, compress, importance


def small_network(weights: dict[str, Tensor], pooling: int = 32) -> IncrementalSegmentationModule:
    """Body, DeepLab head and classifier with the shapes of the given weights."""
    hidden, inputs = weights["head.map_convs.0.weight"].shape[:2]
    width = len(weights["head.red_conv.weight"])
    head = DeepLabV3(inputs, width, InPlaceABN, hidden=hidden, pooling_size=pooling)
    classes = len(weights["cls.0.weight"]) if "cls.0.weight" in weights else 1
    network = IncrementalSegmentationModule(RecordedBody(weights["body.c.weight"], maps=0), head, width, [classes])
    network.load_state_dict(weights, strict=False)
    return network


@reproduces("seg.vdfd.importance")
def class_importance(fixture: Fixture) -> dict[str, Any]:
    """Averaged gradients of the mean scores over several batches."""
    pooling = int(re.search(r"pooling_size (\d+)", fixture.args["head"]).group(1))
    network = small_network(fixture.params, pooling).eval()
    batches = [fixture.inputs[f"images{number}"] for number in range(len(fixture.inputs))]
    matrices, _ = importance(network, batches, fixture.args["param_order"])
    return {f"out.importance.{name}": matrix.T for name, matrix in matrices.items()}


@reproduces("seg.vdfd.svd")
def rank_one(fixture: Fixture) -> dict[str, Any]:
    """Randomised compression, one seed per tensor."""
    results: dict[str, Tensor] = {}
    for key, matrix in fixture.inputs.items():
        torch.manual_seed(fixture.args["seed"])
        factors, name = compress(matrix.T, 1, "lowrank"), key.removeprefix("importance.")
        results[f"out.rank1.{name}"], results[f"out.sigma.{name}"] = factors.product(), factors.singular
    return results


@reproduces("seg.vdfd.gcn", "seg.vdfd.gcn_residual")
def hypermodel(fixture: Fixture) -> dict[str, Any]:
    """The graph network on prototypes and their affinity."""
    args = fixture.args
    network = GCN(args["in_dim"], args["hid_dim"], args["out_dim"], args.get("residual", False))
    network.load_state_dict(fixture.params)
    output = network(normalised_adjacency(fixture.inputs["affinity"]), fixture.inputs["prototype"])
    output.backward(fixture.inputs["grad_out"])
    return {"out.y": output} | {f"grad.{name}": parameter.grad for name, parameter in network.named_parameters()}


@reproduces(
    "seg.vdfd.reg_loss_sum",
    "seg.vdfd.reg_loss_sum_nohead",
    "seg.vdfd.reg_loss_last",
    "seg.vdfd.reg_loss_sum_eps1e-3_f64",
    "seg.vdfd.reg_loss_sum_residual_f64",
)
def penalty(fixture: Fixture) -> dict[str, Any]:
    """The regulariser of two old domains, and its gradients."""
    args, order = fixture.args, fixture.args["param_order"]
    dtype = torch.float64 if args["float64"] else torch.float32
    inputs = {name: value.to(dtype) for name, value in fixture.inputs.items()}
    network = small_network({name: inputs[f"theta.{name}"] for name in order}).to(dtype)
    network.load_state_dict({name: inputs[f"theta.{name}"] for name in order}, strict=False)
    sizes = args["hyper"]
    config = dataclasses.replace(
        SegmentationOptions(),
        vdfd_head="rank1" if args["with_head"] else "none",
        vdfd_prototype="stored",
        vdfd_sum="last_squared" if fixture.id.endswith("_last") else "all",
        hypermodel_hid=sizes["hid_dim"],
        hypermodel_out=sizes["out_dim"],
        hypermodel_residual="on" if sizes["residual"] else "off",
        epsilons=args["eps"],
    )
    steps = [saved_step(inputs, domain, order) for domain in range(args["old_domains"])]
    regularizer = VdfdRegularizer(config, network, steps, iterations=1)
    regularizer.hypermodel.to(dtype).load_state_dict(fixture.params)
    loss = regularizer.penalty(network)
    loss.backward()
    parameters = dict(network.named_parameters())
    return {
        "out.loss": loss,
        "out.GW": Functional(steps)(network),
        **{f"grad.theta.{name}": parameters[name].grad for name in order},
        **{f"grad.hyper.{name}": p.grad for name, p in regularizer.hypermodel.named_parameters()},
    }


def saved_step(inputs: dict[str, Tensor], domain: int, names: list[str]) -> SavedStep:
    """What is recorded of an old domain."""
    factors = {
        name: Factors(*(inputs[f"{part}{domain}.{name}"] for part in ("left", "sigma", "right"))) for name in names
    }
    return SavedStep(factors, None, inputs[f"prototype{domain}"], inputs["GWstar"][domain])
