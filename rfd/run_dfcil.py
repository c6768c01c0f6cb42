"""The original ABD protocol: its flags, networks, data pipeline, and the baselines of its paper.

    sh scripts/abd.sh                                # every row, repetition 0
    sh scripts/abd.sh cifar100-5-abd --seed 1        # one row, repetition 1; the tables have 0, 1 and 2
    python run_dfcil.py --help

Original: GT-RIPL/AlwaysBeDreaming-DFCIL@9295039 run_dfcil.py. Deviations: see README.md, section "Deviations".
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from common.backbones import resnet_abd
from common.data.images import ImageSet
from common.data.splits import ClassSplit, task_boundaries
from common.training.errors import UserError, command_line
from common.training.files import write_json
from common.training.options import RunOptions, machine_option, parse_row
from common.training.precision import resolve_precision
from rfd.data.image_sets import open_images
from rfd.data.protocol import repetition_order
from rfd.data.tasks import TaskImages
from rfd.data.transforms import ABD
from rfd.evaluation import mean_and_spread
from rfd.experiment import Experiment, run_experiment
from rfd.inversion import InversionRecipe
from rfd.recipe import Recipe

DATASETS = {"CIFAR10": "cifar10", "CIFAR100": "cifar100", "TinyImageNet": "tiny-imagenet200", "ImageNet": "imagenet50",
            "Sample": "sample"}  # fmt: skip
LEARNERS = {
    ("default", "NormalNN"): "base", ("kd", "LWF"): "lwf", ("kd", "LWF_MC"): "lwf_mc",
    ("datafree", "AlwaysBeDreaming"): "abd", ("datafree", "DeepInversionLWF"): "lwf_synthetic",
    ("datafree", "DeepInversionGenBN"): "deepinv",
}  # fmt: skip
GENERATORS = {"CIFAR_GEN": 32, "TINYIMNET_GEN": 64, "IMNET_GEN": 224}
NETWORKS = {("resnet", "resnet32"): resnet_abd.resnet32, ("resnet", "resnet18"): resnet_abd.resnet18}
HEADLINE = ("global", "last", "average", "forgetting")
_IMAGENET_CLASSES, _GAMMA = 50, 0.1


@dataclass(frozen=True)
class OriginalOptions:
    """flags of the original"""

    gpuid: list[int] = machine_option([0])
    """CUDA device number; negative: CPU"""
    log_dir: str = machine_option("outputs/out")
    """the original's name for --output_dir; another one than the default replaces it"""
    model_type: str = "mlp"
    """family of the network; offered: resnet"""
    model_name: str = "MLP"
    """network; offered: resnet32, resnet18"""
    gen_model_type: str = "mlp"
    """family of the generator; learners that replay need: generator"""
    gen_model_name: str = "MLP"
    """generator: CIFAR_GEN, TINYIMNET_GEN or IMNET_GEN, fitting the images"""
    learner_type: str = "default"
    """family of the method: default, kd, datafree"""
    learner_name: str = "NormalNN"
    """method: NormalNN; LWF, LWF_MC; AlwaysBeDreaming, DeepInversionLWF, DeepInversionGenBN"""
    dataroot: str = machine_option("data")
    """folder of the data sets"""
    dataset: str = "MNIST"
    """data set; offered: CIFAR10, CIFAR100, TinyImageNet, ImageNet (50 classes of ImageNet-100), Sample"""
    load_model_dir: str | None = None
    """not offered"""
    workers: int = machine_option(8)
    """processes that read image files"""
    validation: bool = False
    """not offered: a part of the training images in place of the test images"""
    repeat: int = 1
    """repetitions; number r has seed r and the r-th published class order"""
    overwrite: int = machine_option(0)
    """1: start over, like --resume never"""
    optimizer: str = "SGD"
    """offered: SGD"""
    train_aug: bool = False
    """augment training images"""
    lr: float = 0.01
    """learning rate"""
    momentum: float = 0.0
    """momentum of SGD"""
    weight_decay: float = 0.0
    """L2 weight decay"""
    schedule: list[int] = field(default_factory=lambda: [2])
    """epochs at which the learning rate is divided by 10; the last number is the number of epochs per task"""
    schedule_type: str = "decay"
    """offered: decay"""
    batch_size: int = 64
    """images per step, and as many synthetic ones"""
    power_iters: int = 10
    """generator steps per task"""
    deep_inv_params: list[float] = field(default_factory=lambda: [-1.0])
    """of the generator: learning rate, weights of statistics and smoothness, temperature and weight of the certainty"""
    first_split_size: int = 2
    """classes of the first task"""
    other_split_size: int = 2
    """classes of every other task"""
    rand_split: bool = False
    """the published class order of the repetition instead of 0, 1, 2, ..."""
    DW: bool = False
    """class weights by frequency; without a memory they are all 1"""
    oracle_flag: bool = False
    """the upper bound: a fresh network learns the images of all classes seen, for every task"""
    max_task: int = -1
    """stop after so many tasks; -1: all"""
    memory: int = 0
    """only 0: no image is kept"""
    temp: float = 2.0
    """temperature of the distillation"""
    mu: float = 1.0
    """weight of the distillation"""
    beta: float = 0.5
    """read and never used, here as in the original"""


