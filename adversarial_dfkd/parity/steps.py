"""Adapters: single steps of the generator, the VAE and the student."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor

from adversarial_dfkd.learner import MOMENTUM, AdversarialDistillation
from adversarial_dfkd.meta import WEIGHT_DECAY, MetaUpdate, student_losses
from adversarial_dfkd.parity.building import (
    GRADIENTS,
    RecordedNoise,
    built_loop,
    gradients,
    in_recorded_format,
    named_network,
    options_of,
    state_after,
)
from adversarial_dfkd.replay import MemoryBank
from common.parity import Fixture, reproduces

AGENT_OF = {
    "student_predfkd": "PREDFKDAgent",
    "student_mb": "PREDFKDMemAgent",
    "student_mb_empty": "PREDFKDMemAgent",
    "student_meta": "PREDFKDMetaAgent",
    "student_meta_second_order": "PREDFKDMetaAgent",
    "student_meta6_unused": "PREDFKDMetaAgent",
    "student_meta_memory": "PREDFKDMemMetaAgent",
    "student_meta_memory_empty": "PREDFKDMemMetaAgent",
    "student_meta_memory_second_order": "PREDFKDMemMetaAgent",
}


@reproduces("lra.step.novel_generator", "lra.step.novel_generator_student_eval")
def novel_generator(fixture: Fixture) -> dict[str, Any]:
    noise = RecordedNoise(in_recorded_format(fixture, fixture.inputs["z"]))
    with built_loop(fixture, options_of(fixture, "PREDFKDMemAgent"), noise) as loop:
        loop.student.train(fixture.args["student_mode"] == "train")
        loss, adversarial = loop.generator_step()
    buffers = {f"after.student.{name}": value for name, value in loop.student.named_buffers()}
    outputs = {"out.loss_gen": loss, "out.loss_disagreement": adversarial} | buffers
    outputs |= gradients("novel_generator", loop.generator)
    return outputs | state_after("novel_generator", loop.generator)


@reproduces("lra.step.memory_generator", "lra.step.memory_generator_first")
def memory_generator(fixture: Fixture) -> dict[str, Any]:
    names = [name for name in ("z_mem", "eps") if name in fixture.inputs]
    noise = RecordedNoise(*(in_recorded_format(fixture, fixture.inputs[name]) for name in names))
    images = in_recorded_format(fixture, fixture.inputs["gen_imgs"])
    with built_loop(fixture, options_of(fixture, "PREDFKDAgent"), noise) as loop:
        loop.epoch, loop.iteration = fixture.args["epoch"], fixture.args["iteration"]
        with torch.no_grad():
            targets = loop.teacher(images)
        outputs = {"out.loss": loop.memory_step(images, targets)}
    if loop.replay.tuning is not None:
        outputs |= {"grad.z_mem": loop.replay.tuning.gradient, "after.z_mem": loop.replay.tuning.tuned}
    for prefix, module in (("mem_generator", loop.replay.generator), ("encoder", loop.replay.encoder)):
        outputs |= gradients(prefix, module) | state_after(prefix, module)
    return outputs


@reproduces(*(f"lra.step.{name}" for name in AGENT_OF))
def student(fixture: Fixture) -> dict[str, Any]:
    args, inputs, name = fixture.args, fixture.inputs, fixture.id.split(".")[-1]
    calls = range(args["calls"])
    recorded = [in_recorded_format(fixture, inputs[f"z_mem{call}"]) for call in calls if f"z_mem{call}" in inputs]
    options = options_of(fixture, AGENT_OF[name], meta_holdout="meta6" in name)
    losses, choices, outputs = [], [], {}
    with built_loop(fixture, options, RecordedNoise(*recorded)) as loop:
        loop.epoch = args["epoch"]
        fill_bank(fixture, loop)
        random.seed(args["python_random_seed"])
        for call in calls:
            report = loop.student_step(in_recorded_format(fixture, inputs[f"gen_imgs{call}"]))
            losses.append(reported(report.terms, len(args["loss_columns"])))
            if call == 0:
                outputs |= gradients("student_call0", loop.student)
            if isinstance(loop.replay, MemoryBank):
                choices.append(loop.replay.drawn)
            else:
                tuning = loop.replay.tuning
                outputs |= {f"grad.z_mem{call}": tuning.gradient, f"after.z_mem{call}": tuning.tuned}
    if any(choice is not None for choice in choices):
        outputs["out.memory_choice"] = torch.tensor(choices)
    return outputs | {"out.losses": torch.stack(losses)} | state_after("student", loop.student)


def fill_bank(fixture: Fixture, loop: AdversarialDistillation) -> None:
    """Push the recorded batches in order."""
    number = 0
    while f"memory{number}" in fixture.inputs:
        loop.replay.push(in_recorded_format(fixture, fixture.inputs[f"memory{number}"]))
        number += 1


def reported(terms: dict[str, Tensor], columns: int) -> Tensor:
    """What the original's student step returns: its loss, and with three columns L_ret and L_kd too."""
    total = terms.get("total", terms["loss"])
    return torch.stack([total, terms["retention"], terms["kd"]] if columns == 3 else [total])


@reproduces("lra.step.student_meta_lenet", "lra.step.student_meta_lenet_second_order")
def small_student(fixture: Fixture) -> dict[str, Any]:
    args, inputs = fixture.args, fixture.inputs
    student, teacher = named_network(fixture, "student").train(), named_network(fixture, "teacher").eval()
    optimizer = torch.optim.SGD(student.parameters(), lr=args["lr_S"], momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    with torch.no_grad():
        targets = teacher(torch.cat([inputs["gen_imgs"], inputs["memory0"]]))
    meta = MetaUpdate(GRADIENTS[args["meta_gradient"]], args["lr_S_in"])
    terms = student_losses(student, inputs["gen_imgs"], inputs["memory0"], targets, meta)
    terms["loss"].backward()
    optimizer.step()
    outputs = {f"grad.{name}": parameter.grad for name, parameter in student.named_parameters()}
    return outputs | {"out.total_loss": terms["total"]} | {f"after.{k}": v for k, v in student.state_dict().items()}
