"""From a command line and a YAML file to a checked config."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from common.training.errors import UserError
from common.training.options import OVERRIDES_MARKER, parse_row
from prompt_distill.backbones import RANDOM_SIZES, TIMM_SIZES, size_of
from prompt_distill.options import PromptDistillOptions
from prompt_distill.review import UNITS
from prompt_distill.second_head import KDP
from prompt_distill.variant import Variant, resolve_variant

DESCRIPTION = "Continual distillation with prompts: L2P, DualPrompt, CODA-Prompt, APT; teacher to student"
SMOKE_TASKS, SMOKE_CLASSES, SMOKE_IMAGES, SMOKE_BATCH, SMOKE_COMPONENTS = 2, 2, 8, 8, 3


def get_config(argv: Sequence[str]) -> tuple[PromptDistillOptions, dict[str, list[Any]]]:
    """Flags -> typed config, and what the user changed of a script's row.

    Values of a YAML file come before the flags of the same part, so that the command line wins; a file given after
    --overrides is one of the user's changes and wins over the whole row.

    Raises:
        UserError: for flags that do not go together, or a YAML file that is missing or has unknown keys.
    """
    argv = list(argv)
    end = argv.index(OVERRIDES_MARKER) if OVERRIDES_MARKER in argv else len(argv)
    words = [*with_yaml(argv[:end]), *argv[end : end + 1], *with_yaml(argv[end + 1 :])]
    config, changed = parse_row(PromptDistillOptions, words, DESCRIPTION)
    check(config)
    return config, changed


def with_yaml(argv: Sequence[str]) -> list[str]:
    """A part of a command line behind the values of its last --config.

    Raises:
        UserError: as `yaml_words`.
    """
    given = config_path(argv)
    return [*(yaml_words(Path(given)) if given is not None else ()), *argv]


def config_path(argv: Sequence[str]) -> str | None:
    """Value of the last --config on a command line."""
    found = None
    for place, word in enumerate(argv):
        if word == "--config" and place + 1 < len(argv):
            found = argv[place + 1]
        elif word.startswith("--config="):
            found = word.partition("=")[2]
    return found


def yaml_words(path: Path) -> list[str]:
    """A YAML file as command-line words.

    Raises:
        UserError: if it is missing, is no mapping, or has a key that is no flag.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"--config {path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"--config {path}: expected keys and values, found {type(content).__name__}")
    fields = {field.name: field for field in dataclasses.fields(PromptDistillOptions)}
    words: list[str] = []
    for key, value in content.items():
        if key not in fields or key == "config":
            raise UserError(f"--config {path}: unknown key {key!r}")
        if isinstance(fields[key].default, bool):
            words += [f"--{key}"] if bool(value) != fields[key].default else []
        else:
            words += [f"--{key}", *map(str, value if isinstance(value, list) else [value])]
    return words


def check(config: PromptDistillOptions) -> Variant:
    """Refuse what cannot work; returns the variant in force.

    Raises:
        UserError: naming the flag.
    """
    variant = resolve_variant(config.variant, config.KD_method, config.learner_name)
    if config.DW:
        raise UserError("--DW: class balancing has no effect in the original; leave it out")
    if config.amp_backend == "apex":
        raise UserError("--amp_backend apex is not offered here; use torch")
    if len(config.kd_prompt_param) != 2 or config.kd_prompt_param[0] < 1 or config.kd_prompt_param[1] < 2:
        raise UserError(f"--kd_prompt_param expects layers and a length of 2 or more, found {config.kd_prompt_param}")
    for name in ("repeat", "batch_size", "first_split_size", "other_split_size", "virtual_devices", "images_per_class"):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} {value}: expected at least 1")
    if not 0 <= config.kd_alpha <= 1 or config.Soft_T <= 0:
        raise UserError(f"--kd_alpha {config.kd_alpha} --Soft_T {config.Soft_T}: expected 0 to 1, and above 0")
    if config.weights is not None and len(config.weights) > 2:
        raise UserError(f"--weights: one folder, or a file for each network; found {len(config.weights)}")
    if config.max_task < 1 and config.max_task != -1:
        raise UserError(f"--max_task {config.max_task}: expected at least 1, or -1 for all tasks")
    check_models(config, variant)
    check_is_read(config, variant)
    return variant


