"""Flags of `main.py`: the original's three groups of dotted keys, and what this repository adds."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from common.training.errors import UserError
from common.training.options import RunOptions, machine_option
from common.training.precision import resolve_precision

METHODS = (
    "rfd", "rdfcil", "abd_port", "abd", "deepinv", "lwf_synthetic", "lwf", "lwf_mc", "base", "joint",
)  # fmt: skip
"""Names for --model.method."""
GROWING = ("rfd", "rdfcil", "abd_port")
"""Methods whose head grows with the tasks."""
PHASED = ("rfd", "rdfcil")
"""Methods with a finetuning phase."""

REPLAYING = (*GROWING, "abd", "deepinv", "lwf_synthetic")
"""Methods that train a generator."""

_ONLY_FOR: dict[str, tuple[str, ...]] = {
    "head": GROWING, "inv_resume_from": GROWING, "lightning_val_quirk": PHASED,
    "inv_lr": REPLAYING, "inv_tau": REPLAYING, "inv_alpha_pr": REPLAYING, "inv_alpha_rf": REPLAYING, "noise": REPLAYING,
    "wrd_inter": ("rfd",), "wrd_intra": ("rfd",),
    "mu": ("abd", "deepinv", "lwf_synthetic", "lwf"), "temp": ("deepinv", "lwf_synthetic", "lwf"),
}  # fmt: skip
"""Keys of model.* that are refused with other methods, where they would do nothing. Loss weights, the keys of the
finetuning phase, and the generator's steps and size are not among them: one config file serves several methods."""

_IGNORED: dict[str, Any] = {
    "logger": True, "callbacks": None, "default_root_dir": None, "gradient_clip_algorithm": "norm",
    "process_position": 0, "num_nodes": 1, "num_processes": 1, "devices": None, "auto_select_gpus": False,
    "tpu_cores": None, "ipus": None, "log_gpu_memory": None, "progress_bar_refresh_rate": None, "overfit_batches": 0.0,
    "track_grad_norm": -1, "fast_dev_run": False, "min_epochs": None, "max_steps": None, "min_steps": None,
    "max_time": None, "limit_train_batches": 1.0, "limit_val_batches": 1.0, "limit_test_batches": 1.0,
    "limit_predict_batches": 1.0, "val_check_interval": 1.0, "flush_logs_every_n_steps": 100, "accelerator": None,
    "sync_batchnorm": False, "weights_summary": "top", "weights_save_path": None, "truncated_bptt_steps": None,
    "profiler": None, "reload_dataloaders_every_n_epochs": 0, "reload_dataloaders_every_epoch": False,
    "auto_lr_find": False, "terminate_on_nan": False, "auto_scale_batch_size": False, "prepare_data_per_node": True,
    "plugins": None, "amp_backend": "native", "amp_level": "O2", "distributed_backend": None,
    "move_metrics_to_cpu": False, "multiple_trainloader_mode": "max_size_cycle", "stochastic_weight_avg": False,
}  # fmt: skip
"""Trainer keys that every released config lists at these values and that do nothing here; other values are refused."""

_FIXED: dict[str, tuple[Any, ...]] = {
    "num_sanity_val_steps": (0,), "replace_sampler_ddp": (False, True), "checkpoint_callback": (False,),
    "accumulate_grad_batches": (1, None),
}  # fmt: skip
"""Trainer keys that could mean something, and the values that can be had here."""


