"""APT: one vector added to the class token's key and one to its value, per layer; inference uses a merged copy.

Source: IRVLUTD/CDL@d980577 models/zoo.py `APT`. What it creates without using (the dropout ratio, 2x2 layers) is left
out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prompt_distill.prompts.base import PromptMethod, PromptSetting
from prompt_distill.vit import Injection, Prefix

INITIAL_DEVIATION = 0.02


class APT(PromptMethod):
    """Additive prompts; --prompt_param: a dropout ratio that is never used (D10)."""

    name = "APT"
    normalises_head = True

    def __init__(self, setting: PromptSetting) -> None:
        super().__init__(setting)
        tokens = torch.empty(2 * setting.depth, setting.dim)
        self.prompt_tokens = nn.Parameter(nn.init.trunc_normal_(tokens, std=INITIAL_DEVIATION))
        self.register_buffer("global_merged_prompt", torch.zeros(2 * setting.depth, setting.dim))

    def inject(self, layer: int, query: Tensor, train: bool) -> tuple[Injection | None, Tensor | None]:
        """Row 2l goes to the key, row 2l + 1 to the value; training takes the live tokens, inference the buffer."""
        rows = (self.prompt_tokens if train else self.global_merged_prompt)[2 * layer : 2 * layer + 2]
        key, value = (row.view(self.setting.heads, 1, -1) for row in rows)
        return Injection(added=Prefix(key, value)), None

    def finish_task(self) -> None:
        """Merge: the first task's tokens are copied, later ones averaged in."""
        with torch.no_grad():
            if self.task == 0:
                self.global_merged_prompt.copy_(self.prompt_tokens)
            else:
                self.global_merged_prompt.copy_(merged(self.global_merged_prompt, self.prompt_tokens, self.setting.ema))


def merged(buffer: Tensor, tokens: Tensor, ema: float) -> Tensor:
    """ema * buffer + (1 - ema) * tokens."""
    return ema * buffer + (1 - ema) * tokens
