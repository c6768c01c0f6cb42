"""From a prepared experiment to its record: tasks one after the other, tests, checkpoints, resume."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from common.backbones.generators_dfcil import LATENT
from common.backbones.heads import Backbone
from common.training.device import choose_device
from common.training.errors import RunStopped
from common.training.options import RunOptions
from common.training.precision import Precision, set_backend_flags
from common.training.run import Run
from common.training.seeding import seed_everything
from rfd.data.tasks import TaskImages
from rfd.evaluation import History
from rfd.learning.base import IncrementalLearner
from rfd.learning.dynamic import DynamicHeadLearner
from rfd.learning.fixed import AlwaysBeDreaming, DeepInversionReplay, FineTuning, Joint, LwF, LwFMC, LwFSynthetic
from rfd.learning.methods import RDFCIL, RFD, ABDPort
from rfd.networks import IncrementalNetwork, build_generator
from rfd.recipe import Recipe
from rfd.task_files import TaskFolders, restore_from_file

DYNAMIC: dict[str, type[DynamicHeadLearner]] = {"rfd": RFD, "rdfcil": RDFCIL, "abd_port": ABDPort}
FIXED: dict[str, type[FineTuning]] = {
    "abd": AlwaysBeDreaming, "deepinv": DeepInversionReplay, "lwf_synthetic": LwFSynthetic, "lwf": LwF, "lwf_mc": LwFMC,
    "base": FineTuning, "joint": Joint,
}  # fmt: skip
"""Names of methods -> learners."""


@dataclass(frozen=True)
class Experiment:
    """Everything that a run needs beside its options.

    Attributes:
        method: key of `DYNAMIC` or `FIXED`.
        recipe: its numbers.
        seed: of all generators; None: the time.
        is_repetition: whether the class order is the published one of that seed (see `record_seed`).
        gpu_ids: device number, negative for the CPU.
        make_data: device -> images of the tasks.
        make_backbone: for a method of `DYNAMIC`: builds the backbone.
        make_network: for a method of `FIXED`: number of classes -> network.
        classifier: of the growing head; None: the method's own.
        latent, generator_width: size of the generator; None: the published channels.
        labels: data -> labels of the record.
        max_tasks: stop after so many tasks; None: all.
        keep_checkpoints: see `rfd/task_files.py`.
        inversion_file: a generator that is already trained.
        resume_file, resume_task: checkpoint of another run to go on from, and its task (from 0).
        write_every: steps between two points of the series.
        deterministic: cuDNN's deterministic algorithms, without --fast.
        autotune: let cuDNN try algorithms, with --fast.
    """

    method: str
    recipe: Recipe
    seed: int | None
    gpu_ids: list[int]
    make_data: Callable[[torch.device], TaskImages]
    labels: Callable[[TaskImages], list[str]]
    make_backbone: Callable[[], Any] | None = None
    make_network: Callable[[int], Backbone] | None = None
    classifier: str | None = None
    latent: int = LATENT
    generator_width: int | None = None
    max_tasks: int | None = None
    keep_checkpoints: str = "all"
    inversion_file: str | None = None
    resume_file: str | None = None
    resume_task: int = 0
    write_every: int = 50
    deterministic: bool = True
    autotune: bool = True
    is_repetition: bool = True


def record_seed(seed: int, is_repetition: bool) -> int:
    """The record's `seed`: the number of a repetition, or -1 - seed for a run with another class order than the
    published one of its seed. why: records of equal seed are compared as repetitions with the same class order."""
    return seed if is_repetition else -1 - seed


class _Seed:
    """The seed in force, kept for a resume of a run that took the time."""

    def __init__(self, value: int) -> None:
        self.value = value

    def state_dict(self) -> dict[str, int]:
        return {"seed": self.value}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.value = state["seed"]


def run_experiment(
    config: RunOptions, changed: dict[str, list[Any]], experiment: Experiment, folder: Path | None = None,
    begin: float | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Run all tasks; a finished run is skipped, an interrupted one goes on.

    Args:
        config, changed, folder, begin: see `Run`.
        experiment: everything else.

    Returns:
        Metrics of the record.

    Raises:
        RunStopped: if the time budget or a signal stopped it; the record then says so.
    """
    device, notice = choose_device(experiment.gpu_ids)
    seed = experiment.seed if experiment.seed is not None else int(time.time())
    seed_everything(seed)
    set_backend_flags(config.fast)
    torch.backends.cudnn.deterministic = experiment.deterministic and not config.fast
    torch.backends.cudnn.benchmark = experiment.autotune and config.fast
    name = {**DYNAMIC, **FIXED}[experiment.method].name
    with Run(
        config, method=name, paper="rfd", device=device, seed=record_seed(seed, experiment.is_repetition),
        changed=changed, folder=folder, write_every=experiment.write_every, begin=begin,
    ) as run:  # fmt: skip
        if notice:
            run.note(notice)
        if run.finished:
            run.note(f"finished already: {run.folder}")
            return run.read_record()["metrics"]
        return _train(config, experiment, run, seed)


