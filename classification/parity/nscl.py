"""Adapters: the baseline Adam-NSCL."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from classification.adam_nscl.learner import AdamNSCL
from classification.adam_nscl.optimizer import ProjectedAdam
from classification.adam_nscl.projection import null_space_basis, projection_onto
from classification.parity.building import FixedBatches, FixedData
from classification.task_incremental.options import TaskIncrementalOptions
from classification.vdfd.setting import TaskIncremental
from common.backbones.registry import build_backbone
from common.parity import Fixture, reproduces
from common.training.run import Run


@contextlib.contextmanager
def _built_learner(fixture: Fixture, task: int, **flags: Any) -> Iterator[AdamNSCL]:
    """A learner with the recorded weights and images, before `task`, in a run of its own in a temporary folder."""
    args, images, target = fixture.args, fixture.inputs["x"], fixture.inputs["target"]
    data = FixedData({task: FixedBatches(images, target, args.get("batch", len(images)))})
    with tempfile.TemporaryDirectory() as folder:
        config = TaskIncrementalOptions(**flags, output_dir=folder)
        with Run(config, method="Adam-NSCL", paper="vdfd", device=torch.device("cpu"), seed=0, quiet=True) as run:
            setting = TaskIncremental([args["classes_per_task"]] * args["tasks"])
            model = build_backbone("resnet", "resnet18", widths=args["widths"], blocks=args["blocks"])
            model.set_heads(setting.heads(), bias=AdamNSCL.head_bias)
            model.load_state_dict(fixture.params)
            yield AdamNSCL(config, model, setting, data, run, args.get("reg_coef", 1.0))


@reproduces("vdfd.nscl.after_task")
def after_task(fixture: Fixture) -> dict[str, Tensor]:
    with _built_learner(fixture, 1) as learner:
        learner.start_task(1)
        learner.finish_task()
        sizes = [parameter.numel() for parameter in learner.batch_norms.values()]
        importance = torch.stack(learner.ewc_importance).split(sizes, dim=1)
        return {
            **{f"out.cov.{name}": moment for name, moment in learner.moments.items()},
            **{f"out.ewc.{name}": part for name, part in zip(learner.batch_norms, importance, strict=True)},
        }


@reproduces("vdfd.nscl.projection")
def projection(fixture: Fixture) -> dict[str, Tensor]:
    basis = null_space_basis(fixture.inputs["cov"], fixture.args["thres"])
    return {"out.P": projection_onto(basis), "out.kept": torch.tensor(basis.shape[1])}


@reproduces("vdfd.nscl.optimizer")
def projected_adam(fixture: Fixture) -> dict[str, Tensor]:
    args, inputs = fixture.args, fixture.inputs
    weight, vector = nn.Parameter(inputs["w"]), nn.Parameter(inputs["b"])
    groups = [
        {"params": [weight], "lr": args["lr_conv"], "weight_decay": args["weight_decay_conv"]},
        {"params": [vector], "lr": args["lr_vector"], "weight_decay": args["weight_decay_vector"]},
    ]
    optimizer = ProjectedAdam(groups, {weight: inputs["P"]}, betas=tuple(args["betas"]), eps=args["eps"])
    after_each = []
    for weight.grad, vector.grad in zip(inputs["gw"], inputs["gb"], strict=True):
        optimizer.step()
        after_each.append(weight.detach().clone())
    return {"out.w_after_each": torch.stack(after_each), "out.b_after": vector}


@reproduces("vdfd.nscl.step")
def step(fixture: Fixture) -> dict[str, Tensor]:
    args, inputs = fixture.args, fixture.inputs
    flags = {name: args[name] for name in ("model_lr", "svd_lr", "head_lr", "bn_lr")}
    flags |= {"model_weight_decay": args["weight_decay"], "schedule": [10]}
    with _built_learner(fixture, args["task"], **flags) as learner:
        learner.projections = {name: inputs[f"proj.{name}"] for name in learner.convolutions}
        stored = [[inputs[f"{kind}.{name}"] for name in learner.batch_norms] for kind in ("ewc", "ref")]
        learner.ewc_importance, learner.ewc_weights = (list(torch.cat(parts, dim=1)) for parts in stored)
        learner.start_task(args["task"])
        learner.model.train()
        loss = learner.train_step(inputs["x"], inputs["target"])
        return {"out.loss": loss, **{f"after.{key}": value for key, value in learner.model.state_dict().items()}}
