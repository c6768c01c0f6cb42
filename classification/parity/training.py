"""Adapters: whole training steps and trajectories, schedules, parameter groups."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from classification.parity.building import (
    FixedBatches,
    FixedData,
    build_setting,
    built_learner,
    flags_of,
    is_class_incremental,
    series_of,
    stored_tasks,
)
from classification.parity.networks import gradients
from classification.vdfd.optimization import LaggedMultiStep, backbone_names, make_optimizer, parameter_groups
from classification.vdfd.rotation import rotate_four_ways
from common.backbones.registry import build_backbone
from common.parity import Fixture, reproduces


@reproduces(
    "vdfd.step.class_task1",
    "vdfd.step.class_task3",
    "vdfd.step.class_ssl_task1",
    "vdfd.step.class_ssl_task2",
    "vdfd.step.task_task1",
    "vdfd.step.task_task3",
)
def step(fixture: Fixture) -> dict[str, Tensor]:
    images, target = fixture.inputs["x"], fixture.inputs["target"]
    task = fixture.args["task"]
    batches = FixedBatches(images, target, len(images))
    with built_learner(fixture, FixedData({task: batches}), schedule=[10]) as learner:
        learner.memory.tasks = stored_tasks(fixture, learner.memory.names)
        learner.start_task(task)
        learner.hypermodel.load_state_dict(fixture.under("hypermodel."))  # recorded after its re-initialisation
        learner.model.train()
        seen_images = rotate_four_ways(images, target)[0] if fixture.args.get("ssl") else images
        head = learner.setting.view(task).head
        with torch.no_grad():
            bystander = copy.deepcopy(learner.model)
            logits = bystander.last[head](bystander.embed(seen_images))
        penalty = learner.penalty()
        loss = learner.train_step(images, target)
        outputs = {
            "out.loss": loss,
            "out.logits": logits,
            "out.train_acc": torch.tensor(learner.accuracy_meter.value()),
        }
        if is_class_incremental(fixture) and not fixture.args["ssl"]:
            outputs["out.reg"] = penalty if penalty is not None else torch.zeros(())
        if task == 1:
            outputs |= gradients(learner.model, "grad.model.")
        return outputs | _weights(learner)


@reproduces("vdfd.ssl.multihead_step_task1")
def multi_head_step_with_rotations(fixture: Fixture) -> dict[str, Tensor]:
    images, target = fixture.inputs["x"], fixture.inputs["target"]
    data = FixedData({1: FixedBatches(images, target, len(images))}, {1: FixedBatches(images, target, len(images))})
    with built_learner(fixture, data, ssl=True, schedule=[10], **flags_of(fixture)) as learner:
        learner.start_task(1)
        learner.model.train()
        loss = learner.train_step(images, target)
        collected = gradients(learner.model, "grad.model.")
        accuracy = torch.tensor(learner.evaluate(1, 1))
        return {"out.loss": loss, "out.val_acc": accuracy, **collected, **_weights(learner)}


@reproduces("vdfd.traj.class", "vdfd.traj.class_ssl", "vdfd.traj.task")
def trajectory(fixture: Fixture) -> dict[str, Tensor]:
    args, inputs = fixture.args, fixture.inputs
    tasks = range(1, args["tasks"] + 1)
    train = {task: FixedBatches(inputs[f"x{task}"], inputs[f"y{task}"], args["batch"]) for task in tasks}
    test = {task: FixedBatches(inputs[f"vx{task}"], inputs[f"vy{task}"], args["batch"]) for task in tasks}
    accuracies = torch.full((len(tasks), len(tasks)), -1.0, dtype=torch.float64)
    with built_learner(fixture, FixedData(train, test), schedule=args["schedule"]) as learner:
        for task in tasks:
            torch.manual_seed(args["seed_before_task"][task - 1])
            learner.fit_task(task)
            for earlier in range(1, task + 1):
                accuracies[task - 1, earlier - 1] = learner.evaluate(earlier, task)
        gw_star = torch.stack([task.gw_star for task in learner.memory.tasks])
        losses, penalties = series_of(learner, "train/loss"), series_of(learner, "train/reg")
        outputs = {"out.loss": losses, "out.acc": accuracies, "out.GWstar": gw_star}
        if is_class_incremental(fixture) and not args["ssl"]:
            outputs["out.reg"] = torch.cat([torch.zeros(len(losses) - len(penalties), dtype=torch.float64), penalties])
        return outputs


@reproduces("vdfd.sched.class_multistep", "vdfd.sched.task_multistep")
def multi_step_schedule(fixture: Fixture) -> dict[str, Tensor]:
    args = fixture.args
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": args[rate]} for rate in ("head_lr", "model_lr")]
    schedule = LaggedMultiStep(make_optimizer("Adam", groups), args["schedule"], args["gamma"])
    rates, printed = [], []
    for epoch in range(args["schedule"][-1]):
        printed += schedule.rates()
        for _ in range(args["iters_per_epoch"]):
            rates.append(schedule.rates())
            schedule.step(epoch)
    return {
        "out.lr_per_step": torch.tensor(rates, dtype=torch.float64),
        "out.printed": torch.tensor(printed, dtype=torch.float64),
    }


@reproduces("vdfd.optim.class_groups", "vdfd.optim.task_groups")
def groups_of_parameters(fixture: Fixture) -> dict[str, object]:
    args = fixture.args
    head_group, backbone_group = args["groups"]
    model = build_backbone("resnet", "resnet18", widths=args["widths"], blocks=args["blocks"])
    single_head = fixture.id.endswith("class_groups")
    heads = {"All": args["classes_per_task"] * args["tasks"]} if single_head else build_setting(fixture, 1).heads()
    model.set_heads(heads)
    groups = parameter_groups(
        model,
        "All" if single_head else str(args["task"]),
        head_lr=head_group["lr"],
        model_lr=backbone_group["lr"],
        head_weight_decay=head_group["weight_decay"],
        model_weight_decay=backbone_group["weight_decay"],
    )
    described = [{key: group[key] for key in ("names", "lr", "weight_decay")} for group in groups]
    outputs: dict[str, object] = {"out.n_groups": torch.tensor(len(groups)), "args.groups": described}
    return outputs | ({"args.reg_params": backbone_names(model)} if single_head else {})


def _weights(learner: object) -> dict[str, Tensor]:
    parts = {"model": learner.model, "hypermodel": learner.hypermodel}
    return {
        f"after.{part}.{key}": value for part, module in parts.items() for key, value in module.state_dict().items()
    }
