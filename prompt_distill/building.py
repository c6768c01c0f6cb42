"""From a config to networks, distillation and learner."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from prompt_distill.backbones import Backbone, load_backbone, size_of
from prompt_distill.distillation import DistillationSetting, NoDistillation
from prompt_distill.network import PromptedViT
from prompt_distill.options import PromptDistillOptions
from prompt_distill.prompts import PROMPTS
from prompt_distill.prompts.base import PromptSetting
from prompt_distill.variant import Variant
from prompt_distill.vit import ViTSize


@dataclass(frozen=True)
class Pair:
    """Networks of a run.

    Attributes:
        teacher: None where the method has none.
        student, distillation: always there.
        hashes: "teacher" and "student" -> SHA-256 of the loaded backbone; empty where none was loaded.
    """

    teacher: PromptedViT | None
    student: PromptedViT
    distillation: NoDistillation
    hashes: dict[str, str] = field(default_factory=dict)

    def to(self, device: torch.device) -> Pair:
        """The same on a device."""
        for module in (self.teacher, self.student, self.distillation):
            if module is not None:
                module.to(device)
        return self


def load_backbones(config: PromptDistillOptions, variant: Variant) -> dict[str, Backbone]:
    """The student's backbone, and the teacher's where the method has one."""
    paths = [Path(path) for path in config.weights or []]
    names = {"student": config.s_model}
    if variant.methods[config.KD_method].uses_teacher:
        names = {"teacher": config.t_model, **names}
    files = {"teacher": paths[0] if paths else None, "student": paths[-1] if paths else None}
    return {role: load_backbone(name, config.weights_tag, files[role]) for role, name in names.items()}


def build_pair(
    config: PromptDistillOptions,
    variant: Variant,
    student_vit: torch.nn.Module,
    teacher_vit: torch.nn.Module | None,
    sizes: dict[str, ViTSize],
    classes: int,
    tasks: int,
    devices: int = 1,
) -> Pair:
    """Put prompts, classifiers and the distillation on the backbones.

    Args:
        config: flags; read: --learner_name, --prompt_param, those of the distillation.
        variant: state in force.
        student_vit, teacher_vit: backbones.
        sizes: "student" and, where there is a teacher, "teacher".
        classes, tasks: of the whole run.
        devices: parts of this process's batches with prompt losses of their own.
    """
    kind = PROMPTS[config.learner_name]

    def network(vit: torch.nn.Module, size: ViTSize) -> PromptedViT:
        setting = PromptSetting(
            dim=size.dim,
            key_dim=sizes["student"].dim,  # original: (D6) queries come from the student's backbone
            depth=size.depth,
            heads=size.heads,
            tasks=tasks,
            param=tuple(config.prompt_param),
            key_loss=config.key_loss or variant.key_loss,
            devices=devices,
            ema=config.ema_coeff,
        )
        return PromptedViT(vit, kind(setting), classes)

    teacher = network(teacher_vit, sizes["teacher"]) if teacher_vit is not None else None  # rng: teacher first
    setting = DistillationSetting(
        dim=sizes["student"].dim,
        teacher_dim=sizes["teacher"].dim if teacher is not None else 0,
        classes=classes,
        tasks=tasks,
        alpha=config.kd_alpha,
        temperature=config.Soft_T,
        prompt_param=tuple(config.prompt_param),
        kd_prompt_param=(config.kd_prompt_param[0], config.kd_prompt_param[1]),
        devices=devices,
        normalises_head=kind.normalises_head,
        mapping_growth=config.mapping_growth,
    )
    distillation = variant.methods[config.KD_method](setting)
    return Pair(teacher, network(student_vit, sizes["student"]), distillation)


def load_pair(
    config: PromptDistillOptions, variant: Variant, classes: int, tasks: int, devices: int = 1
) -> tuple[Pair, list[str]]:
    """Networks with pretrained backbones, and a line about each backbone for the record."""
    loaded = load_backbones(config, variant)
    teacher = loaded["teacher"].vit if "teacher" in loaded else None
    sizes = {"student": size_of(config.s_model), "teacher": size_of(config.t_model)}
    pair = build_pair(config, variant, loaded["student"].vit, teacher, sizes, classes, tasks, devices)
    pair = replace(pair, hashes={role: each.sha256 for role, each in loaded.items()})
    return pair, [f"{role}: {each.source}, sha256 {each.sha256}" for role, each in loaded.items()]
