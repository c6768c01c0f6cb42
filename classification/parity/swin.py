"""Adapters: the Swin network, its importance, compression and regulariser, its learning rates."""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from classification.parity.building import FixedBatches, FixedData
from classification.parity.networks import gradients
from classification.task_incremental.options import SwinOptions
from classification.vdfd.optimization import WarmupCosine, backbone_names, make_optimizer
from classification.vdfd.setting import TaskIncremental
from classification.vdfd.swin_learner import VDFDSwin
from classification.vdfd.variant import TASK_INCREMENTAL_CODE
from common.backbones.swin_vdfd import SwinTransformer
from common.continual.compression import Factors, MatrixFactors, draw_start, low_rank_factors, matrix_functional
from common.continual.hypermodel import bottleneck_gcn
from common.parity import Fixture, reproduces
from common.training.run import Run

_HEADS, _CLASSES, _SMALL_CLASSES = 10, 10, 3
"""Heads and their classes of the full-size recording, classes of the small importance: neither names them."""
_FORWARD_GRADIENTS = (
    "patch_embed.proj.weight",
    "layers.0.blocks.1.attn.relative_position_bias_table",
    "layers.0.blocks.1.attn.qkv.bias",
    "layers.0.downsample.reduction.weight",
    "layers.1.blocks.0.mlp.fc1.bias",
    "norm.weight",
    "last.2.weight",
)
"""The gradients that `vdfd.swin.small_forward` holds."""
_PENALTY_GRADIENTS = (
    "patch_embed.proj.weight",
    "patch_embed.proj.bias",
    "layers.0.blocks.0.norm1.weight",
    "layers.0.blocks.0.attn.relative_position_bias_table",
    "layers.0.blocks.0.attn.qkv.weight",
    "layers.1.blocks.1.mlp.fc2.weight",
    "norm.weight",
)
_HYPERMODEL_GRADIENTS = ("gcn_layer1.linear.weight", "gcn_layer2.linear.bias")
"""The gradients that `vdfd.swin.reg` holds."""


def _network(fixture: Fixture, heads: int, classes: int) -> SwinTransformer:
    """The recorded network in evaluation mode."""
    model = SwinTransformer(**fixture.args.get("config", {}))
    model.set_heads({str(task): classes for task in range(1, heads + 1)})
    fixture.fill(model)
    return model.eval()


