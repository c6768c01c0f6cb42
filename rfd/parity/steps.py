"""Adapters: whole steps of RFD, R-DFCIL and the port of ABD."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from common.backbones.generators_dfcil import cifar_generator
from common.parity import Fixture, reproduces
from rfd.data.protocol import positions
from rfd.factors import class_weights
from rfd.inversion import InversionRecipe, Replay
from rfd.learning.dynamic import DynamicHeadLearner
from rfd.learning.methods import RDFCIL, RFD, ABDPort
from rfd.networks import IncrementalNetwork
from rfd.parity.building import StatedTasks, described_backbone, statistics_of, temporary_run
from rfd.parity.losses import gradients
from rfd.parity.schedules import stated_lambdas
from rfd.recipe import Recipe

_LEARNERS = {"rfd.step": RFD, "rfd.rdfcil": RDFCIL, "rfd.abd_port": ABDPort}


def stated_recipe(args: dict[str, Any]) -> Recipe:
    """The numbers that a recording of a step states; the total of epochs does not matter to a step."""
    finetuning = args.get("finetuning_epochs", 0)
    return Recipe(
        epochs=max(args["milestones"], default=0) + finetuning + 1, base_lr=args["base_lr"], momentum=args["momentum"],
        weight_decay=args["weight_decay"], lr_factor=args["lr_factor"], milestones=tuple(args["milestones"]),
        finetuning_epochs=finetuning, finetuning_lr=args.get("finetuning_lr", 0.0), lambdas=stated_lambdas(args),
        inversion=InversionRecipe(iterations=0),
    )  # fmt: skip


@contextlib.contextmanager
def second_task(
    fixture: Fixture, weights: Fixture | None = None, finetuning: bool = False
) -> Iterator[DynamicHeadLearner]:
    """A learner at its second task, with the recorded weights (of `weights`, if another fixture stores them)."""
    args, stored = fixture.args, weights or fixture
    recipe = stated_recipe(args)
    kind = next(kind for prefix, kind in _LEARNERS.items() if fixture.id.startswith(prefix))
    network = IncrementalNetwork(described_backbone(args["backbone"]), kind.classifier, kind.bias)
    network.add_tasks([args["n_old"]])
    with temporary_run() as (run, precision):
        learner = kind(
            recipe, network, StatedTasks([args["n_old"], args["n_new"]]), run, precision,
            make_generator=lambda: cifar_generator(4, 8), batch_size=4,
        )  # fmt: skip
        learner.start_task(2)
        network.load_state_dict({k: v for k, v in stored.params.items() if k.startswith(("backbone.", "head."))})
        assert learner.teacher is not None
        learner.teacher.load_state_dict(stored.under("model_old."))
        if isinstance(learner, RDFCIL) and not finetuning:
            assert learner.embeddings is not None
            learner.embeddings.load_state_dict(stored.under("rkd."))
        if finetuning:
            learner.epoch = recipe.epochs - recipe.finetuning_epochs
            for name, momentum in stored.under("momentum.").items():
                learner.optimizer.state[network.get_parameter(name)]["momentum_buffer"] = momentum.clone()
            learner.weights = fixture.inputs["cls_weight"]
        learner.begin_epoch()
        yield learner


def recorded_replay(learner: DynamicHeadLearner, images: Tensor, labels: Tensor | None = None) -> Replay:
    """Recorded synthetic images; the frozen network's logits on them, its opinion where no labels are recorded."""
    assert learner.inversion is not None
    with torch.no_grad():
        logits = learner.inversion.logits_of(images)
    return Replay(images, logits, logits.argmax(dim=1) if labels is None else labels)


def labels_of(fixture: Fixture, inputs: dict[str, Tensor]) -> Tensor:
    """Raw labels as positions in the class order."""
    return positions(fixture.args["class_order"])[inputs["y_raw"]]


def factors_as_arguments(learner: DynamicHeadLearner) -> dict[str, float]:
    """The factors that the recording lists among its arguments."""
    return {f"args.factors.{name}": value for name, value in learner.factors().items()}


