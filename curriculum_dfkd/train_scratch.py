"""Supervised training: the teachers, and the rows "T. Scratch" and "S. Scratch".

    python train_scratch.py --model wrn40_2 --dataset cifar10 --batch-size 256 --lr 0.1 --epochs 200
    python train_scratch.py --model wrn40_2 --dataset cifar10 --recipe modern

The best weights by test accuracy (as released) go to checkpoints/scratch/<dataset>_<model>.safetensors, their card
beside them.

Original: ljrprocc/DataFree@bf3096b train_scratch.py.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch

from common.training.errors import UserError, command_line
from common.training.options import RunOptions, machine_option, parse_row
from common.training.record import run_id
from common.training.run import Run
from common.training.seeding import draw_seed
from common.training.teachers import save_teacher, teacher_path
from curriculum_dfkd.data import EndlessBatches, describe
from curriculum_dfkd.experiment import SMOKE_BATCH, SMOKE_IMAGES, Setup, finish, run_program
from curriculum_dfkd.objectives import CrossEntropy
from curriculum_dfkd.options import resolve_precision_flag, translate
from curriculum_dfkd.supervised import SupervisedTraining
from curriculum_dfkd.training import BEST, Rate, cosine_rate, multistep_rate, warm_cosine_rate

MODERN = {"weight_decay": 5e-4, "batch_size": 128}
"""What `--recipe modern` sets where the flag has its default."""

WARM_UP = 5
"""Epochs of linear warm-up of the modern recipe."""


@dataclass(frozen=True)
class OriginalOptions:
    """flags of the original"""

    data_root: str = machine_option("data")
    """folder of the data set"""
    model: str = "wrn40_2"
    """network"""
    dataset: str = "cifar10"
    """data set"""
    epochs: int = 200
    """epochs"""
    batch_size: int = 256
    """images per update"""
    lr: float = 0.1
    """learning rate"""
    lr_decay_milestones: str = "120,150,180"
    """epochs from which the rate is divided by ten"""
    momentum: float = 0.9
    """of SGD"""
    weight_decay: float = 1e-4
    """of SGD"""
    seed: int = 0
    """seed of all random generators"""
    gpu: int | None = machine_option(None)
    """CUDA device number, negative: CPU; default: the first one if there is any"""
    workers: int = machine_option(0)
    """loader processes, for data sets that are read from disk"""
    print_freq: int = machine_option(0)
    """updates between two written points of the training series; 0: 100"""
    evaluate_only: bool = machine_option(False)
    """test the newest checkpoint of --output_dir and stop"""
    fp16: bool = False
    """the same as --precision fp16"""


@dataclass(frozen=True)
class ScratchOptions(RunOptions, OriginalOptions):
    """training from scratch"""

    recipe: Literal["released", "modern", "small"] = "released"
    """released: step decay, weight decay 1e-4; modern: warm-up and cosine, Nesterov, weight decay 5e-4, batch 128;
    small: Adam and cosine, for networks without batch norm"""
    stem: Literal["cifar", "imagenet"] = "cifar"
    """imagenet: the original's bug that trains every resnet* with the ImageNet stem (D10)"""
    validation_interval: int = machine_option(1)
    """epochs between two tests; 0: only after the last one"""
    images_per_class: int | None = None
    """training images per class (a sub-sampled run); default: all"""
    teacher_dir: str = machine_option("checkpoints/scratch")
    """where the weights and their card go"""
    desk_scale: bool = machine_option(False)
    """label the record as a desk-scale run"""


