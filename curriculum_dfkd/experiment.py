"""From flags to a record, for all three programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from common.backbones.classifier import StagedClassifier
from common.data.grids import save_grid
from common.data.images import ImageSet
from common.training.device import choose_device
from common.training.errors import RunStopped, UserError
from common.training.precision import Precision, set_backend_flags
from common.training.run import Run
from common.training.seeding import seed_everything
from common.training.teachers import SHIPPED, check_accuracy, find_teacher, load_teacher
from curriculum_dfkd.data import describe, find_facts, loader_for, open_images
from curriculum_dfkd.evaluation import Evaluator
from curriculum_dfkd.factory import (
    build_generator,
    build_objective,
    build_optimizer,
    build_synthesiser,
    describe_parts,
)
from curriculum_dfkd.images import Normaliser
from curriculum_dfkd.learner import DataFreeDistillation
from curriculum_dfkd.networks import build_network
from curriculum_dfkd.options import DataFreeOptions, rounds_of
from curriculum_dfkd.synthesis.base import Networks
from curriculum_dfkd.synthesis.pool import ImagePool
from curriculum_dfkd.training import Training, cosine_rate

PAPER = "cudfkd"
TEST_BATCH = 500
"""Images per forward pass when testing; the result does not depend on it."""

SMOKE_BATCH, SMOKE_EPOCHS, SMOKE_STEPS = 4, 1, 1
SMOKE_NGF, SMOKE_IMAGES = 8, 2
"""Sizes of a short run: student updates per round, width of the generator, test images per class."""

TEACHER_FOLDERS = (Path("checkpoints/scratch"), Path("checkpoints/pretrained"), SHIPPED)
"""Where a teacher is looked for: the originals' two folders below the working directory, then the shipped ones."""


def teacher_weights(dataset: str, network: str, given: str | None = None) -> Path:
    """The file of `--teacher_weights`, else the first `<dataset>_<network>` in `TEACHER_FOLDERS`.

    Raises:
        UserError: if there is none, saying how to make it.
    """
    if given is None:
        advice = (
            f"train it with: python train_scratch.py --model {network} --dataset {dataset}, or give --teacher_weights"
        )
        return find_teacher(f"{dataset}_{network}", TEACHER_FOLDERS, advice)
    if not Path(given).is_file():
        raise UserError(f"--teacher_weights {given}: no such file")
    return Path(given)


