"""Adapters: importance, compression, the functional, the regulariser, losses, rotations."""

from __future__ import annotations

import torch
from torch import Tensor

from classification.parity.building import (
    FixedBatches,
    FixedData,
    built_learner,
    columns_over_heads,
    flags_of,
    stored_tasks,
)
from classification.parity.networks import gradients
from classification.vdfd.losses import local_cross_entropy, own_head_logits
from classification.vdfd.rotation import rotate_four_ways
from common.continual.compression import Factors, functional, low_rank_factors, row_sums
from common.continual.regulariser import negative_log_determinant
from common.parity import Fixture, reproduces


def _one_pass(fixture: Fixture) -> FixedData:
    """The recorded images as the training data of whatever task is asked for; importance reads no labels."""
    images = fixture.inputs["x"]
    batches = FixedBatches(images, torch.zeros(len(images), dtype=torch.long), fixture.args["batch"])
    return FixedData({task: batches for task in range(1, fixture.args["tasks"] + 1)})


@reproduces(
    "vdfd.importance.class", "vdfd.importance.task", "vdfd.importance.class_ssl", "vdfd.ssl.multihead_importance"
)
def importance(fixture: Fixture) -> dict[str, object]:
    ssl = "ssl" in fixture.id
    with built_learner(fixture, _one_pass(fixture), ssl=ssl, **flags_of(fixture)) as learner:
        learner.start_task(_task_of(fixture))
        learner.model.eval()
        stacked = learner.measure_importance()
        rows = [parameter.shape[0] for parameter in learner.memory.parameters]
        parts = zip(learner.memory.names, stacked.split(rows), strict=True)
        outputs: dict[str, object] = {f"out.{name}": part.T for name, part in parts}
        if ssl:
            outputs |= {f"out.prototype{position}": learner.stored_prototypes(position) for position in range(2)}
        return outputs | {"args.names": learner.memory.names}


def _task_of(fixture: Fixture) -> int:
    """Task whose importance was recorded: given, or told by the range of its columns."""
    if "valid_start" in fixture.args:
        return 1 + fixture.args["valid_start"] // (fixture.args["valid_end"] - fixture.args["valid_start"])
    return fixture.args.get("task", 1)


@reproduces(
    "vdfd.svd.q1", "vdfd.svd.q2", derive=lambda outputs: {"rec": outputs["out.rec"], "sing": outputs["out.sing"]}
)
def low_rank(fixture: Fixture) -> dict[str, Tensor]:
    factors = low_rank_factors(fixture.inputs["importance"].T, fixture.args["q"], fixture.inputs["R"])
    return {
        "out.left": factors.left,
        "out.sing": factors.singular,
        "out.right": factors.right,
        "out.rec": factors.product(),
    }


@reproduces("vdfd.gw.class", "vdfd.gw.task")
def linear_functional(fixture: Fixture) -> dict[str, Tensor]:
    parts = [fixture.inputs[name] for name in ("left", "sing", "right")]
    if parts[0].dim() == 3:  # tasks along the first dimension
        products = [Factors(*(part[task] for part in parts)).product() for task in range(len(parts[0]))]
        basis = torch.stack(products, dim=1)
    else:
        basis = Factors(*parts).product()
    kinds = ("conv", "linear", "vector")
    return {f"out.gw_{kind}": functional(row_sums([fixture.inputs[f"w_{kind}"]]), basis) for kind in kinds}


def _products(outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Factors multiplied out: the signs of singular vectors are free."""
    derived = {}
    for name, value in outputs.items():
        if ".left." in name:
            others = [outputs[name.replace(".left.", f".{part}.")] for part in ("sing", "right")]
            derived[name.replace(".left.", ".rec.")] = (value * others[0].unsqueeze(-2)) @ others[1]
        elif ".right." not in name:
            derived[name] = value
    return derived


@reproduces("vdfd.after_task.class", "vdfd.after_task.task", derive=_products)
def after_task(fixture: Fixture) -> dict[str, object]:
    with built_learner(fixture, _one_pass(fixture)) as learner:
        learner.start_task(1)
        torch.manual_seed(fixture.args["seed"])
        learner.finish_task()
        task = learner.memory.tasks[0]
        outputs: dict[str, object] = {"args.storage": task.storage(), "args.names": learner.memory.names}
        per_class = fixture.id.endswith(".class")
        prefix = "out.reg0" if per_class else "out.reg"
        for name, factors in task.factors.items():
            for part, value in zip(("left", "sing", "right"), factors, strict=True):
                outputs[f"{prefix}.{part}.{name}"] = value if per_class else value.unsqueeze(0)
        return outputs | {f"{prefix}.GWstar": task.gw_star.unsqueeze(0)}


@reproduces("vdfd.reg.class_t1", "vdfd.reg.class_t3", "vdfd.reg.task_t1", "vdfd.reg.task_t3")
def regulariser(fixture: Fixture) -> dict[str, Tensor]:
    with built_learner(fixture, FixedData({})) as learner:
        learner.memory.tasks = stored_tasks(fixture, learner.memory.names)
        learner.prototypes = [learner.stored_prototypes(position) for position in range(len(learner.memory.tasks))]
        learner.set_constants()
        penalty = learner.penalty()
        penalty.backward()
        (stored,) = learner.regularised
        precision = learner.precision_of(stored)
        log_determinant = negative_log_determinant(precision, learner.config.epsilons)
        details = {"precision": precision, "prototype": stored.prototypes, "neg_logdet": log_determinant}
        if ".class_" in fixture.id:
            details = {f"{name}_last": value[-1] for name, value in details.items()}
        return {
            "out.reg": penalty,
            **{f"out.{name}": value for name, value in details.items()},
            **gradients(learner.model, "grad.model."),
            **gradients(learner.hypermodel, "grad.hypermodel."),
        }


@reproduces(
    "vdfd.loss.ce_local",
    "vdfd.loss.ce_local_temp",
    "vdfd.loss.ce_seen",
    "vdfd.loss.ce_local_ssl",
    "vdfd.loss.ce_seen_ssl",
)
def cross_entropy(fixture: Fixture) -> dict[str, Tensor]:
    args, logits = fixture.args, fixture.inputs["logits"].requires_grad_()
    start = args["valid_start"] if "local" in fixture.id else 0
    temperature = 1.0 if fixture.id.endswith("ce_seen_ssl") else args["temp"]  # original: that agent ignores it
    loss = local_cross_entropy(logits, fixture.inputs["target"], slice(start, args["valid_end"]), temperature)
    loss.backward()
    return {"out.loss": loss, "grad.logits": logits.grad}


@reproduces("vdfd.loss.ce_multihead")
def cross_entropy_per_head(fixture: Fixture) -> dict[str, Tensor]:
    logits = {name[4:]: value.requires_grad_() for name, value in fixture.inputs.items() if name.startswith("head")}
    columns = columns_over_heads(logits, fixture.inputs["target"], fixture.args["task"])
    loss = local_cross_entropy(own_head_logits(list(logits.values()), columns), columns, slice(None))
    loss.backward()
    return {"out.loss": loss, **{f"grad.head{name}": value.grad for name, value in logits.items()}}


@reproduces("vdfd.ssl.expand")
def rotations(fixture: Fixture) -> dict[str, Tensor]:
    images, target = rotate_four_ways(fixture.inputs["x"], fixture.inputs["target"])
    return {"out.x": images, "out.target": target}