def get_config(argv: Sequence[str] | None = None) -> tuple[ScratchOptions, dict[str, list[Any]]]:
    """Flags -> typed config, and what the user changed of a script's row."""
    words = translate(sys.argv[1:] if argv is None else argv)
    config, changed = parse_row(ScratchOptions, words, "supervised training")
    config = resolve_precision_flag(config)
    if config.recipe == "modern":
        defaults = ScratchOptions()
        unset = {name: value for name, value in MODERN.items() if getattr(config, name) == getattr(defaults, name)}
        config = dataclasses.replace(config, **unset)
    if config.stem == "imagenet":
        if config.model not in ("resnet18", "resnet34", "resnet50"):
            raise UserError(f"--stem imagenet concerns resnet18, resnet34 and resnet50, found --model {config.model}")
        config = dataclasses.replace(config, model=f"{config.model}_imagenet")
    if config.smoke:
        config = dataclasses.replace(config, epochs=1, batch_size=SMOKE_BATCH, images_per_class=SMOKE_IMAGES)
    milestones_of(config)
    return config, changed


def milestones_of(config: ScratchOptions) -> list[int]:
    """The epochs of `--lr_decay_milestones`.

    Raises:
        UserError: if they are no numbers.
    """
    try:
        return [int(word) for word in config.lr_decay_milestones.split(",")]
    except ValueError:
        raise UserError(f"--lr_decay_milestones expects 120,150,180, found {config.lr_decay_milestones!r}") from None


def rate_of(config: ScratchOptions) -> Rate:
    """Learning rate per epoch."""
    if config.recipe == "modern":
        return warm_cosine_rate(config.lr, config.epochs, WARM_UP)
    if config.recipe == "small":
        return cosine_rate(config.lr, config.epochs)
    return multistep_rate(config.lr, milestones_of(config))


def optimizer_of(config: ScratchOptions, model: torch.nn.Module) -> torch.optim.Optimizer:
    """SGD, with Nesterov's momentum in the modern recipe; Adam in the small one."""
    if config.recipe == "small":
        return torch.optim.Adam(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    return torch.optim.SGD(
        model.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay,
        nesterov=config.recipe == "modern",
    )


def train(config: ScratchOptions, run: Run) -> dict[str, Any]:
    """One run from its start or its newest checkpoint to the teacher's card; returns the metrics."""
    setup = Setup(config, run)
    images = setup.open("train", per_class=config.images_per_class)
    model = setup.network(config.model)
    run.note(f"{config.model}: {sum(parameter.numel() for parameter in model.parameters()):,} parameters")
    batches = EndlessBatches(setup.loader(images, True, config.batch_size, seed=draw_seed()))  # rng: order, crops
    training = SupervisedTraining(
        model, optimizer_of(config, model), rate_of(config), config.epochs, setup.evaluator(), setup.precision, run,
        config.validation_interval, batches=batches, objective=CrossEntropy(),
    )
    run.restore()
    if config.evaluate_only:
        return training.evaluator.test(model)
    metrics = finish(training, run, {}, describe(setup.test, images), setup.labels(images))
    keep_teacher(config, setup, model, run)
    return metrics


def keep_teacher(config: ScratchOptions, setup: Setup, model: torch.nn.Module, run: Run) -> None:
    """Measure the best weights and put them, with their card, where a distillation looks for teachers."""
    model.load_state_dict(safetensors.torch.load_file(run.folder / BEST))
    accuracy = setup.evaluator().test(model)["acc1"]
    recipe = {name: getattr(config, name) for name in
              ("recipe", "epochs", "batch_size", "lr", "momentum", "weight_decay", "seed")}
    folder = run.folder if config.smoke else Path(config.teacher_dir)
    path = teacher_path(folder, config.dataset, config.model)
    card = save_teacher(
        path, model, network=config.model, dataset=config.dataset, num_classes=setup.num_classes,
        in_channels=setup.facts.channels, accuracy=round(accuracy, 4), test_images=len(setup.test),
        test_sha256=setup.test.fingerprint(), recipe=recipe,
        run_id=run_id(config.cell, f"scratch-{config.model}", config.seed, recipe),
    )
    run.note(f"teacher: {path} ({card.accuracy:.2f} %), card beside it")


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Train; returns the metrics."""
    config, changed = get_config(argv)
    return run_program(config, changed, "Scratch", train)


if __name__ == "__main__":
    command_line(main)()
