"""Distillation on real images (or a folder of inverted ones): the ceiling of what data-free methods can reach.

    python vanilla_kd.py --teacher wrn40_2 --student wrn16_1 --dataset cifar10 --transfer_set cifar10 --beta 0.1

Original: ljrprocc/DataFree@bf3096b and zju-vipa/CMI@9e79fa9 vanilla_kd.py.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from common.data.images import ImageSet
from common.training.errors import UserError, command_line
from common.training.options import RunOptions, machine_option, parse_row
from common.training.run import Run
from common.training.seeding import draw_seed
from curriculum_dfkd.data import DATASETS, EndlessBatches, describe
from curriculum_dfkd.experiment import SMOKE_BATCH, SMOKE_IMAGES, Setup, evaluate, finish, run_program
from curriculum_dfkd.objectives import RealDataDistillation
from curriculum_dfkd.options import milestones_of, require_positive, resolve_precision_flag, translate
from curriculum_dfkd.supervised import SupervisedTraining
from curriculum_dfkd.synthesis.pool import ImagePool
from curriculum_dfkd.training import cosine_rate, multistep_rate


@dataclass(frozen=True)
class OriginalOptions:
    """flags of the original"""

    data_root: str = machine_option("data")
    """folder of the data sets"""
    teacher: str = "wrn40_2"
    """network of the teacher"""
    student: str = "wrn16_1"
    """network of the student"""
    dataset: str = "cifar100"
    """data set of the teacher, and of the test"""
    transfer_set: str = "cifar10"
    """what the student sees: a data set, or a folder of PNG images"""
    lr: float = 0.1
    """learning rate"""
    lr_decay_milestones: str = "120,150,180"
    """epochs from which the rate is divided by ten"""
    alpha: float = 1.0
    """weight of the KL"""
    beta: float = 0.0
    """weight of the cross-entropy with the labels"""
    T: float = 1.0
    """temperature of the KL"""
    epochs: int = 200
    """epochs"""
    batch_size: int = 128
    """images per update"""
    momentum: float = 0.9
    """of SGD"""
    weight_decay: float = 1e-4
    """of SGD"""
    curr_option: Literal["none", "curr_hard", "curr_soft", "curr_log"] = "none"
    """curriculum on samples (the original's default crashed)"""
    lambda_0: float = 1.0
    """curriculum threshold at the start"""
    open_ratio: bool = False
    """use only a share of the transfer set"""
    ratio: float = 1.0
    """that share, 0 to 1"""
    seed: int = 0
    """seed of all random generators"""
    gpu: int | None = machine_option(None)
    """CUDA device number, negative: CPU; default: the first one if there is any"""
    log_tag: str = machine_option("")
    """a name for the log"""
    workers: int = machine_option(0)
    """loader processes, for data sets that are read from disk"""
    print_freq: int = machine_option(0)
    """updates between two written points of the training series; 0: 100"""
    evaluate_only: bool = machine_option(False)
    """test the newest checkpoint of --output_dir and stop"""
    fp16: bool = False
    """the same as --precision fp16"""


@dataclass(frozen=True)
class VanillaOptions(RunOptions, OriginalOptions):
    """distillation on real images"""

    teacher_weights: str | None = None
    """file with the teacher's weights; default: found by data set and network"""
    ep_steps: int | None = None
    """updates per epoch; default: one pass over the transfer set"""
    schedule: Literal["multistep", "cosine"] = "multistep"
    """of the learning rate; cosine: as in data-free distillation, for equal terms on the desk bench"""
    log_fidelity: bool = machine_option(False)
    """measure agreement with the teacher and probability loyalty at every test"""
    validation_interval: int = 1
    """epochs between two tests; 0: only after the last one"""
    test_images_per_class: int | None = None
    """test on so many images per class only (a sub-sampled run); default: all"""
    desk_scale: bool = machine_option(False)
    """label the record as a desk-scale run"""


def get_config(argv: Sequence[str] | None = None) -> tuple[VanillaOptions, dict[str, list[Any]]]:
    """Flags -> typed config, and what the user changed of a script's row.

    Raises:
        UserError: for a transfer set that is neither a data set nor a folder, a share outside 0 to 1, lengths below 1,
            or a flag that nothing would read.
    """
    words = translate(sys.argv[1:] if argv is None else argv)
    config, changed = parse_row(VanillaOptions, words, "distillation on real images")
    config = resolve_precision_flag(config)
    if config.transfer_set not in DATASETS and not Path(config.transfer_set).is_dir() and not config.smoke:
        raise UserError(
            f"--transfer_set {config.transfer_set}: neither a folder nor one of {', '.join(DATASETS)}"
        )
    if config.beta and config.transfer_set != config.dataset:
        raise UserError("--beta needs labels of --dataset; it works with --transfer_set equal to --dataset only")
    if not 0 < config.ratio <= 1:
        raise UserError(f"--ratio expects a share above 0 and at most 1, found {config.ratio:g}")
    if config.ratio != 1 and not config.open_ratio:
        raise UserError(f"--ratio {config.ratio:g} is read with --open_ratio only; add it or leave --ratio out")
    require_positive(config, "epochs", "ep_steps", "batch_size", "test_images_per_class")
    milestones_of(config)
    if config.schedule == "cosine" and config.lr_decay_milestones != VanillaOptions.lr_decay_milestones:
        raise UserError("--lr_decay_milestones: --schedule cosine does not read it; leave one of them out")
    if config.smoke:
        config = dataclasses.replace(config, epochs=1, ep_steps=4, batch_size=SMOKE_BATCH)
    return config, changed


def open_transfer_set(config: VanillaOptions, setup: Setup) -> ImageSet:
    """The images that the student sees, with labels where they have any."""
    facts = setup.facts
    if config.transfer_set in DATASETS or config.smoke:
        other = DATASETS.get(config.transfer_set, facts)
        if other.channels != facts.channels:
            raise UserError(f"--transfer_set {config.transfer_set}: other channels than {config.dataset}; take another")
        name = config.dataset if config.smoke else config.transfer_set
        images = setup.open("train", name, SMOKE_IMAGES if config.smoke else None)
    else:
        size = facts.transform.size
        pool = ImagePool(facts.transform, config.batch_size, torch.device("cpu"), (facts.channels, size, size))
        pool.add_folder(Path(config.transfer_set))
        labels = torch.zeros(len(pool.images), dtype=torch.int64)
        images = ImageSet(Path(config.transfer_set).name, "train", pool.images, labels, ["synthetic"])
    if config.open_ratio:
        kept = torch.randperm(len(images))[: max(1, round(config.ratio * len(images)))]  # rng: which images
        images = images.subset(kept.sort().values)
    return images


def train(config: VanillaOptions, run: Run) -> dict[str, Any]:
    """One run from its start or its newest checkpoint to its record; returns the metrics."""
    setup = Setup(config, run)
    teacher, about = setup.teacher(config.teacher, config.teacher_weights)
    student = setup.network(config.student)
    images = open_transfer_set(config, setup)
    batches = EndlessBatches(setup.loader(images, True, config.batch_size, seed=draw_seed()))  # rng: order, crops
    is_cosine = config.schedule == "cosine"
    rate = cosine_rate(config.lr, config.epochs) if is_cosine else multistep_rate(config.lr, milestones_of(config))
    optimizer = torch.optim.SGD(
        student.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
    )
    objective = RealDataDistillation(config.T, config.alpha, config.beta, config.curr_option, config.lambda_0)
    training = SupervisedTraining(
        student, optimizer, rate, config.epochs, setup.evaluator(teacher if config.log_fidelity else None),
        setup.precision, run, config.validation_interval, batches=batches, objective=objective, teacher=teacher,
        updates=config.ep_steps, teacher_sha256=about.get("teacher_sha256"),
    )
    if config.evaluate_only:
        return evaluate(training, run)
    run.restore()
    return finish(training, run, about, describe(setup.test, images), setup.labels(images, len(batches)))


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Distil; returns the metrics."""
    config, changed = get_config(argv)
    return run_program(config, changed, "KD on real data", train)


if __name__ == "__main__":
    command_line(main)()