def _train(config: RunOptions, experiment: Experiment, run: Run, seed: int) -> dict[str, Any]:
    data = experiment.make_data(run.device)
    history, seed_in_force = History(), _Seed(seed)
    run.register("seed", seed_in_force)
    learner = build_learner(config, experiment, data, history, run)
    run.register("history", history)
    tasks = min(len(data.sizes), experiment.max_tasks or len(data.sizes))
    if not run.restore() and experiment.resume_file is not None:
        restore_from_file(Path(experiment.resume_file), experiment.resume_task, learner, data.split, history)
    learner.check_ahead()
    run.seed = record_seed(seed_in_force.value, experiment.is_repetition)

    def record(finished: bool) -> dict[str, Any]:
        metrics = history.metrics()
        run.write_record(metrics, data.describe(), experiment.labels(data), finished=finished)
        return metrics

    try:
        for task in range(history.tasks + 1, tasks + 1):
            learner.fit_task(task)
            _close_task(learner, history)
            run.save()
    except RunStopped:
        record(finished=False)
        raise
    metrics = record(finished=True)
    run.note(f"finished in {run.seconds() / 3600:.2f} h; record: {run.folder / 'record.json'}")
    return metrics


def _close_task(learner: IncrementalLearner, history: History) -> None:
    """Test on all classes seen, and note what the tables ask for."""
    evaluation, run = learner.evaluate(), learner.run
    history.add(evaluation, None if learner.recipe.current_only else learner.best)
    where = {"task": learner.task, "epoch": learner.epoch}
    metrics = history.metrics()
    for task, accuracy in enumerate(evaluation.per_task, start=1):
        run.log_value(f"test/task_{task}", accuracy, **where)
    for name in ("last", "average", "global", "forgetting"):
        run.log_value(f"test/{name}", metrics[name], **where)
    accuracies = " ".join(f"{accuracy:.2f}" for accuracy in evaluation.per_task)
    run.note(
        f"after task {learner.task}: {accuracies} | accuracy {metrics['last']:.2f}, average {metrics['average']:.2f}, "
        f"forgetting {metrics['forgetting']:.2f}"
    )


def build_learner(
    config: RunOptions, experiment: Experiment, data: TaskImages, history: History, run: Run
) -> IncrementalLearner:
    """The method's learner with its networks. # rng: their initial weights"""
    precision = Precision(config, run.device)
    layout = torch.channels_last if config.fast else torch.contiguous_format

    def placed(module: nn.Module) -> Any:
        return module.to(run.device, memory_format=layout)

    def make_generator() -> nn.Module:
        generator = build_generator(data.spec.size, experiment.latent, experiment.generator_width)
        generator.merges_doubling = config.fast
        return placed(generator)

    more: dict[str, Any] = {
        "files": TaskFolders(run.folder, data.split, history, experiment.keep_checkpoints),
        "make_generator": make_generator,
        "batch_size": data.batch_size,
    }
    if experiment.method in DYNAMIC:
        kind = DYNAMIC[experiment.method]
        assert experiment.make_backbone is not None
        network: nn.Module = IncrementalNetwork(
            experiment.make_backbone(), experiment.classifier or kind.classifier, kind.bias
        )
        more["inversion_file"] = experiment.inversion_file
        learner_type: type[IncrementalLearner] = kind
    else:
        assert experiment.make_network is not None
        classes, build = data.boundaries[-1], experiment.make_network
        network = build(classes)
        more["make_network"] = lambda: placed(build(classes))
        learner_type = FIXED[experiment.method]
    run.note(f"network: {sum(p.numel() for p in network.parameters()):,} parameters before its classifiers grow")
    return learner_type(experiment.recipe, placed(network), data, run, precision, **more)
