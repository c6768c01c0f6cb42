"""A frozen ViT with a prompt method and a classifier: teacher and student alike.

Source: IRVLUTD/CDL@d980577 models/zoo.py `ViTZoo`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from prompt_distill.prompts import PromptMethod
from prompt_distill.vit import Injection, Prefix, forward_tokens


@dataclass(frozen=True)
class Extras:
    """What a distillation method adds to a student's pass.

    Attributes:
        first, last: tokens added at either end (see `forward_tokens`).
        mapped: layer -> prefix made from the teacher's.
        kd: layer -> prefix of the distillation.
        keep_blocks: whether the tokens after every block are wanted.
    """

    first: Tensor | None = None
    last: Tensor | None = None
    mapped: dict[int, Prefix] | None = None
    kd: dict[int, Prefix] | None = None
    keep_blocks: bool = False


@dataclass(frozen=True)
class Output:
    """What a pass gives.

    Attributes:
        logits: (B, classes), all columns.
        tokens: (B, tokens, dim) after the final normalisation.
        blocks: tokens after every block, where they were asked for.
        prompt_loss: () sum over the layers; 0 outside of training.
        prefixes: layer -> prefix of the prompt method (none for additive prompts).
    """

    logits: Tensor
    tokens: Tensor
    blocks: list[Tensor]
    prompt_loss: Tensor
    prefixes: dict[int, Prefix]


class PromptedViT(nn.Module):
    """Backbone, prompts, classifier.

    Args:
        feat: backbone; it is frozen here: no gradient of its weights is ever computed.
        prompt: prompt method, built for this backbone.
        classes: outputs of the classifier.
    """

    def __init__(self, feat: VisionTransformer, prompt: PromptMethod, classes: int) -> None:
        super().__init__()
        self.feat = feat.requires_grad_(False).eval()
        self.prompt = prompt
        self.last = nn.Linear(feat.embed_dim, classes)
        if prompt.normalises_head:
            self.clf_norm = nn.LayerNorm(feat.embed_dim)  # original: (D10) held by no optimiser

    def forward(self, images: Tensor, query: Tensor, train: bool, extras: Extras = Extras()) -> Output:
        """Classify.

        Args:
            images: (B, 3, H, W).
            query: (B, key_dim), see `query_of`; the same for teacher and student.
            train: training or inference mode of the prompts.
            extras: of the distillation method.
        """
        losses: list[Tensor] = []
        prefixes: dict[int, Prefix] = {}
        mapped, kd = extras.mapped or {}, extras.kd or {}

        def inject(layer: int) -> Injection | None:
            injection, loss = self.prompt.inject(layer, query, train)
            if loss is not None:
                losses.append(loss)
            if injection is not None and injection.own is not None:
                prefixes[layer] = injection.own
            if layer in mapped or layer in kd:
                injection = replace(injection or Injection(), mapped=mapped.get(layer), kd=kd.get(layer))
            return injection

        tokens = forward_tokens(
            self.feat, images, inject, first=extras.first, last=extras.last, keep_blocks=extras.keep_blocks
        )
        class_token = tokens.last[:, 1 if extras.first is not None else 0]
        logits = classify(class_token, self.last, getattr(self, "clf_norm", None))
        total = torch.stack(losses).sum() if losses else logits.new_zeros(())
        return Output(logits, tokens.last, tokens.blocks, total, prefixes)

    def prefixes(self, query: Tensor, train: bool) -> dict[int, Prefix]:
        """The prompt method's prefixes alone, constant, with the parameters as they are now."""
        with torch.no_grad():
            chosen = {layer: self.prompt.inject(layer, query, train)[0] for layer in range(len(self.feat.blocks))}
        return {layer: each.own for layer, each in chosen.items() if each is not None and each.own is not None}

    def trainable(self) -> list[nn.Parameter]:
        """Prompts and classifier."""
        return [*self.prompt.trainable(), *self.last.parameters()]

    def learned_state(self) -> dict[str, Any]:
        """State dict without the backbone, which never changes."""
        return {key: value for key, value in self.state_dict().items() if not key.startswith("feat.")}

    def load_learned_state(self, state: dict[str, Any]) -> None:
        """Inverse of `learned_state`."""
        backbone = {f"feat.{key}": value for key, value in self.feat.state_dict().items()}
        self.load_state_dict(backbone | state)


def classify(x: Tensor, head: nn.Linear, norm: nn.LayerNorm | None = None) -> Tensor:
    """(B, dim) -> (B, classes); with a norm, APT's head: normalised input times rows of length one, plus bias."""
    if norm is None:
        return head(x)
    return F.linear(norm(x), F.normalize(head.weight, dim=1), head.bias)
