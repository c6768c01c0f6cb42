"""From a step fixture's arguments to the objects that training uses."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from common.backbones.classifier import StagedClassifier
from common.backbones.generators_cmi import ImageGenerator
from common.parity import Fixture
from common.seeded_fill import fill_seeded
from common.training.precision import Precision
from common.training.run import Run
from curriculum_dfkd.evaluation import Evaluator
from curriculum_dfkd.factory import build_generator, build_objective, build_optimizer, build_synthesiser
from curriculum_dfkd.learner import DataFreeDistillation
from curriculum_dfkd.networks import build_network
from curriculum_dfkd.options import DataFreeOptions, rounds_of
from curriculum_dfkd.parity.utilities import normaliser_of
from curriculum_dfkd.supervised import SupervisedTraining
from curriculum_dfkd.synthesis.base import Networks, Synthesiser
from curriculum_dfkd.training import cosine_rate

CPU = torch.device("cpu")
LARGEST_RECORDED = 1600
"""Elements up to which a tensor was recorded in full."""


class RecordedNoise:
    """Hands out recorded noise vectors one after the other."""

    def __init__(self, *recorded: Tensor) -> None:
        self._draws: Iterator[Tensor] = itertools.chain.from_iterable(recorded)

    def __call__(self, count: int, length: int, device: torch.device) -> Tensor:
        return next(self._draws)


class NoTest(Evaluator):
    """Stands where a recording has no test set."""

    def __init__(self) -> None:
        pass

    def test(self, network: nn.Module) -> dict[str, float]:
        return {"acc1": 0.0, "acc5": 0.0, "ce": 0.0}


def build_teacher(fixture: Fixture) -> StagedClassifier:
    """The recorded teacher, frozen."""
    teacher = build_network(fixture.args["teacher"], fixture.args["num_classes"])
    fill_seeded(fixture, teacher, fixture.args["teacher_seed"])
    return teacher.eval().requires_grad_(False)


def build_student(fixture: Fixture) -> StagedClassifier:
    """The recorded student: a mixture of two fills."""
    student = build_network(fixture.args["student"], fixture.args["num_classes"])
    fill_seeded(fixture, student, fixture.args["student_seeds"], fixture.args["student_weights"])
    return student


def networks_of(fixture: Fixture, options: DataFreeOptions, *noise: Tensor, img_size: int = 32) -> Networks:
    """Teacher and student with recorded noise."""
    dataset = fixture.args.get("normalise", fixture.args.get("dataset"))
    return Networks(
        build_teacher(fixture), build_student(fixture), normaliser_of(dataset), fixture.args["num_classes"], 3,
        img_size, Precision(options, CPU), CPU, RecordedNoise(*noise) if noise else torch.randn,
    )


def filled_generator(fixture: Fixture, options: DataFreeOptions) -> ImageGenerator:
    """The method's generator with the recorded weights."""
    generator = build_generator(options, 3, 32)
    fill_seeded(fixture, generator, fixture.args["generator_seed"])
    return generator


def synthesiser_of(fixture: Fixture, options: DataFreeOptions, networks: Networks) -> Synthesiser:
    """The method's synthesiser with the recorded generator."""
    return build_synthesiser(options, networks, filled_generator(fixture, options), None)


@contextlib.contextmanager
def built_loop(
    options: DataFreeOptions, networks: Networks, synthesiser: Synthesiser, evaluator: Evaluator | None = None,
    rounds: int | None = None,
) -> Iterator[DataFreeDistillation]:
    """The training loop, in a run of its own in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        config = dataclasses.replace(options, output_dir=folder)
        with Run(config, method=config.method, paper="cudfkd", device=CPU, seed=0, write_every=1, quiet=True) as run:
            usual_rounds, _, per_round = rounds_of(config)
            yield DataFreeDistillation(
                networks.student, build_optimizer(config, networks.student), cosine_rate(config.lr, config.epochs),
                config.epochs, evaluator or NoTest(), networks.precision, run, teacher=networks.teacher,
                synthesiser=synthesiser, objective=build_objective(config), rounds=rounds or usual_rounds,
                student_steps=per_round,
            )


def numbered(report_terms: Mapping[str, Tensor], step: int, names: Iterable[str]) -> dict[str, Tensor]:
    """The named terms as `out.<name>_<step>`."""
    return {f"out.{name}_{step}": report_terms[name] for name in names}


def gradients(prefix: str, module: nn.Module, sums_of_large: bool = False) -> dict[str, Tensor]:
    """Gradients small enough to be recorded, as `grad.<prefix>.<key>`; optionally absolute sums of the others."""
    outputs = {}
    for name, parameter in module.named_parameters():
        if parameter.numel() <= LARGEST_RECORDED:
            outputs[f"grad.{prefix}.{name}"] = parameter.grad.clone()
        elif sums_of_large:
            outputs[f"grad.{prefix}_abssum.{name}"] = parameter.grad.abs().sum()
    return outputs


def state_after(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    """Entries small enough to be recorded, and the sums of all of them in the order of the state dict."""
    state = {key: value.detach().clone() for key, value in module.state_dict().items()}
    small = {f"after.{prefix}.{key}": value for key, value in state.items() if value.numel() <= LARGEST_RECORDED}
    return small | {
        f"out.{prefix}.sum": torch.stack([value.double().sum() for value in state.values()]),
        f"out.{prefix}.abssum": torch.stack([value.double().abs().sum() for value in state.values()]),
    }


def flags(fixture: Fixture, method: str, **more: Any) -> DataFreeOptions:
    """Options from a fixture's arguments, by equal names."""
    known = DataFreeOptions.__dataclass_fields__
    given = {name: value for name, value in fixture.args.items() if name in known}
    for owned in ("teacher", "student", "T", "batch"):
        given.pop(owned, None)
    given |= {"T": fixture.args.get("T", 1.0), "batch_size": fixture.args["batch"], "method": method,
              "log_all_terms": True}
    return DataFreeOptions(**given | more)


@contextlib.contextmanager
def built_supervised(
    fixture: Fixture, model: nn.Module, objective: Any, teacher: StagedClassifier | None
) -> Iterator[SupervisedTraining]:
    """The loop over real images, in a run of its own in a temporary folder; recorded batches go to `train_step`."""
    options = flags(fixture, "dafl", oh=1.0)
    with tempfile.TemporaryDirectory() as folder:
        config = dataclasses.replace(options, output_dir=folder)
        with Run(config, method="scratch", paper="cudfkd", device=CPU, seed=0, write_every=1, quiet=True) as run:
            yield SupervisedTraining(
                model, build_optimizer(config, model), cosine_rate(config.lr, config.epochs), config.epochs, NoTest(),
                Precision(config, CPU), run, batches=(), objective=objective, teacher=teacher,
            )
