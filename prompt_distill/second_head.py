"""Distillation methods with a classifier of their own: front token, KDP, CDL-Prompt.

Source: IRVLUTD/CDL@bebe528 (front token), @d980577 (KDP), July 2024 history, `attention_base` (CDL-Prompt).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from prompt_distill.distillation import KD, DistillationSetting
from prompt_distill.network import Extras, Output, classify
from prompt_distill.prompts.base import uniform_parameter
from prompt_distill.prompts.coda import ComponentPools
from prompt_distill.vit import Prefix


class SecondHead(KD):
    """Methods whose distillation has a classifier of its own."""

    def __init__(self, setting: DistillationSetting) -> None:
        super().__init__(setting)
        self.kd_last = nn.Linear(setting.dim, setting.classes)
        if setting.normalises_head:
            self.kd_cls_norm = nn.LayerNorm(setting.dim)  # original: (D10) held by no optimiser

    def distilled_token(self, student: Output) -> Tensor:
        """(B, dim) what the second head reads."""
        raise NotImplementedError

    def kd_logits(self, student: Output) -> Tensor:
        """See `NoDistillation.kd_logits`."""
        return classify(self.distilled_token(student), self.kd_last, getattr(self, "kd_cls_norm", None))

    def predict(self, student: Output) -> Tensor:
        """Both heads, weighted as their losses are."""
        alpha = self.setting.alpha
        return (1 - alpha) * student.logits + alpha * self.kd_logits(student)

    def trainable(self) -> list[nn.Parameter]:
        """All but the norm before the second head."""
        return [parameter for name, parameter in self.named_parameters() if not name.startswith("kd_cls_norm")]


class FrontToken(SecondHead):
    """KD_Token until 2025-01: an extra token in front, read by the second head (after DeiT)."""

    name = "KD_Token (front)"

    def __init__(self, setting: DistillationSetting) -> None:
        super().__init__(setting)
        self.add_T_token = nn.Parameter(torch.zeros(1, 1, setting.dim))

    def extras(self, batch: int, teacher_prefixes: Mapping[int, Prefix]) -> Extras:
        """The token."""
        return Extras(first=self.add_T_token)

    def distilled_token(self, student: Output) -> Tensor:
        """The first token."""
        return student.tokens[:, 0]


class KDPrompts(nn.Module):
    """A token and prefixes shared by all samples and tasks.

    State dict: `kd_p_0` (1, dim) the token, `kd_p_<l>` (length, dim) the prefix of layer l, keys first.
    """

    def __init__(self, dim: int, layers: int, length: int) -> None:
        super().__init__()
        self.layers = layers
        for layer in range(layers):
            self.register_parameter(f"kd_p_{layer}", uniform_parameter(1 if layer == 0 else length, dim))

    def token(self, batch: int) -> Tensor:
        """(B, 1, dim)."""
        return self.kd_p_0.expand(batch, -1, -1)

    def prefixes(self, batch: int) -> dict[int, Prefix]:
        """Layers 1 .. layers - 1."""
        chosen = {layer: getattr(self, f"kd_p_{layer}").expand(batch, -1, -1) for layer in range(1, self.layers)}
        return {
            layer: Prefix(prompt[:, : prompt.shape[1] // 2], prompt[:, prompt.shape[1] // 2 :])
            for layer, prompt in chosen.items()
        }


class KDP(SecondHead):
    """KD_Token from 2025-03 on: a token at the end and KD prefixes, read by the second head."""

    name = "KD_Token (KDP)"

    def __init__(self, setting: DistillationSetting) -> None:
        super().__init__(setting)
        self.kd_prompt = KDPrompts(setting.dim, *setting.kd_prompt_param)

    def extras(self, batch: int, teacher_prefixes: Mapping[int, Prefix]) -> Extras:
        """Token and prefixes."""
        return Extras(last=self.kd_prompt.token(batch), kd=self.kd_prompt.prefixes(batch))

    def distilled_token(self, student: Output) -> Tensor:
        """The last token."""
        return student.tokens[:, -1]


class CDLPrompt(SecondHead):
    """July 2024: the teacher's prompts, mapped by attention over learned components, and a second head."""

    name = "CDL-Prompt"
    joint = True
    reads_prompts = True

    def __init__(self, setting: DistillationSetting) -> None:
        super().__init__(setting)
        pool, length = (int(value) for value in setting.prompt_param[:2])
        self.project_fc_layers = ComponentPools(setting.dim, setting.teacher_dim, setting.tasks, pool, length)

    def extras(self, batch: int, teacher_prefixes: Mapping[int, Prefix]) -> Extras:
        """Mapped prefixes at the layers where the teacher has one."""
        return Extras(mapped={layer: self.map(layer, teacher_prefixes[layer]) for layer in teacher_prefixes})

    def map(self, layer: int, prefix: Prefix) -> Prefix:
        """The teacher's prefix, averaged over its tokens, as the query of the components."""
        return self.mapped_from(layer, torch.cat(prefix, dim=1).mean(dim=1))

    def mapped_from(self, layer: int, query: Tensor) -> Prefix:
        """(B, teacher_dim) -> prefix in the student's width.

        # original: (D11) only the first task's components are ever used, and they always learn
        """
        task = self.task if self.setting.mapping_growth else 0
        return self.project_fc_layers.prefix(layer, query, task, train=True)

    def distilled_token(self, student: Output) -> Tensor:
        """The class token, as for the first head."""
        return student.tokens[:, 0]

    def predict(self, student: Output) -> Tensor:
        """# original: (D13) the plain mean of both heads, whatever alpha is."""
        return (student.logits + self.kd_logits(student)) / 2

    def next_task(self, task: int) -> None:
        """Take new components, where the mapping may grow."""
        super().next_task(task)
        if self.setting.mapping_growth:
            self.project_fc_layers.start_task(task)
