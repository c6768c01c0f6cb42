"""From a command line to a checked config: presets, refusals, the short form.

Source: arthurdouillard/CVPR2021_PLOP@4b4a060 argparser.py `modify_command_options`, zhangchbin/RCIL@b9aad58
argparser.py.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from common.training.errors import UserError
from common.training.options import parse_row
from segmentation.data.sources import SAMPLE_ROOT
from segmentation.network import uses_rcil_network
from segmentation.options import SYNCHRONISED_NORMS, SegmentationOptions
from segmentation.tasks import CLASSES, DOMAIN_DATASETS, find_task

DESCRIPTION = "Continual semantic segmentation: PLOP, RCIL, VDFD and baselines on DeepLabV3"

LAST_MAP = {"switch": {"after": {"extra_channels": "sum", "factor": 0.0005, "type": "local"}}}
"""PLOP's settings of the last map."""

_LOCAL_POD = {"pod": "local", "pod_factor": 0.01, "pod_logits": True, "pod_options": LAST_MAP}

PRESETS: dict[str, dict[str, Any]] = {
    "FT": {},
    "LWF": {"loss_kd": 100.0},
    "LWF-MC": {"icarl": True, "icarl_importance": 10.0},
    "ILT": {"loss_kd": 100.0, "loss_de": 100.0},
    "EWC": {"regularizer": "ewc", "reg_importance": 100.0},
    "RW": {"regularizer": "rw", "reg_importance": 100.0},
    "PI": {"regularizer": "pi", "reg_importance": 100.0},
    "MiB": {"loss_kd": 10.0, "unce": True, "unkd": True, "init_balanced": True},
    "PLOP": {
        **_LOCAL_POD,
        "pseudo": "entropy",
        "threshold": 0.001,
        "classif_adaptive_factor": True,
        "init_balanced": True,
    },
    "RCIL": {
        **_LOCAL_POD,
        "loss_kd": 100.0,
        "unce": True,
        "unkd": True,
        "classif_adaptive_factor": True,
        "init_balanced": True,
    },
}
"""What `--method` sets."""

VDFD_IMPORTANCE = 10.0
"""Lambda of the paper (appendix C.2)."""

SMOKE = {
    "crop_size": 64, "epochs": [1], "batch_size": 2, "backbone": "resnet14", "width": 8, "head_width": 16,
    "no_pretrained": True, "num_workers": 0, "val_interval": 1, "checkpoint": "", "ckpt": None, "step_ckpt": None,
    "step0_ckpt": None, "pooling": 4, "opt_level": None, "precision": "fp32",
}  # fmt: skip
"""Sizes of the short form; fp32, because fp16 on the CPU is not what O1 means."""


def get_config(argv: Sequence[str]) -> tuple[SegmentationOptions, dict[str, list[Any]]]:
    """Flags -> checked config with the method's preset, and what the user changed of a script's row.

    Raises:
        UserError: for flags that do not go together or that cannot work, naming the flag.
    """
    words = ["--fusion_mode" if word == "--fusion-mode" else word for word in argv]
    config, changed = parse_row(SegmentationOptions, words, DESCRIPTION)
    if config.smoke:
        config = smoke_form(config)
    config = with_preset(config, given_flags(words))
    check(config)
    return config, changed


def given_flags(words: Sequence[str]) -> set[str]:
    """Names of the flags that a command line holds, whatever their values."""
    spelled = {re.split("[=.]", word[2:])[0].replace("-", "_") for word in words if word.startswith("--")}
    return spelled & {field.name for field in dataclasses.fields(SegmentationOptions)}


def with_preset(config: SegmentationOptions, given: Collection[str] | None = None) -> SegmentationOptions:
    """The config with everything that its method sets.

    Args:
        config: flags.
        given: names of those on the command line; None: those whose value is not the default.

    Raises:
        UserError: if a flag was given another value than the preset's, which the original overwrites silently.
    """
    if given is None:
        defaults = SegmentationOptions()
        given = {name for name, value in vars(config).items() if value != getattr(defaults, name)}
    preset = dict(PRESETS.get(config.method or "FT", {}))
    if config.method == "VDFD":
        preset = {"regularizer": "vdfd"}
        if "reg_importance" not in given:  # why: the paper's weight may be unstable (README, "Stability")
            preset["reg_importance"] = VDFD_IMPORTANCE
        if config.dataset not in DOMAIN_DATASETS:  # derived: the background changes its meaning, as with MiB
            preset |= {"unce": True, "init_balanced": True}
    plain = "--method FT --codebase rcil" if config.method == "RCIL" else "--method FT"
    for name, value in preset.items():
        found = getattr(config, name)
        if name in given and found != value:
            raise UserError(
                f"--method {config.method} sets --{name} to {value}, found {found}; leave it out, or give {plain} "
                "and the method's flags one by one"
            )
    if config.num_classes not in (None, CLASSES[config.dataset]):
        raise UserError(f"--num_classes {config.num_classes}: {config.dataset} has {CLASSES[config.dataset]}")
    classes = {"num_classes": CLASSES[config.dataset]}
    pictures = {} if config.visualize else {"sample_num": 0}
    return dataclasses.replace(config, **preset, **classes, **pictures)


