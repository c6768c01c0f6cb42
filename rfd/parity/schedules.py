"""Adapters: factors, learning rates, class weights, metrics, and the phases of a whole run."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from common.backbones.generators_dfcil import cifar_generator
from common.backbones.resnet_cllite import CifarResNet
from common.metrics.accuracy import accuracy_percent
from common.parity import Fixture, reproduces
from rfd.data.protocol import task_sizes
from rfd.evaluation import Evaluation, confusion_matrix, lower_triangle
from rfd.factors import Lambdas, class_weights, is_finetuning, learning_rate, rdfcil_factors, rfd_factors
from rfd.inversion import InversionRecipe
from rfd.learning.methods import RFD
from rfd.networks import IncrementalNetwork
from rfd.parity.building import StatedTasks, temporary_run
from rfd.recipe import Recipe

WEIGHTS = ("ce", "hkd", "rkd", "distkd_old", "distkd_new", "kd")
FACTORS = {"rfd.schedule": ("ce", "distkd_old", "distkd_new", "sm"), "rfd.rdfcil": ("ce", "hkd", "rkd")}
"""Columns of the recorded tables of factors; 0 stands for a term that is not there."""


def stated_lambdas(args: dict[str, Any]) -> Lambdas:
    """The weights of the losses that a recording states."""
    return Lambdas(**{name: args[f"lambda_{name}"] for name in WEIGHTS if f"lambda_{name}" in args})


@reproduces("rfd.schedule.loss_factors", "rfd.rdfcil.loss_factors")
def factors(fixture: Fixture) -> dict[str, Tensor]:
    of = rfd_factors if fixture.id == "rfd.schedule.loss_factors" else rdfcil_factors
    names, lambdas = FACTORS[fixture.id.rpartition(".")[0]], stated_lambdas(fixture.args)
    found = [of(lambdas, *pair) for pair in fixture.inputs["pairs"].tolist()]
    rows = [[factors.get(name, 0.0) for name in names] for factors in found]
    return {"out.factors": torch.tensor(rows, dtype=torch.float64)}


@reproduces("rfd.schedule.lr")
def learning_rates(fixture: Fixture) -> dict[str, object]:
    outputs: dict[str, object] = {}
    for case in sorted({key.partition(".")[0] for key in fixture.args}):
        args = {key.partition(".")[2]: value for key, value in fixture.args.items() if key.startswith(f"{case}.")}
        epochs = args.pop("max_epochs")
        number = case.removeprefix("case")
        outputs[f"out.lr{number}"] = torch.tensor([learning_rate(e, epochs=epochs, **args) for e in range(epochs)])
        phases = [int(is_finetuning(epoch, epochs, args["finetuning_epochs"])) for epoch in range(epochs + 1)]
        outputs[f"out.finetuning{number}"] = torch.tensor(phases)
    return outputs


@reproduces("rfd.schedule.class_weights")
def weights(fixture: Fixture) -> dict[str, Tensor]:
    return {"out.weights": class_weights(fixture.inputs["counts"])}


class _Traced(RFD):
    """Notes what is in force in every epoch and at every test."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.epochs_seen: list[list[float]] = []
        self.tests_seen: list[list[int]] = []

    def begin_epoch(self) -> None:
        super().begin_epoch()
        backbone, head, factors = self.network.backbone, self.network.head, self.factors()
        trainable = [sum(p.requires_grad for p in part.parameters()) for part in (backbone, head)]
        self.epochs_seen.append(
            [self.task - 1, self.epoch, self.optimizer.param_groups[0]["lr"], self.finetuning, backbone.training,
             head.training, *trainable, *(factors.get(name, 0.0) for name in FACTORS["rfd.schedule"])]
        )  # fmt: skip

    def test(self) -> Evaluation:
        self.tests_seen.append([self.task - 1, self.epoch, int(self.finetuning)])
        return super().test()


class _OneBatch:
    """The same few images of some classes once per pass."""

    def __init__(self) -> None:
        self.classes, self.position = range(1), 0

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Any:
        generator = torch.Generator().manual_seed(self.classes.start)
        target = torch.arange(4) % len(self.classes) + self.classes.start
        yield torch.randn(4, 3, 8, 8, generator=generator), target

    def state_dict(self) -> dict[str, Any]:
        return {}


class _Tasks(StatedTasks):
    """Every task has one batch of its own classes."""

    def train_loader(self, task: int) -> Any:
        self.loader.classes = range(*self.boundaries[task - 1 : task + 1])
        return self.loader

    test_loader = train_loader


@reproduces("rfd.flow.trace")
def phases(fixture: Fixture) -> dict[str, Tensor]:
    args = fixture.args
    recipe = Recipe(
        epochs=args["max_epochs"], base_lr=args["base_lr"], lr_factor=args["lr_factor"],
        milestones=tuple(args["milestones"]), finetuning_epochs=args["finetuning_epochs"],
        finetuning_lr=args["finetuning_lr"], check_every=args["check_val_every_n_epoch"],
        lambdas=stated_lambdas(args), inversion=InversionRecipe(iterations=0),
        validation_quirk=True,  # why: the trace was taken under the originals' trainer, which behaves like this
    )  # fmt: skip
    tasks = _Tasks(task_sizes(args["num_classes"], args["num_tasks"]), _OneBatch())
    with temporary_run() as (run, precision):
        learner = _Traced(
            recipe, IncrementalNetwork(CifarResNet(3, 2)), tasks, run, precision,
            make_generator=lambda: cifar_generator(4, 8), batch_size=4,
        )  # fmt: skip
        for task in range(1, args["num_tasks"] + 1):
            learner.fit_task(task)
        return {"out.train": torch.tensor(learner.epochs_seen), "out.validation": torch.tensor(learner.tests_seen)}


@reproduces("rfd.metric.evaluator")
def evaluator(fixture: Fixture) -> dict[str, object]:
    args, inputs = fixture.args, fixture.inputs
    sizes = args["classes_per_task"][: args["current_task"] + 1]
    confusion = confusion_matrix(inputs["prediction"], inputs["target"], sum(sizes))
    found = Evaluation(confusion, tuple(sum(sizes[:count]) for count in range(len(sizes) + 1)))
    three = {"out.acc_all": found.all, "out.acc_new": found.new, "out.acc_old": found.old}
    return three | {"out.confusion": confusion, "args.summary_text": found.text()}


@reproduces("rfd.abd.metric.accuracy")
def top1(fixture: Fixture) -> dict[str, Tensor]:
    return {"out.top1": accuracy_percent(fixture.inputs["logits"], fixture.inputs["target"])}


@reproduces("rfd.abd.metric.summary")
def summary_of_a_run(fixture: Fixture) -> dict[str, Tensor]:
    history, seen = lower_triangle(fixture.inputs["acc"])
    return {"out.global_history": history, "out.pt": seen}
