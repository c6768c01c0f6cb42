"""A plain timm ViT driven block by block, so that prompts can be put in front of (or behind) its keys and values.

timm's modules and state-dict keys are used as they are; only the order of calls is ours, because timm's attention has
no place for additional keys and values.

Source: IRVLUTD/CDL@d980577 models/vit.py `Attention.forward`, `VisionTransformer.forward`; July 2024 for mapped
prefixes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn


@dataclass(frozen=True)
class ViTSize:
    """Size of a ViT.

    Attributes:
        dim, depth, heads: width, number of blocks, attention heads.
        image, patch: side of the input and of a patch, pixels.
        mlp_ratio: hidden width of the MLPs in units of `dim`.
    """

    dim: int
    depth: int
    heads: int
    image: int = 224
    patch: int = 16
    mlp_ratio: float = 4.0


class Prefix(NamedTuple):
    """Additional keys and values of one layer, each (B, n, dim), or (heads, 1, head_dim) where they are added to the
    class token's own (`Injection.added`)."""

    keys: Tensor
    values: Tensor


@dataclass(frozen=True)
class Injection:
    """What one layer's attention gets besides its tokens.

    Along the key axis the order is [mapped] [own] [tokens] [kd]; queries are never changed.

    Attributes:
        mapped: the teacher's prefix in the student's width (July 2024).
        own: the prompt method's prefix.
        kd: the distillation's prefix (2025-03 and later).
        added: added to key and value of token 0 (APT).
    """

    mapped: Prefix | None = None
    own: Prefix | None = None
    kd: Prefix | None = None
    added: Prefix | None = None


class Tokens(NamedTuple):
    """Result of a pass.

    Attributes:
        last: (B, tokens, dim) after the final normalisation.
        blocks: (B, tokens, dim) after every block, where asked for.
    """

    last: Tensor
    blocks: list[Tensor]


def build_vit(size: ViTSize) -> VisionTransformer:
    """A ViT without a head, randomly initialised, no dropout, no stochastic depth."""
    return VisionTransformer(
        img_size=size.image,
        patch_size=size.patch,
        embed_dim=size.dim,
        depth=size.depth,
        num_heads=size.heads,
        mlp_ratio=size.mlp_ratio,
        num_classes=0,
        global_pool="",
    )


def attend(attention: nn.Module, x: Tensor, injection: Injection | None = None) -> Tensor:
    """Multi-head self-attention of timm with additional keys and values.

    Args:
        attention: timm's `Attention` (modules `qkv`, `proj`; attribute `num_heads`).
        x: (B, tokens, dim), normalised.
        injection: what to add; None: plain attention.

    Returns:
        (B, tokens, dim).
    """
    batch, count, dim = x.shape
    heads = attention.num_heads
    q, k, v = attention.qkv(x).reshape(batch, count, 3, heads, dim // heads).permute(2, 0, 3, 1, 4).unbind(0)
    if injection is not None:
        if injection.added is not None:
            k, v = (
                torch.cat([own[:, :, :1] + extra, own[:, :, 1:]], dim=2)
                for own, extra in zip((k, v), injection.added, strict=True)
            )
        front = [prefix for prefix in (injection.mapped, injection.own) if prefix is not None]
        behind = [injection.kd] if injection.kd is not None else []
        if front or behind:
            k, v = (
                torch.cat(
                    [*(_in_heads(p[part], heads) for p in front), own, *(_in_heads(p[part], heads) for p in behind)],
                    dim=2,
                )
                for part, own in enumerate((k, v))
            )
    if q.device.type == "cpu" and q.dtype is torch.float32:
        # why not the fused kernel: it rounds otherwise than the original's order of operations, in a few of a hundred
        # random cases by more than the recordings' tolerance, and is hardly faster here
        mixed = ((q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5).softmax(dim=-1) @ v
    elif q.device.type == "cpu" and q.dtype is torch.bfloat16:
        # why: the CPU's own bf16 kernel takes 20 times as long in its backward pass
        with torch.autocast("cpu", enabled=False):
            mixed = F.scaled_dot_product_attention(q.float(), k.float(), v.float()).to(q.dtype)
    else:
        mixed = F.scaled_dot_product_attention(q, k, v)  # scale 1 / sqrt(head_dim)
    return attention.proj(mixed.transpose(1, 2).reshape(batch, count, dim))


def forward_tokens(
    vit: VisionTransformer,
    images: Tensor,
    inject: Callable[[int], Injection | None] | None = None,
    *,
    first: Tensor | None = None,
    last: Tensor | None = None,
    keep_blocks: bool = False,
) -> Tokens:
    """Run a ViT on images.

    Args:
        vit: timm model.
        images: (B, 3, H, W).
        inject: layer, counted from 0 -> what its attention gets; None: nothing anywhere.
        first: (1, 1, dim) token put before the class token, without a position.
        last: (B, 1, dim) token put behind the patches, without a position.
        keep_blocks: also return the tokens after every block.
    """
    batch = len(images)
    x = torch.cat([vit.cls_token.expand(batch, -1, -1), vit.patch_embed(images)], dim=1) + vit.pos_embed
    if first is not None:
        x = torch.cat([first.expand(batch, -1, -1), x], dim=1)
    if last is not None:
        x = torch.cat([x, last], dim=1)
    kept = []
    for layer, block in enumerate(vit.blocks):
        x = x + attend(block.attn, block.norm1(x), inject(layer) if inject is not None else None)
        x = x + block.mlp(block.norm2(x))
        if keep_blocks:
            kept.append(x)
    return Tokens(vit.norm(x), kept)


def query_of(vit: VisionTransformer, images: Tensor) -> Tensor:
    """(B, dim) class token of a pass without prompts: what prompts are chosen by. No gradient."""
    with torch.no_grad():
        return forward_tokens(vit, images).last[:, 0]


def _in_heads(x: Tensor, heads: int) -> Tensor:
    """(B, n, dim) -> (B, heads, n, head_dim)."""
    batch, count, dim = x.shape
    return x.reshape(batch, count, heads, dim // heads).transpose(1, 2)