def check(config: SegmentationOptions) -> None:
    """Refuse what cannot work.

    Raises:
        UserError: naming the flag.
    """
    refusals = {
        "no_mask": (config.no_mask, "the original's data sets assert against it"),
        "data_masking": (config.data_masking == "all", "the original raises; use current, current+old or new"),
        "norm_act": (
            config.norm_act in ("std", "iabn_sync_test"),
            "fails in the original (D17); use iabn_sync, iabn, abn, pkg_iabn_sync or pkg_iabn",
        ),
        "base_weights": (config.base_weights, "is not offered; use --test --ckpt with the checkpoint of step 0"),
        "disable_background": (config.disable_background, "is not offered; class 0 is a class of step 0"),
        "nca": (config.nca, "the original's loss raises on images"),
        "kd_new": (config.kd_new, "the original's mask does not fit its loss (D20)"),
        "pod_prepro": (config.pod_prepro == "abs", "raises in the original (D20); use pow, none or relu"),
        "init_multimodal": (config.init_multimodal is not None, "raises in the original (D20)"),
        "nb_background_modes": (config.nb_background_modes != 1, "only 1 is offered (D20)"),
        "opt_level": (config.opt_level == "O3", "is not offered; use O0, O1 or O2"),
        "amp_backend": (config.amp_backend == "apex", "is not offered here; torch's own precision replaces it"),
    }
    for name, (refused, reason) in refusals.items():
        if refused:
            raise UserError(f"--{name} {getattr(config, name)}: {reason}")
    check_sizes(config)
    check_partners(config)
    task = find_task(config.dataset, config.task)
    steps = config.step
    if not steps or min(steps) < 0 or max(steps) >= len(task.steps) or steps != sorted(set(steps)):
        raise UserError(
            f"--step {' '.join(map(str, steps))}: {config.dataset} {config.task} has steps 0 to {len(task.steps) - 1}, "
            "to be given in rising order"
        )
    for name in ("lr", "epochs"):
        if len(getattr(config, name)) not in (1, len(steps)):
            raise UserError(f"--{name}: expected one number or {len(steps)}, one for each of --step")
    if min(config.epochs) < 1:
        raise UserError(f"--epochs {min(config.epochs)}: expected at least 1")
    if task.is_domain and (config.unce or config.unkd or config.init_balanced or config.pseudo):
        flag = next(name for name in ("unce", "unkd", "init_balanced", "pseudo") if getattr(config, name))
        raise UserError(f"--{flag}: domain protocols have no new classes (D18); leave it out")
    if task.is_domain and config.eval_task_ids:
        raise UserError("--eval_task_ids: steps of a domain protocol have the same classes; leave it out")
    for name in ("test_on_val", "val_on_trainset"):
        if task.is_domain and getattr(config, name):
            raise UserError(
                f"--{name}: a domain protocol tests on the 20 % of its images that --domain_split says; leave it out"
            )
    if config.regularizer == "vdfd":
        check_vdfd(config)


def check_sizes(config: SegmentationOptions) -> None:
    """Refuse numbers that are too small.

    Raises:
        UserError: naming the flag.
    """
    least_one = (
        "batch_size", "crop_size", "val_interval", "width", "head_width", "pooling", "singular", "reg_iterations",
        "hypermodel_hid", "hypermodel_out", "pseudo_nb_bins", "spp_scales",
    )  # fmt: skip
    for name, least in {**dict.fromkeys(least_one, 1), "sample_num": 0}.items():
        value = getattr(config, name)
        smallest = min(value, default=0) if isinstance(value, list) else value
        if smallest is not None and smallest < least:
            raise UserError(f"--{name} {smallest}: expected at least {least}")
    if config.batch_size == 1 and config.norm_act not in SYNCHRONISED_NORMS:
        raise UserError(
            f"--batch_size 1: with --norm_act {config.norm_act} every process normalises its own images, and the norm "
            "of the pooled branch needs two; give 2, or --norm_act iabn_sync"
        )


def check_vdfd(config: SegmentationOptions) -> None:
    """Refuse what VDFD's penalty cannot work with.

    Raises:
        UserError: naming the flag.
    """
    if config.cosine:
        raise UserError("--cosine: VDFD needs linear classifiers")
    if config.epsilons <= 0:
        raise UserError(f"--epsilons {config.epsilons:g}: expected more than 0; the precision's rank is not full")
    if config.hypermodel_residual == "on" and config.hypermodel_out not in (None, config.head_width):
        raise UserError(
            f"--hypermodel_out {config.hypermodel_out}: with --hypermodel_residual on the output is as wide as the "
            f"features, {config.head_width}; leave it out, or give --hypermodel_residual off"
        )
    if config.rcil_start == "compensate" and uses_rcil_network(config):
        raise UserError("--rcil_start compensate rewrites weights that VDFD's penalty measures; leave it out")