@dataclass(frozen=True)
class AbdOptions(OriginalOptions, RunOptions):
    """all flags"""

    output_dir: str = machine_option("outputs/out")
    """folder of this run: log, series, checkpoints, record"""
    seed: int = 0
    """number of the first repetition"""
    images_per_class: int | None = None
    """training images per class (a sub-sampled run); default: all"""
    check_val_every_n_epoch: int = machine_option(50)
    """epochs between two tests, for the log; training does not depend on it (the original tests after every epoch)"""
    keep_checkpoints: str = machine_option("none")
    """files of each task: all, last or none"""
    noise: str = "device"
    """where the generator's noise is drawn: device, or cpu"""


def get_config(argv: Sequence[str] | None = None) -> tuple[AbdOptions, dict[str, list[Any]]]:
    """Flags -> config, and what the user changed of a script's row.

    Raises:
        UserError: for what is not offered, in one line.
    """
    config, changed = parse_row(AbdOptions, argv, "the original ABD protocol: ABD and the baselines of its paper")
    offered = {
        "dataset": tuple(DATASETS), "optimizer": ("SGD",), "schedule_type": ("decay",), "validation": (False,),
        "load_model_dir": (None,), "memory": (0,), "keep_checkpoints": ("all", "last", "none"),
        "noise": ("device", "cpu"),
    }  # fmt: skip
    for name, values in offered.items():
        if getattr(config, name) not in values:
            raise UserError(
                f"--{name} {getattr(config, name)} is not offered; expected {' or '.join(map(str, values))}"
            )
    if (config.model_type, config.model_name) not in NETWORKS:
        known = " or ".join(f"--model_type {family} --model_name {name}" for family, name in NETWORKS)
        raise UserError(
            f"--model_type {config.model_type} --model_name {config.model_name} is not offered; expected {known}"
        )
    if (config.learner_type, config.learner_name) not in LEARNERS:
        known = "; ".join(f"--learner_type {family} --learner_name {name}" for family, name in LEARNERS)
        raise UserError(f"--learner_type {config.learner_type} --learner_name {config.learner_name}: expected {known}")
    if config.learner_type == "datafree":
        size = ABD[DATASETS[config.dataset]].size
        if config.gen_model_type != "generator" or GENERATORS.get(config.gen_model_name) != size:
            name = next(name for name, pixels in GENERATORS.items() if pixels == size)
            raise UserError(
                f"--gen_model_type {config.gen_model_type} --gen_model_name {config.gen_model_name} does not make "
                f"images for {config.dataset}; expected --gen_model_type generator --gen_model_name {name}"
            )
        if len(config.deep_inv_params) != 5:
            raise UserError(f"--deep_inv_params expects 5 numbers, found {len(config.deep_inv_params)}")
    if config.oracle_flag and config.learner_type != "default":
        raise UserError("--oracle_flag goes with --learner_type default --learner_name NormalNN only")
    least = {
        "repeat": 1, "schedule": 1, "check_val_every_n_epoch": 1, "batch_size": 1, "power_iters": 0, "workers": 0,
    }  # fmt: skip
    for name, bound in least.items():
        found = getattr(config, name)
        if min(found if isinstance(found, list) else [found], default=bound - 1) < bound:
            raise UserError(f"--{name} {found}: expected numbers of at least {bound}")
    if config.log_dir != AbdOptions.log_dir:
        config = dataclasses.replace(config, output_dir=config.log_dir)
    return (dataclasses.replace(config, resume="never") if config.overwrite else config), changed


def build_recipe(config: AbdOptions, repetition: int) -> Recipe:
    """The numbers that a learner needs."""
    inversion = InversionRecipe()
    if config.learner_type == "datafree":
        lr, statistics, smoothness, temperature, ce = config.deep_inv_params
        inversion = InversionRecipe(
            config.power_iters, lr, temperature, ce, smoothness, statistics, config.noise, config.fast
        )
    return Recipe(
        epochs=config.schedule[-1], base_lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay,
        lr_factor=_GAMMA, milestones=tuple(config.schedule), mu=config.mu, temperature=config.temp, inversion=inversion,
        check_every=config.check_val_every_n_epoch, seed_per_task=repetition, fast=config.fast,
    )  # fmt: skip


