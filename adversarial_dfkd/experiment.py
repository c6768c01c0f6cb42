"""From a checked configuration to a record."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from adversarial_dfkd.data import FACTS, constants, open_test_images, test_tensor
from adversarial_dfkd.evaluation import TestImages
from adversarial_dfkd.learner import BEST, AdversarialDistillation
from adversarial_dfkd.networks import (
    build_memory_generator,
    build_novel_generator,
    build_student,
    build_teacher,
    default_teacher,
)
from adversarial_dfkd.options import AGENTS, LRAOptions
from adversarial_dfkd.replay import GenerativeReplay, MemoryBank
from common.backbones.classifier import StagedClassifier
from common.data.grids import save_grid
from common.data.images import ImageSet
from common.training.device import choose_device
from common.training.errors import RunStopped, UserError
from common.training.precision import Precision, set_backend_flags
from common.training.run import Run
from common.training.seeding import seed_everything
from common.training.teachers import check_accuracy, find_teacher, load_teacher

PAPER = "lra"

TEACHER_ADVICE = (
    "put one there, or give --set teacher_dir=FOLDER --set teacher_name=NAME (and --set teacher=NETWORK)"
)
"""What to do about a missing teacher."""

SMOKE = {
    "max_epoch": 2, "iterations": 1, "kd_iter": 1, "batch_size": 16, "latent_dim": 16, "test_images_per_class": 1,
    "log_meta_loss": "step",
}  # fmt: skip
"""Sizes of a short run. why two epochs: the bank is empty in the first one."""


def smoke_form(config: LRAOptions) -> LRAOptions:
    """The short form of a row: the embedded sample, few and small steps, everything else through the same code."""
    return dataclasses.replace(config, **SMOKE)


def is_shortened(config: LRAOptions, changed: dict[str, list[Any]]) -> bool:
    """Whether epochs, iterations or student steps were lowered, of what was changed of a configuration file."""
    counts = [changed[name] for name in ("max_epoch", "kd_iter") if name in changed]
    if "iterations" in changed:  # an unset one stands for the released number
        counts.append([dataclasses.replace(config, iterations=n).outer_iterations for n in changed["iterations"]])
    return any(used < row for row, used in counts)


def method_name(config: LRAOptions) -> str:
    """Name for the record; a meta-gradient that is not the released one is part of it."""
    name = AGENTS[config.agent]
    return name if config.meta_gradient == "detached" else f"{name} ({config.meta_gradient.replace('_', ' ')})"


class Noise:
    """Standard normal latent vectors, drawn on the device. # rng: the device's global generator, one call each

    Args:
        latent_dim: length of a vector.
        device: where they are drawn. original: the novel generator's come from a CPU generator that a run on a GPU
            never seeds (D4).
    """

    def __init__(self, latent_dim: int, device: torch.device) -> None:
        self.latent_dim, self.device = latent_dim, device

    def __call__(self, count: int) -> Tensor:
        return torch.randn(count, self.latent_dim, device=self.device)


class Experiment:
    """Everything of a run, built in the original's order.

    Args:
        config: checked.
        run: its folder.

    Attributes:
        images: test images as stored.
        training: the loop.
        about: what the record says of the teacher.
    """

    def __init__(self, config: LRAOptions, run: Run) -> None:
        self.config, self.run, self.device = config, run, run.device
        self.images = open_test_images(
            config.dataset, config.data, smoke=config.smoke, per_class=config.test_images_per_class
        )
        self.precision = Precision(config, self.device)
        self.test = TestImages(
            test_tensor(config.dataset, self.images.images, config.image_side, config.normalisation).to(self.device),
            self.images.labels.to(self.device), FACTS[config.dataset].test_batch or config.batch_size, self.precision,
        )  # fmt: skip
        own = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=own):  # why: the draws below then do not depend on the teacher's network
            teacher, self.about = self._teacher()
        self.training = self._training(teacher)

    @property
    def labels(self) -> list[str]:
        """In what respect this run is not the full published setting."""
        config = self.config
        labels = ["smoke"] if config.smoke else []
        labels += [] if self.images.copy == "original" else [self.images.copy]
        labels += ["desk-scale"] if config.desk_scale else []
        labels += ["fast"] if config.fast or config.precision != "fp32" else []
        return [*labels, "shortened"] if is_shortened(config, self.run.changed) else labels

    @property
    def data(self) -> dict[str, Any]:
        """What the run tested on."""
        images: ImageSet = self.images
        return {
            "name": images.name, "sha256": images.fingerprint(), "copy": images.copy, "note": images.note,
            "train_images": 0, "test_images": len(images), "classes": len(images.classes),
        }  # fmt: skip

    def metrics(self) -> dict[str, Any]:
        """Of the record."""
        return self.training.summary() | self.about | self.run.cost()

    def _teacher(self) -> tuple[StagedClassifier, dict[str, Any]]:
        """The frozen teacher, measured; a smoke run has none for its sample and gets one with initial weights."""
        config, facts = self.config, FACTS[self.config.dataset]
        name = default_teacher(config.dataset) if config.teacher == "default" else config.teacher
        network = self._placed(build_teacher(name, len(self.images.classes), facts.channels))
        found = None
        if not config.smoke:
            found = load_teacher(find_teacher(config.teacher_name, [Path(config.teacher_dir)], TEACHER_ADVICE), network)
        else:
            measure_statistics(network, self.test.images)
        network.eval().requires_grad_(False)
        measured = 100 * self.test.score(network).accuracy
        about: dict[str, Any] = {"teacher": name, "teacher_accuracy": measured}
        if found is None:
            self.run.note(f"teacher: initial weights (a smoke run), {measured:.2f} %")
            return network, about
        self.run.note(check_accuracy(found, measured, self.images.fingerprint()))
        return network, about | found.describe()

    def _training(self, teacher: StagedClassifier) -> AdversarialDistillation:
        config, channels = self.config, FACTS[self.config.dataset].channels
        shape = config.latent_dim, config.img_size, channels, config.upsampling, config.norm_epsilon
        noise = Noise(config.latent_dim, self.device)
        # rng: novel generator, memory generator, encoder, student
        generator = self._placed(build_novel_generator(*shape))
        replay: MemoryBank | GenerativeReplay = MemoryBank(config.memory_capacity)
        if not config.has_bank:
            decoder, encoder = (self._placed(part) for part in build_memory_generator(*shape, config.encoder_unit))
            replay = GenerativeReplay(
                decoder, encoder, teacher, count=config.replayed_images, lr=config.lr_G, weights=config.weights,
                noise=noise, clean_gradient=config.clean_vae_gradient, autocast=self.precision.autocast,
            )  # fmt: skip
        student = self._placed(build_student(config.student, config.dataset, len(self.images.classes), channels))
        counts = {name: sum(p.numel() for p in part.parameters()) for name, part in
                  (("teacher", teacher), ("student", student), ("generator", generator))}  # fmt: skip
        self.run.note("parameters: " + ", ".join(f"{name} {count:,}" for name, count in counts.items()))
        return AdversarialDistillation(
            config, teacher, student, generator, replay, noise, self.test, self.precision, self.run, self._write_grid
        )

    def _write_grid(self, epoch: int, images: Tensor) -> None:
        """A picture of novel images every few epochs and after the last one."""
        config = self.config
        if config.grid_every and (epoch % config.grid_every == 0 or epoch == config.max_epoch):
            values = constants(config.dataset, config.normalisation)
            mean, std = (torch.tensor(value).view(-1, 1, 1) for value in values)
            save_grid(images.float().cpu() * std + mean, self.run.folder / "images" / f"epoch_{epoch:04d}.png")

    def _placed(self, module: nn.Module) -> Any:
        return module.to(self.device, memory_format=torch.channels_last if self.config.fast else torch.preserve_format)


def measure_statistics(network: nn.Module, images: Tensor) -> None:
    """Set the running statistics of a network with initial weights to those of some images.

    why: without them the activations of a deep untrained network grow until a class has no probability left, and the
    entropy term is not defined.
    """
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 1.0
    with torch.no_grad():
        network.train()(images)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum


def run_experiment(config: LRAOptions, changed: dict[str, list[Any]], notes: list[str]) -> dict[str, Any]:
    """Train (or test) from the start or the newest checkpoint; returns the metrics.

    Args:
        config: checked.
        changed: what the user changed of the configuration file.
        notes: lines for the log.
    """
    device, notice = choose_device([config.gpu_device if config.cuda else -1], "--gpu_device")
    seed_everything(config.seed)
    set_backend_flags(config.fast)
    torch.backends.cudnn.enabled = not config.cudnn_disabled
    if config.benchmark:
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = True, False
    folder = Path(config.output_dir or Path("experiments") / config.exp_name)
    write_every = 1 if config.smoke else 10
    with Run(
        config, method=method_name(config), paper=PAPER, device=device, seed=config.seed, changed=changed,
        folder=folder, write_every=write_every,
    ) as run:  # fmt: skip
        for note in (notes if notice is None else [notice, *notes]):
            run.note(note)
        if run.finished and config.mode == "train":
            run.note(f"finished already: {run.folder}")
            return run.read_record()["metrics"]
        experiment = Experiment(config, run)
        resumed = run.restore()
        return train(experiment, run) if config.mode == "train" else test_saved(experiment, run, resumed)


def train(experiment: Experiment, run: Run) -> dict[str, Any]:
    """Train for what is left and write the record, the one of a stopped run too."""
    try:
        experiment.training.fit()
    except RunStopped:
        run.write_record(experiment.metrics(), experiment.data, experiment.labels, finished=False)
        raise
    metrics = experiment.metrics()
    run.write_record(metrics, experiment.data, experiment.labels)
    run.note(f"finished in {metrics['hours']:.2f} h; record: {run.folder / 'record.json'}")
    return metrics


def test_saved(experiment: Experiment, run: Run, resumed: bool) -> dict[str, Any]:
    """Test the student of the newest checkpoint, and the best one.

    Raises:
        UserError: if the folder holds no checkpoint.
    """
    if not resumed:
        raise UserError(f"mode test: {run.folder} holds no checkpoint; train first, or give the --output_dir of a run")
    training = experiment.training
    metrics: dict[str, Any] = {"epochs_done": training.epoch}
    students = {"acc": None, "best_acc": run.folder / BEST}
    for name, path in students.items():
        if path is not None:
            if not path.is_file():
                continue
            training.student.load_state_dict(safetensors.torch.load(path.read_bytes()))
        score = experiment.test.score(training.student)
        metrics |= {name: 100 * score.accuracy, f"{name}_loss": score.loss}
        run.note(f"{name}: {100 * score.accuracy:.2f} %, cross-entropy {score.loss:.4f}")
    return metrics


test_saved.__test__ = False  # not for pytest