def named_terms(terms: dict[str, Tensor]) -> dict[str, Tensor]:
    """Terms and their sum under the recorded names."""
    return {f"out.{'total' if name == 'loss' else name}": value for name, value in terms.items()}


@reproduces("rfd.step.task1")
def first_task(fixture: Fixture) -> dict[str, Tensor]:
    args, inputs = fixture.args, fixture.inputs
    network = IncrementalNetwork(described_backbone(args["backbone"]))
    with temporary_run() as (run, precision):
        learner = RFD(
            stated_recipe(args), network, StatedTasks([args["n_classes"], 1]), run, precision,
            make_generator=lambda: cifar_generator(4, 8), batch_size=4,
        )  # fmt: skip
        learner.start_task(1)
        network.load_state_dict(fixture.params)
        learner.begin_epoch()
        terms = learner.train_step(inputs["x"], labels_of(fixture, inputs))
        after = {f"after.{key}": value for key, value in network.state_dict().items()}
        return {"out.loss": terms["loss"]} | gradients(network, "grad.") | after


@reproduces("rfd.step.train", "rfd.rdfcil.step.train", "rfd.abd_port.step.train")
def representation_step(fixture: Fixture) -> dict[str, object]:
    inputs = fixture.inputs
    with second_task(fixture) as learner:
        replay = recorded_replay(learner, inputs["x_syn"], inputs["y_syn"])
        terms = learner.train_step(inputs["x"], labels_of(fixture, inputs), replay)
        outputs: dict[str, object] = {**named_terms(terms), **factors_as_arguments(learner)}
        parts: dict[str, Any] = {"": learner.network}
        if isinstance(learner, RDFCIL):
            parts["rkd."] = learner.embeddings
        for prefix, module in parts.items():
            outputs |= gradients(module, f"grad.{prefix}")
            outputs |= {f"after.{prefix}{key}": value for key, value in module.state_dict().items()}
        return outputs | ({"out.cls_count": learner.counts} if isinstance(learner, RFD) else {})


@reproduces("rfd.step.sequence", base="rfd.step.train")
def several_steps(fixture: Fixture) -> dict[str, Tensor]:
    inputs, first = fixture.inputs, fixture.base
    assert first is not None
    with second_task(fixture, first) as learner:
        start = recorded_replay(learner, first.inputs["x_syn"], first.inputs["y_syn"])
        learner.train_step(first.inputs["x"], labels_of(fixture, first.inputs), start)
        losses = []
        for number, target in enumerate(labels_of(fixture, inputs)):
            replay = recorded_replay(learner, inputs["x_syn"][number])
            terms = learner.train_step(inputs["x"][number], target, replay)
            losses.append(torch.stack([terms[name] for name in ("ce", "distkd_old", "distkd_new", "sm", "loss")]))
        after = {f"after.{key}": value for key, value in learner.network.state_dict().items()}
        counted = {"out.cls_count": learner.counts, "out.cls_weight": class_weights(learner.counts)}
        return {"out.losses": torch.stack(losses)} | counted | after


@reproduces("rfd.step.finetune", "rfd.rdfcil.step.finetune")
def finetuning_step(fixture: Fixture) -> dict[str, object]:
    inputs = fixture.inputs
    with second_task(fixture, finetuning=True) as learner:
        replay = recorded_replay(learner, inputs["x_syn"], inputs["y_syn"])
        terms = learner.train_step(inputs["x"], labels_of(fixture, inputs), replay)
        head = {f"after.head.{key}": value for key, value in learner.network.head.state_dict().items()}
        kept = {f"after.backbone.{key}": value for key, value in statistics_of(learner.network.backbone).items()}
        outputs: dict[str, object] = {**named_terms(terms), **factors_as_arguments(learner), **head}
        outputs |= gradients(learner.network, "grad.")
        return outputs | (kept if isinstance(learner, RFD) else {})