def check_models(config: PromptDistillOptions, variant: Variant) -> None:
    """Refuse networks that do not go together under the method.

    Raises:
        UserError: naming what differs.
    """
    t_model, s_model = config.t_model, config.s_model
    teacher, student = size_of(t_model), size_of(s_model)
    method, layers = variant.methods[config.KD_method], config.kd_prompt_param[0]
    if method is KDP and layers > student.depth:
        raise UserError(f"--kd_prompt_param {layers}: more layers than {s_model} has, {student.depth}")
    if not method.uses_teacher or config.smoke:  # why smoke: other networks take their place
        return
    if teacher.image != student.image:
        raise UserError(
            f"--t_model {t_model} takes images of {teacher.image} pixels, --s_model {s_model} of {student.image}; "
            "teacher and student see the same images, choose another pair"
        )
    if config.KD_method == "ReviewKD" and student.depth != UNITS:
        raise UserError(f"--KD_method ReviewKD needs a student of {UNITS} blocks; {s_model} has {student.depth}")
    if config.KD_method == "ReviewKD" and teacher.depth < UNITS:
        raise UserError(
            f"--KD_method ReviewKD needs a teacher of at least {UNITS} blocks; {t_model} has {teacher.depth}"
        )
    if method.keeps_blocks and teacher.patch != student.patch:
        raise UserError(
            f"--KD_method {config.KD_method} compares tokens one by one; {t_model} has patches of {teacher.patch} "
            f"pixels, {s_model} of {student.patch}"
        )


def check_is_read(config: PromptDistillOptions, variant: Variant) -> None:
    """Refuse what nothing in this run reads, so that nobody takes a run without effect for one with it.

    Raises:
        UserError: naming the flag.
    """
    default, method = PromptDistillOptions(), variant.methods[config.KD_method]
    merges = config.learner_name == "APT" and method.uses_teacher
    for name, is_read, reader in (
        ("random_s", variant.first_seed is None, f"a --variant with such a flag ({variant.tag} has none; give --seed)"),
        ("mapping_growth", config.KD_method == "CDL-Prompt", "--KD_method CDL-Prompt"),
        ("merge_before_student", merges, "--learner_name APT with a teacher"),
        ("key_loss", config.learner_name in ("DualPrompt", "L2P"), "--learner_name DualPrompt and L2P"),
    ):
        if not is_read and getattr(config, name) != getattr(default, name):
            raise UserError(f"--{name} has no effect here: it is read by {reader} only; leave it out")


def virtual_devices(config: PromptDistillOptions) -> int:
    """Parts of a batch with prompt losses of their own."""
    return config.virtual_devices if config.virtual_devices is not None else max(1, len(config.gpuid))


def seed_of(config: PromptDistillOptions, variant: Variant, repetition: int) -> int:
    """Seed of a repetition, counted from 0."""
    if config.seed is not None:
        return config.seed + repetition
    first = variant.first_seed if variant.first_seed is not None else config.random_s
    return first + repetition


def smoke_form(config: PromptDistillOptions) -> PromptDistillOptions:
    """The short form: embedded sample, tiny random ViTs, two tasks of two classes, through the same code."""
    param = list(config.prompt_param)
    if config.learner_name in ("CODAPrompt", "L2P") and len(param) > 1:
        param[:2] = [2 * SMOKE_COMPONENTS, min(param[1], 4)]
    elif config.learner_name == "DualPrompt" and len(param) > 2:
        param = [SMOKE_TASKS, min(param[1], 4), min(param[2], 4)]
    teacher, student = RANDOM_SIZES
    layers, length = config.kd_prompt_param
    return dataclasses.replace(
        config,
        dataset="Sample",
        t_model=teacher,
        s_model=student,
        weights=None,
        prompt_param=param,
        kd_prompt_param=[min(layers, size_of(student).depth), length],
        first_split_size=SMOKE_CLASSES,
        other_split_size=SMOKE_CLASSES,
        max_task=SMOKE_TASKS,
        schedule=[1],
        batch_size=SMOKE_BATCH,
        images_per_class=SMOKE_IMAGES,
        workers=0,
    )


def labels_of(config: PromptDistillOptions, changed: dict[str, list[Any]], copy: str) -> list[str]:
    """In what respect a run is not the full published setting."""
    labels = ["smoke"] if config.smoke else []
    if copy != "original":
        labels.append(copy)
    if config.s_model not in TIMM_SIZES or config.dataset == "Sample":
        labels.append("desk-scale")
    fewer_epochs = "schedule" in changed and changed["schedule"][1][-1] < changed["schedule"][0][-1]
    if config.max_task > 0 or fewer_epochs:
        labels.append("shortened")
    if config.fast or config.precision != "fp32" or config.opt_level not in (None, "O0"):
        labels.append("fast")
    return labels
