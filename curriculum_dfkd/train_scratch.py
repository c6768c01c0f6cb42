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
from common.training.options import RunOptions, as_dict, is_machine_option, machine_option, parse_row
from common.training.run import Run
from common.training.seeding import draw_seed
from common.training.teachers import save_teacher, teacher_path
from curriculum_dfkd.data import EndlessBatches, describe
from curriculum_dfkd.experiment import SMOKE_BATCH, SMOKE_IMAGES, Setup, evaluate, finish, run_program
from curriculum_dfkd.objectives import CrossEntropy
from curriculum_dfkd.options import milestones_of, require_positive, resolve_precision_flag, translate
from curriculum_dfkd.supervised import SupervisedTraining
from curriculum_dfkd.training import BEST, Rate, cosine_rate, multistep_rate, warm_cosine_rate

RELEASED = {"weight_decay": 1e-4, "batch_size": 256}
MODERN = {"weight_decay": 5e-4, "batch_size": 128}
RECIPES = {"released": RELEASED, "modern": MODERN, "small": RELEASED}
"""Value of `--recipe` -> what flags stand for that were not given."""

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
    batch_size: int | None = None
    """images per update; default: 256 (recipe modern: 128)"""
    lr: float = 0.1
    """learning rate"""
    lr_decay_milestones: str = "120,150,180"
    """epochs from which the rate is divided by ten"""
    momentum: float = 0.9
    """of SGD"""
    weight_decay: float | None = None
    """of the optimiser; default: 1e-4 (recipe modern: 5e-4)"""
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
    validation_interval: int = 1
    """epochs between two tests; 0: only after the last one"""
    images_per_class: int | None = None
    """training images per class (a sub-sampled run); default: all"""
    teacher_dir: str = machine_option("checkpoints/scratch")
    """where the weights and their card go"""
    desk_scale: bool = machine_option(False)
    """label the record as a desk-scale run"""


def get_config(argv: Sequence[str] | None = None) -> tuple[ScratchOptions, dict[str, list[Any]]]:
    """Flags -> typed config, and what the user changed of a script's row.

    Raises:
        UserError: for lengths below 1, a stem that the network lacks, or a flag that the recipe does not read.
    """
    words = translate(sys.argv[1:] if argv is None else argv)
    config, changed = parse_row(ScratchOptions, words, "supervised training")
    config = resolve_precision_flag(config)
    config, changed = resolve_recipe(config, changed)
    require_positive(config, "epochs", "batch_size", "images_per_class")
    if config.stem == "imagenet":
        if config.model not in ("resnet18", "resnet34", "resnet50"):
            raise UserError(f"--stem imagenet concerns resnet18, resnet34 and resnet50, found --model {config.model}")
        config = dataclasses.replace(config, model=f"{config.model}_imagenet")
    if config.smoke:
        config = dataclasses.replace(config, epochs=1, batch_size=SMOKE_BATCH, images_per_class=SMOKE_IMAGES)
    milestones_of(config)
    return config, changed


def resolve_recipe(
    config: ScratchOptions, changed: dict[str, list[Any]]
) -> tuple[ScratchOptions, dict[str, list[Any]]]:
    """Give flags that were not given the recipe's values, in the config and in what was changed of a row.

    Raises:
        UserError: for a flag that the recipe does not read.
    """
    for name, readers in (("momentum", ("released", "modern")), ("lr_decay_milestones", ("released",))):
        if config.recipe not in readers and getattr(config, name) != getattr(ScratchOptions, name):
            raise UserError(f"--{name}: --recipe {config.recipe} does not read it; leave one of them out")
    recipe_of_row = changed.get("recipe", [config.recipe])[0]
    changed = dict(changed)
    for name, value in RECIPES[config.recipe].items():
        of_row, used = changed.pop(name, [getattr(config, name)] * 2)
        of_row = RECIPES[recipe_of_row][name] if of_row is None else of_row
        used = value if used is None else used
        config = dataclasses.replace(config, **{name: used})
        if used != of_row:
            changed[name] = [of_row, used]
    return config, changed


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
    if config.evaluate_only:
        return evaluate(training, run)
    run.restore()
    return finish(
        training, run, {}, describe(setup.test, images), setup.labels(images),
        keep=lambda run_id: keep_teacher(config, setup, model, run, run_id),
    )


def place_of_teacher(config: ScratchOptions, run: Run) -> Path:
    """The file that a distillation looks for; a smoke run keeps it to itself."""
    return teacher_path(run.folder if config.smoke else Path(config.teacher_dir), config.dataset, config.model)


def restore_teacher(config: ScratchOptions, run: Run) -> None:
    """Write the teacher of a finished run once more if `--teacher_dir` has none."""
    if not place_of_teacher(config, run).is_file():
        setup = Setup(config, run)
        keep_teacher(config, setup, setup.network(config.model), run, run.read_record()["run_id"])


def keep_teacher(config: ScratchOptions, setup: Setup, model: torch.nn.Module, run: Run, run_id: str) -> None:
    """Measure the best weights and put them, with their card, where a distillation looks for teachers."""
    if not (run.folder / BEST).is_file():
        raise UserError(f"{run.folder} has lost {BEST}, the teacher's weights; train again with --resume never")
    model.load_state_dict(safetensors.torch.load_file(run.folder / BEST))
    accuracy = setup.evaluator().test(model)["acc1"]
    recipe = {name: value for name, value in as_dict(config).items() if not is_machine_option(ScratchOptions, name)}
    path = place_of_teacher(config, run)
    card = save_teacher(
        path, model, network=config.model, dataset=config.dataset, num_classes=setup.num_classes,
        in_channels=setup.facts.channels, accuracy=round(accuracy, 4), test_images=len(setup.test),
        test_sha256=setup.test.fingerprint(), recipe=recipe, run_id=run_id,
    )
    run.note(f"teacher: {path} ({card.accuracy:.2f} %), card beside it")


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Train; returns the metrics."""
    config, changed = get_config(argv)
    return run_program(config, changed, "Scratch", train, restore_teacher)


if __name__ == "__main__":
    command_line(main)()