@dataclass(frozen=True)
class ActingTrainerOptions:
    """trainer.*: the original's keys that do something here"""

    max_epochs: int = 200
    """epochs per task, the finetuning phase included"""
    check_val_every_n_epoch: int = 40
    """epochs between two tests"""
    gpus: Any = machine_option(-1)
    """1 or a negative number: the first device; a list with one device number; 0: the CPU"""
    resume_from_checkpoint: str | None = None
    """task_<t>/last.ckpt (or best.ckpt) of another run to go on from, with data.current_task at its task"""
    deterministic: bool = machine_option(True)
    """cuDNN's deterministic algorithms (without --fast)"""
    benchmark: bool = machine_option(True)
    """let cuDNN try algorithms; has an effect with --fast only"""
    num_sanity_val_steps: int = 0
    """only 0: no test before training"""
    replace_sampler_ddp: bool = machine_option(False)
    """no effect on one device"""
    checkpoint_callback: bool = False
    """only false: the checkpoints of each task are written anyway (see --keep_checkpoints)"""
    log_every_n_steps: int = machine_option(50)
    """steps between two points of the training series"""
    precision: int | str = 32
    """32, 16 or bf16: number format of the forward pass; the same as --precision"""
    gradient_clip_val: float = 0.0
    """largest norm of the gradient; 0: not clipped"""
    accumulate_grad_batches: int | None = 1
    """only 1: every batch is one optimiser step"""


TrainerOptions = dataclasses.make_dataclass(
    "TrainerOptions",
    [(name, Any, machine_option(default)) for name, default in _IGNORED.items()],
    bases=(ActingTrainerOptions,),
    frozen=True,
    namespace={"__doc__": "trainer.*: the original's keys", "__module__": __name__},
)


@dataclass(frozen=True)
class ModelOptions:
    """model.*: the original's keys, then method, network size and switches of this repository"""

    base_lr: float = 0.1
    """learning rate of SGD"""
    momentum: float = 0.9
    """momentum of SGD"""
    weight_decay: float = 0.0005
    """L2 weight decay"""
    lr_factor: float = 0.1
    """factor of the learning rate at each milestone"""
    milestones: list[int] = field(default_factory=lambda: [80, 120])
    """epochs at which the learning rate is multiplied by lr_factor"""
    finetuning_epochs: int = 40
    """last epochs of every task, in which the head alone is trained (rfd and rdfcil; the others have no such phase)"""
    finetuning_lr: float = 0.005
    """learning rate of that phase"""
    lambda_ce: float = 0.5
    """weight of the cross-entropy terms"""
    lambda_hkd: float = 0.15
    """weight of R-DFCIL's logit distillation; 0 drops it and its forward passes"""
    lambda_rkd: float = 0.5
    """weight of R-DFCIL's relation distillation; 0 drops it and its forward passes"""
    lambda_distkd_old: float = 0.5
    """weight of RFD's relation distillation (WRD) on synthetic images; 0 drops it and its forward passes"""
    lambda_distkd_new: float = 0.5
    """weight of WRD on real images; 0 drops it and its forward passes"""
    lambda_kd: float | None = None
    """weight of RFD's feature distillation (default 0.5) or of ABD-port's (0.1); 0 drops it and its forward passes"""
    num_inv_iters: int = 5000
    """generator steps per task"""
    inv_lr: float = 0.001
    """learning rate of the generator (Adam)"""
    inv_tau: float = 1000.0
    """temperature of the generator's certainty term"""
    inv_alpha_pr: float = 0.001
    """weight of the generator's smoothness term"""
    inv_alpha_rf: float = 50.0
    """weight of the generator's batch-norm statistics"""
    inv_resume_from: str | None = None
    """a saved inversion.ckpt that replaces the first generator training, once"""
    method: Literal[METHODS] = "rfd"  # type: ignore[valid-type]
    """rfd, rdfcil, abd_port (head grows with the tasks); abd, deepinv, lwf_synthetic, lwf, lwf_mc, base, joint (all
    outputs from the start, the learners of the original ABD)"""
    head: Literal["two_linear", "linear"] | None = None
    """classifiers of the growing head; default: two layers for rfd, one for rdfcil and abd_port"""
    wrd_inter: float = 1.0
    """weight of WRD's term over the classes of a sample (the paper's text has only the other one)"""
    wrd_intra: float = 1.0
    """weight of WRD's term over the samples of a class"""
    mu: float | None = None
    """weight of the distillation of ABD's learners; default: 0.1 for abd and lwf_synthetic, 1 for the others"""
    temp: float = 2.0
    """temperature of the distillation of ABD's learners"""
    blocks: int = 5
    """n of the CIFAR network (6 n + 2 layers)"""
    width: int = 16
    """channels of the CIFAR network's first stage"""
    gen_width: int | None = None
    """channels of the CIFAR generator's first maps; default: the published 128"""
    gen_latent: int = 1000
    """width of the generator's noise"""
    noise: Literal["device", "cpu"] = "device"
    """where the generator's noise is drawn; cpu: from the CPU's random numbers, as the originals do"""
    lightning_val_quirk: bool = False
    """leave the backbone in training mode after a test inside the finetuning phase, as the originals' trainer does"""
    dump_images: int = machine_option(0)
    """steps between two dumps of the batch as image files; 0: never (the original writes 2 N files in every step)"""