class Setup:
    """What every program prepares: device, seed, data, number format.

    Args:
        config: flags of the program.
        run: where it is logged.
    """

    def __init__(self, config: Any, run: Run) -> None:
        self.config, self.run, self.device = config, run, run.device
        self.facts = find_facts(config.dataset)
        self.precision = Precision(config, self.device)
        self.layout = torch.channels_last if config.fast else None
        self.test = open_images(
            config.dataset, config.data_root, "test", smoke=config.smoke,
            per_class=SMOKE_IMAGES if config.smoke else getattr(config, "test_images_per_class", None),
        )

    @property
    def num_classes(self) -> int:
        """Classes of the data in use."""
        return len(self.test.classes)

    def open(self, split: str, dataset: str | None = None, per_class: int | None = None) -> ImageSet:
        """Images of a split of this run's data set, or of another one."""
        config = self.config
        return open_images(dataset or config.dataset, config.data_root, split, smoke=config.smoke, per_class=per_class)

    def network(self, name: str) -> StagedClassifier:
        """A fresh network for this data set, on the device. # rng: initial weights"""
        network = build_network(name, self.num_classes, self.facts.channels)
        return self.placed(network)

    def placed(self, module: Any) -> Any:
        """A module on the device, in the layout of the run."""
        return module.to(self.device, memory_format=self.layout) if self.layout else module.to(self.device)

    def loader(self, images: ImageSet, train: bool, batch_size: int, seed: int = 0) -> Any:
        """A loader over images with this data set's transform."""
        return loader_for(
            images, self.facts.transform, train=train, batch_size=batch_size, device=self.device, seed=seed,
            workers=self.config.workers, memory_format=self.layout,
        )

    def evaluator(self, teacher: nn.Module | None = None) -> Evaluator:
        """Tests on the test images."""
        return Evaluator(self.loader(self.test, False, TEST_BATCH), self.precision, self.device, teacher)

    def teacher(self, name: str, weights: str | None) -> tuple[StagedClassifier, dict[str, Any]]:
        """The frozen teacher, measured and compared with its card; and what the record says of it.

        A smoke run has no teacher for its sample: it gets one with initial weights.

        Raises:
            UserError: if there are no weights, or they are worse than their card says.
        """
        network = self.network(name)
        about: dict[str, Any] = {"teacher": name}
        found = None
        if not self.config.smoke:
            found = load_teacher(teacher_weights(self.config.dataset, name, weights), network)
        network.eval().requires_grad_(False)
        measured = self.evaluator().test(network)["acc1"]
        about |= {"teacher_accuracy": measured}
        if found is None:
            self.run.note(f"teacher: initial weights (a smoke run), {measured:.2f} %")
        else:
            self.run.note(check_accuracy(found, measured, self.test.fingerprint()))
            about |= found.describe()
        return network, about

    def labels(self, full: ImageSet | None = None, updates_of_pass: int | None = None) -> list[str]:
        """In what respect a run is not the full published setting.

        Args:
            full: the training images, if there are any.
            updates_of_pass: what an unset --ep_steps stands for.
        """
        config, changed = self.config, self.run.changed
        labels = ["smoke"] if config.smoke else []
        labels += [images.copy for images in (self.test, full) if images is not None and images.copy != "original"]
        if getattr(config, "desk_scale", False):
            labels.append("desk-scale")
        lengths = [
            [updates_of_pass if value is None else value for value in changed[name]]
            for name in ("epochs", "ep_steps")
            if name in changed
        ]
        if any(used < of_row for of_row, used in lengths):
            labels.append("shortened")
        if config.fast or config.precision != "fp32" or config.opt_level not in (None, "O0"):
            labels.append("fast")
        return labels


def run_program(
    config: Any, changed: dict[str, list[Any]], method: str, train: Callable[[Any, Run], dict[str, Any]],
    check_finished: Callable[[Any, Run], None] | None = None,
) -> dict[str, Any]:
    """Open the run's folder, skip a finished run, train; returns the metrics.

    Args:
        config: checked flags.
        changed: what the user changed of a script's row.
        method: name for the record.
        train: config and run -> metrics.
        check_finished: called instead of `train` for a finished run, to make again what is missing of its results.
    """
    device, notice = choose_device([0 if config.gpu is None else config.gpu], "--gpu")
    seed_everything(config.seed)
    set_backend_flags(config.fast)
    write_every = config.print_freq or (1 if config.smoke else 100)
    with Run(
        config, method=method, paper=PAPER, device=device, seed=config.seed, changed=changed, write_every=write_every
    ) as run:
        if notice and config.gpu is not None:
            run.note(notice)
        if run.finished and not getattr(config, "evaluate_only", False):
            run.note(f"finished already: {run.folder}")
            if check_finished is not None:
                check_finished(config, run)
            return run.read_record()["metrics"]
        return train(config, run)


