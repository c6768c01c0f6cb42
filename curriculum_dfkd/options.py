"""Flags of `main.py`: the original's, and what this repository adds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from common.training.errors import UserError
from common.training.options import RunOptions, machine_option

METHODS = ("dafl", "zskt", "dfad", "dfq", "deepinv", "cmi", "cudfkd")
"""Values of `--method`."""

NOT_OFFERED = ("zskd", "dfme", "softtarget", "pretrained")
"""Methods of the original that no published table shows."""

GENERATIVE = ("dafl", "zskt", "dfad", "dfq")
"""Methods with the generator of CMI's release."""

READERS = {
    "compat": ("cudfkd",), "curriculum_level": ("cudfkd",), "lambda_rate": ("cudfkd",), "betas": GENERATIVE,
    "keep_image": ("deepinv",), "tv_weight": ("deepinv",), "l2_weight": ("deepinv",), "n_neg": ("cmi",),
    "full_bank_read": ("cmi",), "nz": (*GENERATIVE, "cmi", "cudfkd"), "ngf": (*GENERATIVE, "cmi", "cudfkd"),
    "log_all_terms": (*GENERATIVE, "deepinv", "cudfkd"), "dump_pool": ("deepinv", "cmi"),
}
"""Switch of this repository -> methods that read it; elsewhere anything but its default is refused."""

ALIASES = {"-b": "--batch_size", "-j": "--workers", "-p": "--print_freq", "--wd": "--weight_decay",
           "--weight_decay": "--weight_decay", "--epoch": "--epochs"}
"""Short forms of the originals' command lines."""

Config = TypeVar("Config")


def translate(argv: Sequence[str]) -> list[str]:
    """The originals' spellings (-b, --wd, --batch-size) as this repository's flags; values stay as they are."""
    translated = []
    for word in argv:
        flag, equals, value = word.partition("=")
        if flag.startswith("--"):
            flag = "--" + flag[2:].replace("-", "_")
        flag = ALIASES.get(flag, flag)
        translated.append(flag + equals + value if word.startswith("-") else word)
    return translated


@dataclass(frozen=True)
class OriginalOptions:
    """flags of the original"""

    method: str = "cudfkd"
    """dafl, zskt, dfad, dfq, deepinv, cmi or cudfkd"""
    adv: float = 0.0
    """weight of the adversarial term; of cudfkd its initial value"""
    adv_type: Literal["js", "kl"] = "js"
    """form of cudfkd's adversarial term"""
    bn: float = 0.0
    """weight of the distance of norm statistics"""
    oh: float = 0.0
    """weight of the one-hot term"""
    act: float = 0.0
    """weight of the activation term"""
    balance: float = 0.0
    """weight of the class balance term"""
    lmda_ent: float = 0.1
    """cudfkd: weight of +entropy of the mean answer (the scripts maximise it: -20)"""
    grad_adv: float = 0.2
    """cudfkd: growth of the adversarial weight per epoch inside its window"""
    begin_fraction: float = 0.25
    """start of that window, share of the epochs"""
    end_fraction: float = 0.75
    """end of that window"""
    curr_option: Literal["none", "curr_hard", "curr_soft", "curr_log"] | None = None
    """curriculum of cudfkd; default: curr_log for cudfkd, none for the others (the original's default crashed)"""
    lambda_0: float = 1.0
    """curriculum threshold at the start"""
    loss: Literal["l1", "kl", "l2"] = "l1"
    """student loss of cudfkd"""
    T: float = 1.0
    """temperature of deepinv's, cmi's and cudfkd's KL and of cudfkd's entropy; zskt, dfad, dfq and dafl ignore it
    (as released: KL at T = 1, or L1)"""
    depth: int = 2
    """up-samplings of cudfkd's generator (2 for 32 pixels, 3 for 64)"""
    no_feature: bool = False
    """accepted for old command lines: feature levels never worked, this is the only form there is"""
    cr: float = 1.0
    """cmi: weight of the contrastive term"""
    cr_T: float = 0.5
    """cmi: its temperature"""
    cmi_init: str | None = None
    """cmi: folder of PNG images inverted earlier, put into the pool at the start"""
    data_root: str = machine_option("data")
    """folder of the data set"""
    teacher: str = "wrn40_2"
    """network of the teacher"""
    student: str = "wrn16_1"
    """network of the student"""
    dataset: str = "cifar100"
    """data set of the teacher, and of the test"""
    lr: float = 0.1
    """learning rate of the student"""
    lr_g: float = 1e-3
    """learning rate of generator or images"""
    momentum: float = 0.9
    """of the student's SGD"""
    weight_decay: float = 1e-4
    """of the student's SGD"""
    epochs: int = 200
    """epochs"""
    ep_steps: int = 400
    """student updates per epoch"""
    kd_steps: int = 400
    """student updates per round (all but cudfkd; see --round_steps)"""
    g_steps: int = 1
    """synthesis updates per round (all but cudfkd)"""
    g_steps_interval: str = "2,1,1"
    """cudfkd: its first entry is the number of synthesis updates per round"""
    kd_steps_interval: str = "400,200,100"
    """cudfkd: its first entry is the number of student updates per round"""
    batch_size: int = 128
    """images per student update"""
    synthesis_batch_size: int | None = None
    """images per synthesis update; default: --batch_size"""
    save_dir: str = machine_option("synthesis")
    """folder for --dump_pool, inside --output_dir"""
    log_tag: str = machine_option("")
    """a name for the log"""
    log_fidelity: bool = machine_option(False)
    """measure agreement with the teacher and probability loyalty at every test"""
    evaluate_only: bool = machine_option(False)
    """test the newest checkpoint of --output_dir and stop"""
    gpu: int | None = machine_option(None)
    """CUDA device number, negative: CPU; default: the first one if there is any"""
    seed: int = 0
    """seed of all random generators"""
    workers: int = machine_option(0)
    """loader processes, for data sets that are read from disk"""
    print_freq: int = machine_option(0)
    """updates between two written points of the training series; 0: 100"""
    fp16: bool = False
    """the same as --precision fp16"""