@dataclass(frozen=True)
class DataOptions:
    """data.*: the original's keys"""

    root: str = machine_option("data")
    """folder of the data sets"""
    dataset: str = "cifar100"
    """cifar10, cifar100, tiny-imagenet200, imagenet100, imagenet1000, imagenet-r, sample (comes with the repository)"""
    batch_size: int = 128
    """images per step, and as many synthetic ones"""
    num_workers: int = machine_option(4)
    """processes that read image files"""
    val_splits: float = 0
    """only 0 (broken in the original)"""
    val_seed: int = 42
    """no effect without a validation split"""
    num_tasks: int = 5
    """tasks, at least 2"""
    current_task: int = 0
    """task to start with, counted from 0; others than 0 need trainer.resume_from_checkpoint"""
    class_order: list[int] = field(default_factory=list)
    """order of the classes; empty: a random one from task_seed"""
    init_task_splits: float = 0
    """from 1: classes of the first task; below 1: their share of all classes; 0: equal tasks"""
    task_seed: int = 42
    """seed of the random class order"""
    test_mode: Literal["seen", "current"] = "seen"
    """test on all classes so far, or on those of the current task"""
    memory_algo: str = "herding"
    """no effect without a memory"""
    memory_size: int = 0
    """only 0: no image is kept"""
    dynamic_memory: bool = False
    """no effect without a memory"""
    images_per_class: int | None = None
    """training images per class (a sub-sampled run); default: all"""
    test_images_per_class: int | None = None
    """test images per class; default: all"""
    num_classes: int | None = None
    """only the first classes of the data set (a shortened run); default: all"""
    augmentation: Literal["cl-lite", "abd"] = "cl-lite"
    """crop and flip of the normalised image, or the original ABD's with colour jitter and its statistics"""


@dataclass(frozen=True)
class Added(RunOptions):
    """added by this repository"""

    seed_everything: int | None = None
    """seed of all random generators (the original's key); default: the time"""
    seed: int | None = None
    """number of a repetition: it replaces seed_everything, and the class order by the published order of this number
    (ImageNet-100 has one order for all); default: what the config says, which is repetition S if it is that seed and
    order; the record of any other pair has the seed -1 - seed_everything"""
    keep_checkpoints: Literal["all", "last", "none"] = machine_option("all")
    """files of each task: last.ckpt, best.ckpt and inversion.ckpt; without best.ckpt; or none"""
    desk: bool = False
    """marks a run at desk scale in its record"""


@dataclass(frozen=True)
class RfdOptions(Added):
    """all flags of main.py"""

    trainer: TrainerOptions = field(default_factory=TrainerOptions)  # type: ignore[valid-type]
    model: ModelOptions = field(default_factory=ModelOptions)
    data: DataOptions = field(default_factory=DataOptions)


_DEFAULT_MODEL = ModelOptions()


