"""Distillation methods behind one interface: what they add to the student's pass, to its loss, to its prediction.

Source: IRVLUTD/CDL@d980577 learners/prompt.py, models/zoo.py. Methods with a second classifier: second_head.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from prompt_distill.losses import (
    FITNETS_WEIGHT,
    REVIEW_WEIGHT,
    decoupled_distillation_loss,
    distillation_loss,
    hierarchical_loss,
)
from prompt_distill.network import Extras, Output
from prompt_distill.prompts.base import over_devices
from prompt_distill.review import FusionStack
from prompt_distill.vit import Prefix


@dataclass(frozen=True)
class DistillationSetting:
    """What a distillation module is built for.

    Attributes:
        dim, teacher_dim: widths of student and teacher.
        classes, tasks: of the whole run.
        alpha, temperature: weight of the distillation (the cross-entropy gets 1 - alpha), temperature of KD.
        prompt_param: --prompt_param of the base method (pool and length of the mapping).
        kd_prompt_param: layers with KD prompts, length of each.
        devices: see `PromptSetting.devices`.
        normalises_head: whether classifiers are APT's.
        mapping_growth: whether the mapping takes new components at every task (the original never does, D11).
    """

    dim: int
    teacher_dim: int
    classes: int
    tasks: int
    alpha: float = 0.5
    temperature: float = 2.0
    prompt_param: tuple[float, ...] = ()
    kd_prompt_param: tuple[int, int] = (5, 6)
    devices: int = 1
    normalises_head: bool = False
    mapping_growth: bool = False


@dataclass(frozen=True)
class Terms:
    """The distillation's part of the loss, as it enters it: () tensors; None: the method has no such term."""

    soft: Tensor | None = None
    feature: Tensor | None = None


class NoDistillation(nn.Module):
    """The student alone, and the interface of all methods.

    Attributes:
        uses_teacher: whether there is a teacher at all.
        joint: whether teacher and student learn from the same batch in turns (else one after the other).
        reads_prompts: whether the student's pass needs the teacher's prefixes, in training and inference.
        keeps_blocks: whether the tokens after every block are needed.
        task: the current task, counted from 0.
    """

    name = "none"
    uses_teacher = False
    joint = False
    reads_prompts = False
    keeps_blocks = False

    def __init__(self, setting: DistillationSetting) -> None:
        super().__init__()
        self.setting = setting
        self.task = 0

    @property
    def cross_entropy_weight(self) -> float:
        """Weight of the student's cross-entropy."""
        return 1 - self.setting.alpha if self.uses_teacher else 1.0

    def extras(self, batch: int, teacher_prefixes: Mapping[int, Prefix]) -> Extras:
        """What is added to the student's pass.

        Args:
            batch: number of images.
            teacher_prefixes: layer -> the teacher's prefixes for the same images; empty unless `reads_prompts`.
        """
        return Extras(keep_blocks=self.keeps_blocks)

    def terms(self, student: Output, teacher: Output | None, target: Tensor, columns: slice) -> Terms:
        """The loss terms.

        Args:
            student: of a training pass.
            teacher: of a pass without gradient.
            target: (B,) labels counted inside the current task.
            columns: of the current task.
        """
        return Terms()

    def predict(self, student: Output) -> Tensor:
        """(B, classes) logits for inference."""
        return student.logits

    def kd_logits(self, student: Output) -> Tensor:
        """(B, classes) logits that imitate the teacher."""
        return student.logits

    def trainable(self) -> list[nn.Parameter]:
        """What the student's optimiser moves besides prompts and classifier."""
        return list(self.parameters())

    def next_task(self, task: int) -> None:
        """Before a later task, counted from 0."""
        self.task = task


class KD(NoDistillation):
    """Temperature KD on the current task's logits."""

    name = "KD"
    uses_teacher = True

    def terms(self, student: Output, teacher: Output | None, target: Tensor, columns: slice) -> Terms:
        """See `NoDistillation.terms`."""
        assert teacher is not None
        setting = self.setting
        ours, theirs = self.kd_logits(student)[:, columns].float(), teacher.logits[:, columns].float()
        return Terms(soft=distillation_loss(ours, theirs, setting.temperature, setting.alpha))


class DKD(KD):
    """Decoupled KD."""

    name = "DKD"

    def terms(self, student: Output, teacher: Output | None, target: Tensor, columns: slice) -> Terms:
        """See `NoDistillation.terms`."""
        assert teacher is not None
        ours, theirs = student.logits[:, columns].float(), teacher.logits[:, columns].float()
        return Terms(soft=self.setting.alpha * decoupled_distillation_loss(ours, theirs, target))


class Projection(nn.Module):
    """Tokens of the student in the teacher's width; key of the state dict: `proj`."""

    def __init__(self, dim: int, teacher_dim: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, teacher_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., teacher_dim)."""
        return self.proj(x)


class FitNets(KD):
    """KD, and the projected tokens of the last block against the teacher's."""

    name = "FitNets"
    keeps_blocks = True

    def __init__(self, setting: DistillationSetting) -> None:
        super().__init__(setting)
        self.project_t_s = Projection(setting.dim, setting.teacher_dim)

    def terms(self, student: Output, teacher: Output | None, target: Tensor, columns: slice) -> Terms:
        """See `NoDistillation.terms`."""
        assert teacher is not None
        feature = over_devices(self.feature_loss, self.setting.devices, student.blocks[-1], teacher.blocks[-1])
        return Terms(super().terms(student, teacher, target, columns).soft, feature)

    def feature_loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        """0.1 times the mean squared error; (B, tokens, dim) and (B, tokens, teacher_dim)."""
        return FITNETS_WEIGHT * F.mse_loss(self.project_t_s(student), teacher)


class ReviewKD(KD):
    """KD, and fused token maps of all blocks against the teacher's last twelve. Needs a student of 12 blocks."""

    name = "ReviewKD"
    keeps_blocks = True

    def __init__(self, setting: DistillationSetting) -> None:
        super().__init__(setting)
        self.ReviewKD_layers = FusionStack(setting.dim, setting.teacher_dim)

    def terms(self, student: Output, teacher: Output | None, target: Tensor, columns: slice) -> Terms:
        """See `NoDistillation.terms`."""
        assert teacher is not None
        count = len(student.blocks)

        def loss(*maps: Tensor) -> Tensor:
            fused = self.ReviewKD_layers([x[:, None] for x in maps[:count]])
            return REVIEW_WEIGHT * hierarchical_loss(fused, [x[:, None] for x in maps[count:]])

        feature = over_devices(loss, self.setting.devices, *student.blocks, *teacher.blocks[-count:])
        return Terms(super().terms(student, teacher, target, columns).soft, feature)