@dataclass(frozen=True)
class MethodOptions(RunOptions):
    """variants of the methods (defaults: the released code)"""

    compat: Literal["code", "paper"] = "code"
    """what an unset --curriculum_level means: the released code, or the paper's wording"""
    curriculum_level: Literal["batch", "sample"] | None = None
    """difficulty of whole batches (code) or of single samples (paper) (D1)"""
    lambda_rate: float | None = None
    """growth of the curriculum threshold per student update; default: 1e-4 for cifar10, 2e-5 for other data sets"""
    round_steps: Literal["auto", "kd_steps", "interval"] = "auto"
    """which flag gives the student updates per round; auto: --kd_steps_interval for cudfkd, --kd_steps for the others
    (D2: ljrprocc/DataFree took the interval for all)"""
    betas: Literal["cmi", "cud"] | None = None
    """Adam's betas of the generators of dafl, zskt, dfad, dfq: (0.5, 0.999) or (0.9, 0.99) (D4); default: cmi"""
    keep_image: Literal["last", "best"] = "last"
    """deepinv: iterate that is kept (D5)"""
    tv_weight: float = 0.001
    """deepinv: weight of the total variation (a constant in the released code)"""
    l2_weight: float = 0.0
    """deepinv: weight of the images' norm (a constant in the released code)"""
    n_neg: int = 4096
    """cmi: stored rows that a contrastive loss is computed with (a constant in the released code)"""
    full_bank_read: bool = False
    """cmi: let the one read at the exact fill of the bank see all rows (D6)"""
    nz: int | None = None
    """length of noise vectors; default: 256 (dafl and cudfkd 512; cudfkd with --depth 3: 1024)"""
    ngf: int = 64
    """width of the generator"""
    teacher_weights: str | None = None
    """file with the teacher's weights; default: found by data set and network"""
    log_all_terms: bool = False
    """also compute and log terms of weight 0"""
    dump_pool: bool = machine_option(False)
    """also write every pooled image as PNG"""
    grid_every: int = machine_option(10)
    """epochs between two grids of synthetic images; 0: none"""
    validation_interval: int = 1
    """epochs between two tests; 0: only after the last one"""
    test_images_per_class: int | None = None
    """test on so many images per class only (a sub-sampled run); default: all"""
    desk_scale: bool = machine_option(False)
    """label the record as a desk-scale run"""


@dataclass(frozen=True)
class WithoutEffect:
    """flags of the original that did nothing or crashed; anything but the default is refused"""

    only_feature: bool = False
    """feature levels never worked"""
    cond: bool = False
    """built a generator whose forward pass failed"""
    l1: float = 0.01
    """not read"""
    L: int = 2
    """not read"""
    log_y_kl: bool = False
    """not read"""
    forward_differences: int = 1
    """not read"""
    lr_decay_milestones: str = "120,150,180"
    """not read here (train_scratch.py and vanilla_kd.py use theirs)"""
    pretrained: bool = False
    """not read"""
    memory: bool = False
    """filled a pool that nothing read"""
    noisy: bool = False
    """another folder for the teacher: use --teacher_weights"""
    save_freq: int = 0
    """see --checkpoint_interval"""
    start_epoch: int = 0
    """see --resume"""
    no_logits: int = 1
    """of dfme"""
    logit_correction: str = "mean"
    """of dfme"""
    grad_m: int = 1
    """of dfme"""
    grad_epsilon: float = 1e-3
    """of dfme"""
    pretrained_mode: str = "gan"
    """of the method pretrained"""
    pretrained_G_weight: str = ""
    """of the method pretrained"""
    world_size: int = -1
    """one run uses one device"""
    rank: int = -1
    """as above"""
    dist_url: str = "tcp://224.66.41.62:23456"
    """as above"""
    dist_backend: str = "nccl"
    """as above"""
    multiprocessing_distributed: bool = False
    """as above"""