def check(config: RfdOptions) -> None:
    """Refuse what cannot be done, in one line.

    Raises:
        UserError: naming the flag, what was found and what is expected.
    """
    trainer, model, data = config.trainer, config.model, config.data
    for name, default in _IGNORED.items():
        if getattr(trainer, name) != default:
            raise UserError(f"--trainer.{name} {getattr(trainer, name)!r} has no effect here; leave it at {default!r}")
    for name, allowed in _FIXED.items():
        if getattr(trainer, name) not in allowed:
            raise UserError(f"--trainer.{name} {getattr(trainer, name)!r} is not offered; expected {allowed[0]!r}")
    positive = {
        "trainer.max_epochs": trainer.max_epochs, "trainer.check_val_every_n_epoch": trainer.check_val_every_n_epoch,
        "trainer.log_every_n_steps": trainer.log_every_n_steps, "data.batch_size": data.batch_size,
        "model.gen_latent": model.gen_latent,
    }  # fmt: skip
    not_negative = {
        "trainer.gradient_clip_val": trainer.gradient_clip_val, "model.finetuning_epochs": model.finetuning_epochs,
        "model.num_inv_iters": model.num_inv_iters, "model.dump_images": model.dump_images,
        "data.current_task": data.current_task, "data.init_task_splits": data.init_task_splits,
        "data.num_workers": data.num_workers, "seed": config.seed, "seed_everything": config.seed_everything,
    } | {f"model.{name}": getattr(model, name) for name in vars(model) if name.startswith("lambda_")}  # fmt: skip
    for name, value in positive.items():
        if value < 1:
            raise UserError(f"--{name} {value}: expected at least 1")
    for name, value in not_negative.items():
        if value is not None and (value < 0 or not math.isfinite(value)):
            raise UserError(f"--{name} {value}: expected a number of at least 0")
    if data.val_splits != 0 or data.memory_size != 0:
        name = "val_splits" if data.val_splits else "memory_size"
        raise UserError(
            f"--data.{name} {getattr(data, name)}: neither a validation split nor a memory is offered; give 0"
        )
    for name, methods in _ONLY_FOR.items():
        if model.method not in methods and getattr(model, name) != getattr(_DEFAULT_MODEL, name):
            raise UserError(
                f"--model.{name} {getattr(model, name)} does nothing with --model.method {model.method}; it goes with "
                f"{', '.join(methods)}"
            )
    if model.method in PHASED and model.finetuning_epochs >= trainer.max_epochs:
        raise UserError(
            f"--model.finetuning_epochs {model.finetuning_epochs} leaves nothing of --trainer.max_epochs "
            f"{trainer.max_epochs} to learn in; lower it"
        )
    if data.current_task and trainer.resume_from_checkpoint is None:
        raise UserError(
            f"--data.current_task {data.current_task} needs --trainer.resume_from_checkpoint, a checkpoint of that "
            "task; to run all tasks leave both out"
        )
    if trainer.gradient_clip_val and precision_of(config) == "fp16":
        raise UserError("--trainer.gradient_clip_val does not go with fp16, whose gradients are scaled; use bf16 or 32")


def precision_of(config: RfdOptions) -> str:
    """--precision, --trainer.precision and --opt_level together.

    Raises:
        UserError: if they contradict each other.
    """
    names = {"32": "fp32", "16": "fp16", "bf16": "bf16"}
    given = str(config.trainer.precision)
    if given not in names:
        raise UserError(f"--trainer.precision {given}: expected 32, 16 or bf16")
    wanted = names[given]
    if wanted != "fp32" and config.precision not in ("fp32", wanted):
        raise UserError(f"--trainer.precision {given} contradicts --precision {config.precision}; give one of them")
    return resolve_precision(config if wanted == "fp32" else dataclasses.replace(config, precision=wanted))


def device_numbers(gpus: Any) -> list[int]:
    """`--trainer.gpus` as the house's device numbers: one number, negative for the CPU.

    original: -1 takes all devices and trains data-parallel; here always one device (README, Deviations P9).

    Raises:
        UserError: for more than one device.
    """
    if gpus in (0, None):
        return [-1]
    if gpus == 1 or (isinstance(gpus, int) and gpus < 0):
        return [0]
    if isinstance(gpus, list) and len(gpus) == 1 and isinstance(gpus[0], int):
        return gpus
    if isinstance(gpus, str) and gpus.isdigit():
        return [int(gpus)]
    raise UserError(f"--trainer.gpus {gpus!r}: expected 1, -1, 0 (CPU) or a list with one device number")