def build_data(config: AbdOptions, repetition: int, device: torch.device) -> TaskImages:
    """The images of every task."""
    name = DATASETS[config.dataset]
    source = "sample" if config.smoke else "imagenet100" if name == "imagenet50" else name
    train, test = (open_images(source, config.dataroot, split, sorted_classes=True) for split in ("train", "test"))
    if name == "imagenet50" and not config.smoke:
        train, test = imagenet50(train), imagenet50(test)
    if config.smoke:
        train, test = train.classes_only(4), test.classes_only(4).per_class(2)
    if config.images_per_class is not None:
        train = train.per_class(config.images_per_class)
    classes = len(train.classes)
    order = repetition_order(name, classes, repetition) if config.rand_split else list(range(classes))
    split = ClassSplit(tuple(order), task_boundaries(classes, config.first_split_size, config.other_split_size))
    return TaskImages(
        train, test, split, ABD[name], recipe="abd", batch_size=config.batch_size, device=device,
        augment=config.train_aug, workers=config.workers, channels_last=config.fast,
    )  # fmt: skip


def imagenet50(images: ImageSet) -> ImageSet:
    """The first 50 classes of ImageNet-100. The protocol has no others, so a complete copy stays a complete one."""
    return dataclasses.replace(images.classes_only(_IMAGENET_CLASSES), copy=images.copy)


def smoke_form(config: AbdOptions) -> AbdOptions:
    """The short form: the embedded sample at the row's image size, two tasks, few steps."""
    large = ABD[DATASETS[config.dataset]].size > 64
    return dataclasses.replace(
        config, first_split_size=2, other_split_size=2, max_task=-1, schedule=[1, 2], power_iters=2, repeat=1,
        images_per_class=1 if large else 8, batch_size=2 if large else 8, check_val_every_n_epoch=1,
    )  # fmt: skip


def labels_of(config: AbdOptions, changed: dict[str, list[Any]], data: TaskImages) -> list[str]:
    """In what respect a run is not the full published setting."""
    labels = ["smoke"] if config.smoke else []
    if data.train_set.copy != "original":
        labels.append(data.train_set.copy)
    if config.dataset == "Sample":
        labels.append("desk-scale")
    epochs, steps = changed.get("schedule", [[0], [0]]), changed.get("power_iters", [0, 0])
    if epochs[1][-1] < epochs[0][-1] or steps[1] < steps[0] or "max_task" in changed:
        labels.append("shortened")
    if config.fast or resolve_precision(config) != "fp32":
        labels.append("fast")
    return labels


def prepare(config: AbdOptions, changed: dict[str, list[Any]], repetition: int) -> Experiment:
    """What `run_experiment` needs for one repetition."""
    network = NETWORKS[(config.model_type, config.model_name)]
    return Experiment(
        method="joint" if config.oracle_flag else LEARNERS[(config.learner_type, config.learner_name)],
        recipe=build_recipe(config, repetition),
        seed=repetition,
        gpu_ids=config.gpuid,
        make_data=lambda device: build_data(config, repetition, device),
        labels=lambda data: labels_of(config, changed, data),
        make_network=network,
        max_tasks=config.max_task if config.max_task > 0 else None,
        keep_checkpoints=config.keep_checkpoints,
    )


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run all repetitions; returns the metrics of each, and mean and spread of the headline numbers."""
    config, changed = get_config(argv)
    if config.smoke:
        config = smoke_form(config)
    found, begin = [], time.monotonic()
    for repetition in range(config.seed, config.seed + config.repeat):
        folder = Path(config.output_dir)
        folder = folder / f"repeat-{repetition}" if config.repeat > 1 else folder
        found.append(run_experiment(config, changed, prepare(config, changed, repetition), folder, begin))
    total: dict[str, Any] = {"runs": found}
    for name in HEADLINE:
        total[name], total[f"{name}_std"] = mean_and_spread([metrics[name] for metrics in found])
    if len(found) > 1:
        write_json(Path(config.output_dir) / "summary.json", total)
        print(", ".join(f"{name} {total[name]:.2f} +- {total[f'{name}_std']:.2f}" for name in HEADLINE), flush=True)
    return total


if __name__ == "__main__":
    command_line(main)()