def _chosen(grads: dict[str, Tensor], prefix: str, names: tuple[str, ...]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": grads[f"{prefix}{name}"] for name in names if f"{prefix}{name}" in grads}


@reproduces("vdfd.swin.small_forward")
def small_forward(fixture: Fixture) -> dict[str, object]:
    model = _network(fixture, fixture.args["tasks"], fixture.args["classes"])
    logits = model(fixture.inputs["x"])
    (logits["2"] * fixture.inputs["cotangent"]).sum().backward()
    regularised = backbone_names(model)
    return {
        "out.logits": torch.stack(list(logits.values())),
        "args.keys": list(model.state_dict()),
        "args.n_reg_params": len(regularised),
        "args.reg_params": regularised,
        **_chosen(gradients(model), "grad.", _FORWARD_GRADIENTS),
    }


@reproduces("vdfd.swin.tiny_forward")
def tiny_forward(fixture: Fixture) -> dict[str, object]:
    args = fixture.args
    model = _network(fixture, args.get("tasks", _HEADS), args.get("classes", _CLASSES))
    wave = torch.sin(args["f"] * torch.arange(math.prod(args["shape"]), dtype=torch.float64))
    with torch.no_grad():
        logits = model(wave.reshape(args["shape"]).to(torch.float32))
    return {
        "out.logits": torch.stack(list(logits.values())),
        "args.keys": list(model.state_dict()),
        "args.n_params": sum(parameter.numel() for parameter in model.parameters()),
        "args.hyper_params": sum(parameter.numel() for parameter in bottleneck_gcn(model.num_features).parameters()),
        "args.n_reg_params": len(backbone_names(model)),
    }


@contextlib.contextmanager
def _built_learner(fixture: Fixture, data: FixedData, classes: int) -> Iterator[VDFDSwin]:
    """A learner with the recorded weights in a run of its own, in a temporary folder; its first task has head 1."""
    eps = {"epsilons": fixture.args["eps"]} if "eps" in fixture.args else {}
    with tempfile.TemporaryDirectory() as folder:
        config = SwinOptions(output_dir=folder, **eps)
        with Run(config, method="VDFDSwin", paper="vdfd", device=torch.device("cpu"), seed=0, quiet=True) as run:
            setting = TaskIncremental([classes] * 3)
            model = _network(fixture, len(setting.sizes), classes)
            yield VDFDSwin(config, model, setting, data, run, 1.0, variant=TASK_INCREMENTAL_CODE)


@reproduces("vdfd.swin.importance", base="vdfd.swin.small_forward", needs_base=False)
def importance(fixture: Fixture) -> dict[str, object]:
    """The recording does not say how many classes there are; the one of the same network's logits does."""
    args, images = fixture.args, fixture.inputs["x"]
    others = fixture.base.args if fixture.base is not None else {}
    classes = args.get("classes", others.get("classes", _SMALL_CLASSES))
    batches = FixedBatches(images, torch.zeros(len(images), dtype=torch.long), args["batch"])
    with _built_learner(fixture, FixedData({1: batches}), classes) as learner:
        learner.start_task(1)
        learner.model.eval()
        shapes = learner.memory.shapes()
        parts = learner.measure_importance().split([math.prod(shape) for shape in shapes])
        outputs = {
            name: part.T.unflatten(1, shape)
            for name, part, shape in zip(learner.memory.names, parts, shapes, strict=True)
        }
        return {f"out.{name}": outputs[name] for name in args["kept"]} | {"args.names": learner.memory.names}


def _products(outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """What does not depend on the signs of singular vectors, which are free."""
    return {name: outputs[f"out.{name}"] for name in ("rec", "sing", "gw")}


@reproduces("vdfd.swin.svd", derive=_products)
def row_wise_factors(fixture: Fixture) -> dict[str, Tensor]:
    matrices = fixture.inputs["importance"].permute(1, 2, 0)  # (classes, rows, inputs) -> (rows, inputs, classes)
    rank = fixture.args.get("q", 1)
    torch.manual_seed(fixture.args["seed"])
    factors = low_rank_factors(matrices, rank, draw_start(matrices, rank))
    return {
        "out.left": factors.left,
        "out.sing": factors.singular,
        "out.right": factors.right,
        "out.rec": factors.product(),
        "out.gw": matrix_functional([fixture.inputs["w"]], [MatrixFactors.stack([factors])]),
    }


@reproduces("vdfd.swin.reg")
def regulariser(fixture: Fixture) -> dict[str, object]:
    inputs = fixture.inputs
    classes = inputs["reg.right.norm.weight"].shape[-1]
    with _built_learner(fixture, FixedData({}), classes) as learner:
        fixture.fill(learner.hypermodel)
        for position in range(len(inputs["reg.sing.norm.weight"])):
            factors = {
                name: Factors(*(inputs[f"reg.{part}.{name}"][position] for part in ("left", "sing", "right")))
                for name in learner.memory.names
            }
            stored = learner.memory.add(factors)
        with torch.no_grad():
            for name, parameter in learner.model.named_parameters():
                if not name.startswith("last."):
                    parameter.copy_(1.2 * parameter + 0.01)
        learner.prototypes = [learner.stored_prototypes(position) for position in range(len(learner.memory.tasks))]
        learner.set_constants()
        penalty = learner.penalty()
        penalty.backward()
        model, hypermodel = gradients(learner.model, "grad.model."), gradients(learner.hypermodel, "grad.hypermodel.")
        return {
            "out.reg": penalty,
            "args.storage": stored.storage(),
            **_chosen(model, "grad.model.", _PENALTY_GRADIENTS),
            **_chosen(hypermodel, "grad.hypermodel.", _HYPERMODEL_GRADIENTS),
        }


@reproduces("vdfd.sched.swin_cosine")
def warm_up_and_cosine(fixture: Fixture) -> dict[str, Tensor]:
    args = fixture.args
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in args["base_lr"]]
    optimizer = make_optimizer("Adam", groups)
    updates = args["iters_per_epoch"]
    schedule = WarmupCosine(
        optimizer, args["epochs"] * updates, args["warmup_epochs"] * updates, args["lr_min"], args["warmup_lr"]
    )
    rates = []
    for epoch in range(args["epochs"]):
        for _ in range(updates):
            rates.append(schedule.rates())
            schedule.step(epoch)
    return {"out.lr_per_step": torch.tensor(rates, dtype=torch.float64)}
