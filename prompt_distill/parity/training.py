"""Adapters: whole optimiser steps of teacher and student, and the training routine over two tasks."""

from __future__ import annotations

import torch
from torch import Tensor

from common.parity import Fixture, reproduces
from prompt_distill.learner import PromptLearner
from prompt_distill.parity.building import FixedBatches, FixedData, built_learner, series_of, trained

STEPS = (
    *(f"cdl_prompt.{name}" for name in ("coda", "dual", "l2p", "coda_task2", "dual_task2")),
    *(f"kd_token.{name}" for name in ("coda", "dual")),
    *(f"d_cdl.{name}" for name in ("coda", "coda_task2", "dual", "dual_task2", "l2p", "apt", "apt_task2")),
    *("kd.coda_task2", "dkd.coda_task2", "fitnets.coda", "reviewkd.coda", "kd.apt"),
)
LOOPS = ("cdl_prompt_coda", "kd_coda", "d_cdl_dual", "d_cdl_apt")


@reproduces(*(f"prompt_distill.step.{name}" for name in STEPS))
def step(fixture: Fixture) -> dict[str, Tensor]:
    args, inputs = fixture.args, fixture.inputs
    images, target, task = inputs["x"], inputs["y"], args["task"] + 1
    old, seen = args["last_valid_out_dim"], args["valid_out_dim"]
    earlier = [list(range(old))] if old else []
    tasks = [[]] * (task - 1 - len(earlier)) + earlier + [list(range(old, seen))]
    batches = FixedBatches(images[None], target[None])
    with built_learner(fixture, FixedData(tasks, {task: batches}, {})) as learner:
        stand_at_task(learner, task, args["task_count"], batches)
        query = learner.query(images)
        taught = learner.teacher_step(images, target, query)
        outputs = {
            "out.teacher_train_logits": taught.logits.detach(),
            "out.teacher_prompt_loss": taught.prompt_loss.detach().reshape(1),
            "out.teacher_loss": series_of(learner, "train/teacher_loss")[-1],
        }
        if not learner.distillation.joint:
            taught = learner.infer_teacher(images, query)
            outputs["out.teacher_eval_logits"] = taught.logits
        kd_logits = _logits_before_the_step(learner, images, query, taught)
        student = learner.student_step(images, target, query, taught)
        outputs |= {
            "out.student_train_logits": student.logits.detach(),
            "out.student_prompt_loss": student.prompt_loss.detach().reshape(1),
            "out.student_loss": series_of(learner, "train/loss")[-1],
            "out.soft_loss": series_of(learner, "train/soft")[-1],
        }
        if kd_logits is not None:
            outputs["out.student_kd_logits"] = kd_logits
        if not learner.distillation.joint:
            feature = series_of(learner, "train/feature")
            outputs["out.feature_loss"] = feature[-1] if len(feature) else torch.zeros(())
        for name, parameter in trained(learner).items():
            gradient = parameter.grad
            outputs[f"grad.{name}"] = torch.zeros_like(parameter) if gradient is None else gradient
            outputs[f"after.{name}"] = parameter.detach()
        outputs["args.grad_elements"] = sum(parameter.numel() for parameter in trained(learner).values())
        teacher_logits, student_logits = learner.infer(inputs["x_eval"])
        return outputs | {"out.eval_teacher_logits": teacher_logits, "out.eval_student_logits": student_logits}


def stand_at_task(learner: PromptLearner, task: int, counter: int, batches: FixedBatches) -> None:
    """As `start_task` leaves a learner, but with the recorded prompts in place of new ones."""
    learner.task, learner.loader, learner.task_is_done = task, batches, False
    learner.distillation.task = counter
    for network in learner.networks():
        network.prompt.task = counter
    learner.make_optimizers()
    learner.set_rates()


def _logits_before_the_step(learner: PromptLearner, images: Tensor, query: Tensor, taught: object) -> Tensor | None:
    """The second head's logits of the training pass, where there is one."""
    if not hasattr(learner.distillation, "kd_last"):
        return None
    with torch.no_grad():
        prefixes = learner.teacher_prefixes(query, taught, train=True)
        out = learner.student(images, query, True, learner.distillation.extras(len(images), prefixes))
        return learner.distillation.kd_logits(out)


@reproduces(*(f"prompt_distill.loop.{name}" for name in LOOPS))
def loop(fixture: Fixture) -> dict[str, Tensor]:
    args, inputs = fixture.args, fixture.inputs
    count = sum(name.startswith("x_task") for name in inputs)  # why not n_tasks: the prompts may be made for more
    numbers, size = range(1, count + 1), args["classes_per_task"]
    tasks = [list(range((task - 1) * size, task * size)) for task in numbers]
    train = {task: FixedBatches(inputs[f"x_task{task}"], inputs[f"y_task{task}"]) for task in numbers}
    test = {task: FixedBatches(inputs[f"xe_task{task}"][None], inputs[f"ye_task{task}"][None]) for task in numbers}
    accuracy = {who: torch.zeros(len(tasks), len(tasks), dtype=torch.float64) for who in ("teacher", "student")}
    outputs: dict[str, Tensor] = {}
    with built_learner(fixture, FixedData(tasks, train, test)) as learner:
        for task in numbers:
            learner.start_task(task)
            put_new_rows(learner, fixture, task)
            learner.fit_task(task)
            for earlier in range(1, task + 1):
                for who, value in learner.evaluate(earlier, task).items():
                    if who in accuracy:
                        accuracy[who][task - 1, earlier - 1] = value
            teacher, student = learner.infer(inputs["xe_task1"])
            outputs[f"out.eval_teacher_logits_after_task{task}"] = teacher
            outputs[f"out.eval_student_logits_after_task{task}"] = student
        outputs |= {f"out.{who}_acc": table for who, table in accuracy.items()}
        outputs["out.printed_lrs"] = series_of(learner, "lr/head")
        outputs |= {f"after.{name}": parameter.detach() for name, parameter in trained(learner).items()}
        for prefix, network in zip(("model", "s_model"), learner.networks(), strict=True):
            outputs |= {f"after.{prefix}.{name}": buffer for name, buffer in network.named_buffers()}
        return outputs


def put_new_rows(learner: PromptLearner, fixture: Fixture, task: int) -> None:
    """Replace the components that a task change has drawn by the recorded ones."""
    marker = f"task{task}_new_rows."
    parameters = trained(learner)
    for name, rows in fixture.inputs.items():
        if name.startswith(marker):
            parameter = parameters[name.removeprefix(marker)]
            with torch.no_grad():
                parameter[(task - 1) * len(rows) : task * len(rows)] = rows
