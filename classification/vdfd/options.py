"""Flags of the original's programs, and the flags that both settings add."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from common.training.errors import UserError
from common.training.options import RunOptions, machine_option


@dataclass(frozen=True)
class OriginalOptions:
    """flags of the original"""

    gpuid: list[int] = machine_option([0])
    """CUDA device number; negative: CPU"""
    model_type: str = "resnet"
    """family of the network"""
    model_name: str = "resnet18"
    """network"""
    hypermodel_type: Literal["gcn"] = "gcn"
    """family of the hypermodel"""
    hypermodel_name: Literal["GCN"] = "GCN"
    """hypermodel"""
    force_out_dim: int = 0
    """outputs of a single head for all classes; 0: one head per task"""
    agent_type: str = "vdfd"
    """family of the method"""
    agent_name: str = "VDFD"
    """method"""
    model_optimizer: Literal["Adam", "amsgrad", "SGD", "RMSprop"] = "Adam"
    """optimiser of the network"""
    hypermodel_optimizer: Literal["Adam", "amsgrad", "SGD", "RMSprop"] = "Adam"
    """optimiser of the hypermodel"""
    dataroot: str = machine_option("../data")
    """folder of the data set"""
    dataset: str = "CIFAR100"
    """data set: CIFAR100, CIFAR10, MNIST, TinyImageNet, FiveDatasets, SubImageNet, Sample"""
    first_split_size: int = 10
    """classes of the first task"""
    other_split_size: int = 10
    """classes of every other task"""
    no_class_remap: bool = False
    """keep absolute labels instead of counting them inside each task"""
    train_aug: bool = True
    """augment training images (given: do not)"""
    rand_split: bool = False
    """draw the order of the classes at random"""
    rand_split_order: bool = False
    """shuffle the order of the tasks"""
    workers: int = machine_option(0)
    """loader processes, for data sets that are read from disk"""
    batch_size: int = 32
    """images per step"""
    model_lr: float = 1e-5
    """learning rate of the backbone"""
    head_lr: float = 1e-3
    """learning rate of the head"""
    hypermodel_lr: float = 5e-4
    """learning rate of the hypermodel"""
    momentum: float = 0.9
    """momentum of SGD and RMSprop"""
    model_weight_decay: float = 5e-5
    """L2 weight decay of the backbone"""
    head_weight_decay: float = 0.0
    """L2 weight decay of the head"""
    hypermodel_weight_decay: float = 5e-5
    """L2 weight decay of the hypermodel"""
    schedule: list[int] = field(default_factory=lambda: [5])
    """epochs at which learning rates are halved; the last number is the number of epochs per task"""
    print_freq: float = 10
    """steps between two points of the training series"""
    model_weights: str | None = None
    """file with initial weights of the network"""
    reg_coef: list[float] = field(default_factory=lambda: [10.0])
    """weight of the regulariser; with several values the whole experiment is done for each"""
    eval_on_train_set: bool = False
    """test on training images (not augmented)"""
    with_head: bool = False
    """regularise the heads too; without effect with one head per task, unless --reset_model_opt is given (O12)"""
    reset_model_opt: bool = True
    """start every task with new optimisers (given: keep them)"""
    repeat: int = 1
    """repetitions of the experiment; the random generators go on"""
    epsilons: float = 0.01
    """added to the diagonal of the precision matrices"""


@dataclass(frozen=True)
class MethodOptions(RunOptions):
    """variants of the method (defaults: the released code)"""

    compat: Literal["code", "paper"] = "code"
    """what unset variants below default to: the released code, or the paper's formulas"""
    reg_tasks: Literal["last", "sum"] | None = None
    """regularise the last stored task only, or all of them (D1)"""
    quad_scale: Literal["one", "tasks_squared"] | None = None
    """factor of the quadratic term (D2)"""
    precision_eps: Literal["logdet", "both"] | None = None
    """epsilons I in the log-determinant only, or in the quadratic term too (D3)"""
    precision_rows: Literal["unit", "free"] | None = None
    """scale the hypermodel's rows to length one, or not (D5)"""
    gcn: Literal["bottleneck", "residual"] | None = None
    """shape of the hypermodel (D7)"""
    precision_matrix: Literal["gcn", "identity"] = "gcn"
    """metric of the regulariser: learned by the hypermodel, or the identity (an ablation: squared distances alone)"""
    widths: list[int] | None = None
    """planes per stage of resnet18; default 64 128 256 512"""
    blocks: list[int] | None = None
    """blocks per stage of resnet18; default 2 2 2 2"""
    max_tasks: int | None = None
    """stop after this many tasks (a shortened run)"""
    images_per_class: int | None = None
    """training images per class (a sub-sampled run); default: all"""
    validation_interval: int = machine_option(1)
    """epochs between two tests on the current task, for the log; 0: never. Training does not depend on it"""
    importance_batch: int | None = machine_option(None)
    """images per pass when importance is computed; the result does not depend on it. Default: 128 of up to 64 pixels a
    side, of larger ones --batch_size (a pass holds the gradients by the outputs of all layers)"""
    loader: Literal["auto", "device", "dataloader"] = "auto"
    """images kept on the device, or torch's DataLoader; auto: by the size of the data set"""
    eager: bool = machine_option(False)
    """with --fast: launch the kernels of a step one by one, instead of capturing the step as a CUDA graph"""


NOT_NEGATIVE = (
    "model_lr", "head_lr", "hypermodel_lr", "momentum", "model_weight_decay", "head_weight_decay",
    "hypermodel_weight_decay", "epsilons", "workers", "validation_interval",
)  # fmt: skip
AT_LEAST_ONE = ("batch_size", "singular", "repeat", "max_tasks", "images_per_class", "importance_batch")


def check_options(config: Any) -> None:
    """Refuse numbers that no run could use, before any data are opened.

    Args:
        config: flags of any of the programs.

    Raises:
        UserError: naming the flag.
    """
    for least, names in ((0, NOT_NEGATIVE), (1, AT_LEAST_ONE)):
        for name in names:
            value = getattr(config, name)
            if value is not None and not value >= least:
                raise UserError(f"--{name} {value:g}: expected {least} or more")
    schedule = " ".join(map(str, config.schedule))
    if config.schedule[-1] < 1:
        raise UserError(f"--schedule {schedule}: the last number is the epochs of a task; expected 1 or more")
    if min(config.schedule) < 0:
        raise UserError(f"--schedule {schedule}: expected epochs, counted from 0, before the last number")
    folders = [f"{value:g}" for value in config.reg_coef]
    if len(set(folders)) < len(folders):
        raise UserError(f"--reg_coef {' '.join(folders)}: expected every value once; each has a folder of its own")
