"""From a command line to a checked config: presets, refusals, the short form.

Source: arthurdouillard/CVPR2021_PLOP@4b4a060 argparser.py `modify_command_options`, zhangchbin/RCIL@b9aad58
argparser.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.training.errors import UserError
from common.training.options import parse_row
from segmentation.data.sources import SAMPLE_ROOT
from segmentation.options import SegmentationOptions
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
    config = with_preset(config)
    check(config)
    return config, changed


def with_preset(config: SegmentationOptions) -> SegmentationOptions:
    """The config with everything that its method sets.

    Raises:
        UserError: if a flag was given another value than the preset's, which the original overwrites silently.
    """
    preset = dict(PRESETS.get(config.method or "FT", {}))
    if config.method == "VDFD":
        preset = {"regularizer": "vdfd"}
        if config.reg_importance == SegmentationOptions.reg_importance:
            preset["reg_importance"] = VDFD_IMPORTANCE
        if config.dataset not in DOMAIN_DATASETS:  # derived: the background changes its meaning, as with MiB
            preset |= {"unce": True, "init_balanced": True}
    defaults = SegmentationOptions()
    for name, value in preset.items():
        given = getattr(config, name)
        if given != getattr(defaults, name) and given != value:
            raise UserError(
                f"--method {config.method} sets --{name} to {value}, found {given}; leave it out, or give --method FT "
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
    for name in ("batch_size", "crop_size", "val_interval", "width", "head_width", "pooling", "singular"):
        if getattr(config, name) < 1:
            raise UserError(f"--{name} {getattr(config, name)}: expected at least 1")
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
    if config.method == "VDFD" and config.cosine:
        raise UserError("--cosine: VDFD needs linear classifiers")


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


def run_folder(config: SegmentationOptions) -> Path:
    """Folder of the run."""
    return Path(config.output_dir or Path(config.logdir) / f"{config.task}-{config.dataset}" / config.name)


def labels_of(config: SegmentationOptions, changed: dict[str, list[Any]], copy: str) -> list[str]:
    """In what respect a run is not the full published setting."""
    labels = ["smoke"] if config.smoke else []
    if copy != "original":
        labels.append(copy)
    if config.backbone not in ("resnet101", "resnet50") or config.dataset.startswith("camvid"):
        labels.append("desk-scale")
    if "epochs" in changed and sum(changed["epochs"][1]) < sum(changed["epochs"][0]):
        labels.append("shortened")
    if config.fast or config.precision == "bf16":  # why: fp16 (O1) is what the papers used
        labels.append("fast")
    return labels