def check_partners(config: SegmentationOptions) -> None:
    """Refuse flags that would do nothing for want of another one, but those that the originals' own scripts give so.

    Raises:
        UserError: naming both.
    """
    distils, has_pod, mode = config.loss_kd != 0, config.pod is not None, config.pseudo
    table = {
        "ce_on_pseudo": (mode not in (None, "naive", "confidence"), "--pseudo entropy, median or threshold_<x>"),
        "pseudo_soft": (mode == "entropy", "--pseudo entropy"),
        "pseudo_ablation": (mode == "entropy", "--pseudo entropy"),
        "pseudo_nb_bins": (mode in ("entropy", "median"), "--pseudo entropy or median"),
        "classif_adaptive_min_factor": (config.classif_adaptive_factor, "--classif_adaptive_factor"),
        "icarl_disjoint": (config.icarl, "--icarl"),
        "icarl_bkg": (config.icarl_disjoint, "--icarl_disjoint"),
        **dict.fromkeys(
            ("unkd", "kd_mask", "kd_scheduling", "kd_bce_sig", "exkd_gt", "exkd_sum", "temperature_apply"),
            (distils, "--loss_kd"),
        ),
        "kd_mask_adaptative_factor": (config.kd_mask is not None, "--kd_mask"),
        **dict.fromkeys(
            ("pod_logits", "pod_large_logits", "pod_options", "no_pod_schedule", "pod_deeplab_mask"),
            (has_pod, "--pod"),
        ),
        "align_weight": (config.align_weight_frequency != "never", "--align_weight_frequency epoch or task"),
        "align_weight_frequency": (config.align_weight is not None, "--align_weight"),
        "data_masking": (config.dataset in ("voc", "camvid"), "--dataset voc; the other data sets have one label map"),
        "step_ckpt": (bool(config.step) and config.step[0] > 0, "a --step that begins above 0"),
        "vdfd_network": (config.regularizer == "vdfd", "--regularizer vdfd"),
    }
    defaults = SegmentationOptions()
    for name, (is_there, partner) in table.items():
        if not is_there and getattr(config, name) != getattr(defaults, name):
            raise UserError(f"--{name} has no effect without {partner}; add that, or leave --{name} out")


def smoke_form(config: SegmentationOptions) -> SegmentationOptions:
    """The short form: embedded frames, a tiny network, two steps of one epoch, through the same code."""
    is_domain = config.dataset in DOMAIN_DATASETS
    is_joint = config.task == "offline"
    steps = [0] if is_joint else [0, 1]
    task = "offline" if is_joint else "2-1" if is_domain else "7-4"
    return dataclasses.replace(
        config,
        dataset="camvid_domain" if is_domain else "camvid",
        task=task,
        step=steps,
        lr=config.lr[: len(steps)] if len(config.lr) > 1 else config.lr,
        data_root=str(SAMPLE_ROOT),
        num_classes=None,
        overlap=True,  # why: every street scene shows classes of a later step, so that no image is disjoint
        **SMOKE,
    )


def learning_rate(config: SegmentationOptions, step: int) -> float:
    """The learning rate of a step."""
    return config.lr[0] if len(config.lr) == 1 else config.lr[config.step.index(step)]


def epochs_of(config: SegmentationOptions, step: int) -> int:
    """Epochs of a step."""
    return config.epochs[0] if len(config.epochs) == 1 else config.epochs[config.step.index(step)]


def seed_of(config: SegmentationOptions) -> int:
    """The seed in force."""
    return config.random_seed if config.seed is None else config.seed


def shared_folder(config: SegmentationOptions) -> Path:
    """Folder of checkpoints and results; without --output_dir, runs of one name share it, as in the originals."""
    return Path(config.output_dir or Path(config.logdir) / f"{config.task}-{config.dataset}" / config.name)


def run_folder(config: SegmentationOptions) -> Path:
    """Folder of log, record and resume; without --output_dir each list of steps has its own, and each test."""
    kind = "test" if config.test else "step"
    own = "" if config.output_dir else "_".join([kind, *map(str, config.step)])
    return shared_folder(config) / own


def labels_of(config: SegmentationOptions, changed: dict[str, list[Any]], copy: str) -> list[str]:
    """In what respect a run is not the full published setting."""
    labels = ["smoke"] if config.smoke else []
    if copy != "original":
        labels.append(copy)
    if config.backbone not in ("resnet101", "resnet50") or config.dataset.startswith("camvid"):
        labels.append("desk-scale")
    if is_shortened(config, changed):
        labels.append("shortened")
    if config.fast or config.precision == "bf16":  # why: fp16 (O1) is what the papers used
        labels.append("fast")
    return labels


def is_shortened(config: SegmentationOptions, changed: dict[str, list[Any]]) -> bool:
    """Whether a step has fewer epochs than the same step of the script's row."""
    if "epochs" not in changed:
        return False
    all_steps = changed.get("step", [config.step, config.step])
    row, ours = (
        dict(zip(steps, epochs * len(steps) if len(epochs) == 1 else epochs, strict=False))
        for steps, epochs in zip(all_steps, changed["epochs"], strict=True)
    )
    return any(epochs < row.get(step, 0) for step, epochs in ours.items())