def finish(
    training: Training, run: Run, about: dict[str, Any], data: dict[str, Any], labels: list[str],
    keep: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Train for what is left and write the record, the one of a stopped run too.

    Args:
        training: the loop.
        run: its folder.
        about: further entries of the metrics, e.g. of the teacher.
        data: what the run used.
        labels: see `Setup.labels`.
        keep: given the id of the run, writes what has to be there before the run counts as finished.

    Returns:
        The metrics: the loop's summary, `about`, and what the run cost.
    """
    try:
        training.fit()
    except RunStopped:
        run.write_record(training.summary() | about | run.cost(), data, labels, finished=False)
        raise
    if keep is not None:
        unfinished = run.write_record(training.summary() | about | run.cost(), data, labels, finished=False)
        keep(unfinished["run_id"])
    metrics = training.summary() | about | run.cost()
    run.write_record(metrics, data, labels)
    run.note(f"finished in {metrics['hours']:.2f} h; record: {run.folder / 'record.json'}")
    return metrics


def evaluate(training: Training, run: Run) -> dict[str, float]:
    """Test the network of the newest checkpoint, as `--evaluate_only` asks; returns the values that it notes.

    Raises:
        UserError: if there is no checkpoint.
    """
    if not run.restore():
        raise UserError(f"--evaluate_only: no checkpoint in {run.folder}; train first, or give its --output_dir")
    values = training.evaluator.test(training.model)
    shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
    run.note(f"after {training.epoch} epochs: {shown}")
    return values


# --- data-free distillation -------------------------------------------------------------------------------------------


def distil(config: DataFreeOptions, run: Run) -> dict[str, Any]:
    """One data-free run from its start or its newest checkpoint to its record; returns the metrics."""
    setup = Setup(config, run)
    teacher, about = setup.teacher(config.teacher, config.teacher_weights)
    student = setup.network(config.student)
    training = build_training(config, setup, teacher, student, about.get("teacher_sha256"))
    if config.evaluate_only:
        return evaluate(training, run)
    run.restore()
    return finish(training, run, about, describe(setup.test), setup.labels())


def build_training(
    config: DataFreeOptions, setup: Setup, teacher: StagedClassifier, student: StagedClassifier,
    teacher_sha256: str | None,
) -> DataFreeDistillation:
    """The loop with all its parts."""
    spec, channels = setup.facts.transform, setup.facts.channels
    networks = Networks(
        teacher, student, Normaliser(spec.mean, spec.std), setup.num_classes, channels, spec.size, setup.precision,
        setup.device,
    )
    generator = None
    if config.method != "deepinv":
        generator = setup.placed(build_generator(config, channels, spec.size))  # rng: initial weights
    setup.run.note(describe_parts(generator, student, teacher))
    synthesiser = build_synthesiser(config, networks, generator, build_pool(config, setup))
    rounds, _, per_round = rounds_of(config)
    return DataFreeDistillation(
        student, build_optimizer(config, student), cosine_rate(config.lr, config.epochs), config.epochs,
        setup.evaluator(teacher if config.log_fidelity else None), setup.precision, setup.run,
        config.validation_interval, teacher=teacher, synthesiser=synthesiser, objective=build_objective(config),
        rounds=rounds, student_steps=per_round, on_epoch=grid_writer(config, setup.run),
        teacher_sha256=teacher_sha256,
    )


def build_pool(config: DataFreeOptions, setup: Setup) -> ImagePool | None:
    """The pool of the methods that have one, with images inverted earlier if given."""
    if config.method not in ("deepinv", "cmi"):
        return None
    spec = setup.facts.transform
    folder = Path(config.output_dir) / config.save_dir if config.dump_pool else None
    shape = (setup.facts.channels, spec.size, spec.size)
    pool = ImagePool(spec, config.batch_size, setup.device, shape, folder, setup.layout)
    if config.cmi_init is not None:
        pool.add_folder(Path(config.cmi_init))
    return pool


def grid_writer(config: DataFreeOptions, run: Run) -> Callable[[DataFreeDistillation], None] | None:
    """Writes a grid of the newest synthetic images every few epochs and at the end; None: never."""
    if not config.grid_every:
        return None

    def write(training: DataFreeDistillation) -> None:
        done = training.epoch + 1
        if training.synthesiser.newest is not None and (done % config.grid_every == 0 or done == training.epochs):
            save_grid(training.synthesiser.newest, run.folder / "images" / f"epoch_{done:04d}.png")

    return write


def smoke_form(config: DataFreeOptions) -> DataFreeOptions:
    """The short form of a row: the embedded sample, few and small steps, everything else through the same code."""
    steps = {"kd_steps": SMOKE_STEPS, "kd_steps_interval": str(SMOKE_STEPS), "g_steps": min(2, config.g_steps)}
    return dataclasses.replace(
        config, epochs=SMOKE_EPOCHS, ep_steps=2 * SMOKE_STEPS, batch_size=SMOKE_BATCH, synthesis_batch_size=SMOKE_BATCH,
        ngf=SMOKE_NGF, cmi_init=None, grid_every=1, **steps,
    )