@dataclass(frozen=True)
class DataFreeOptions(MethodOptions, WithoutEffect, OriginalOptions):
    """data-free distillation"""


def check(config: DataFreeOptions) -> DataFreeOptions:
    """Resolve defaults that depend on other flags.

    Raises:
        UserError: for flags that do not go together or are not offered.
    """
    refuse_without_effect(config)
    if config.method not in METHODS:
        reason = "no published table shows it" if config.method in NOT_OFFERED else "unknown"
        raise UserError(f"--method {config.method}: {reason}; expected one of {', '.join(METHODS)}")
    refuse_unread(config)
    is_cudfkd = config.method == "cudfkd"
    option = config.curr_option or ("curr_log" if is_cudfkd else "none")
    if option != "none" and not is_cudfkd:
        raise UserError(f"--curr_option {option}: only cudfkd has a curriculum; leave it out for {config.method}")
    level = config.curriculum_level or {"code": "batch", "paper": "sample"}[config.compat]
    if config.loss == "l2" and option == "none":
        raise UserError("--loss l2 needs a curriculum (--curr_option curr_log, curr_soft or curr_hard)")
    config = dataclasses.replace(config, curr_option=option, curriculum_level=level, betas=config.betas or "cmi")
    require_positive(config, "synthesis_batch_size", "nz", "ngf", "depth", "n_neg", "test_images_per_class")
    config = resolve_precision_flag(config)
    rounds_of(config)
    return config


def refuse_unread(config: DataFreeOptions) -> None:
    """Raises a UserError for a switch of this repository that was given to a method which does not read it."""
    for field in dataclasses.fields(MethodOptions):
        readers = READERS.get(field.name, METHODS)
        if config.method not in readers and getattr(config, field.name) != field.default:
            known = ", ".join(readers)
            raise UserError(f"--{field.name}: {config.method} does not read it, only {known}; leave it out")


def require_positive(config: Any, *names: str) -> None:
    """Raises a UserError for a flag below 1; None is left to its default."""
    for name in names:
        value = getattr(config, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} must be at least 1, found {value}")


def milestones_of(config: Any) -> list[int]:
    """The epochs of `--lr_decay_milestones`.

    Raises:
        UserError: if they are no numbers.
    """
    try:
        return [int(word) for word in config.lr_decay_milestones.split(",")]
    except ValueError:
        raise UserError(f"--lr_decay_milestones expects 120,150,180, found {config.lr_decay_milestones!r}") from None


def refuse_without_effect(config: Any) -> None:
    """Raises a UserError for a flag of `WithoutEffect` that was given."""
    for field in dataclasses.fields(WithoutEffect):
        if hasattr(config, field.name) and getattr(config, field.name) != field.default:
            raise UserError(f"--{field.name} had no sound effect in the original and is not offered; leave it out")


def resolve_precision_flag(config: Config) -> Config:
    """Turn --fp16 into --precision fp16; refuse what the loops here do not support.

    Raises:
        UserError: for NVIDIA apex, or two contradicting flags.
    """
    if config.amp_backend == "apex":
        raise UserError("--amp_backend apex: not offered here; use --precision bf16 or fp16")
    if config.fp16 and config.precision == "bf16":
        raise UserError("--fp16 and --precision bf16 contradict each other; give one")
    return dataclasses.replace(config, precision="fp16") if config.fp16 else config


def rounds_of(config: DataFreeOptions) -> tuple[int, int, int]:
    """Rounds per epoch, synthesis updates and student updates per round.

    Raises:
        UserError: if an epoch is shorter than a round, or a number is not positive.
    """
    is_cudfkd = config.method == "cudfkd"
    by_interval = config.round_steps == "interval" or (config.round_steps == "auto" and is_cudfkd)
    flag = "kd_steps_interval" if by_interval else "kd_steps"
    student = _first(config, flag) if by_interval else config.kd_steps
    synthesis = _first(config, "g_steps_interval") if is_cudfkd else config.g_steps
    require_positive(config, "epochs", "ep_steps", "batch_size")
    if min(student, synthesis) < 1:
        raise UserError(f"updates per round must be at least 1, found {synthesis} (synthesis) and {student} (student)")
    rounds = config.ep_steps // student
    if rounds == 0:
        raise UserError(
            f"--ep_steps {config.ep_steps} is less than the {student} student updates of one round (--{flag}); an "
            "epoch would have no round"
        )
    return rounds, synthesis, student


def _first(config: DataFreeOptions, name: str) -> int:
    value = getattr(config, name)
    try:
        return int(value.split(",")[0])
    except ValueError:
        raise UserError(f"--{name} expects numbers separated by commas, found {value!r}") from None
