"""Swin Transformer with the parameter names and buffers of the network that VDFD carries.

Windows of tokens attend to themselves with a learned bias per relative position; every other block shifts the windows
by half their size, and a mask keeps tokens apart that the shift brings together from opposite borders. Three mergings
of 2x2 neighbours make the stages. The masks and the index of relative positions are part of the state dict, and so is a
1000-way classifier `head` that nothing uses: the task heads `last` come beside it.

Source: Liu et al., "Swin Transformer" (ICCV 2021); XiaorongLi-95/VDFD@2c0dfce task_incremental/models/swin.py (MIT).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from common.backbones.heads import Backbone, TaskHeads
from common.training.errors import UserError

INIT_STD = 0.02
"""Standard deviation of linear weights and position tables, drawn from a normal distribution cut at +-2."""
SEPARATED = -100.0
"""Added to the attention of two tokens that are no neighbours in the image."""


def split_windows(tokens: Tensor, window: int) -> Tensor:
    """(B, H, W, D) -> (B * H W / window^2, window^2, D), windows row by row."""
    batch, height, width, dim = tokens.shape
    blocks = tokens.view(batch, height // window, window, width // window, window, dim)
    return blocks.transpose(2, 3).reshape(-1, window * window, dim)


def join_windows(windows: Tensor, window: int, height: int, width: int) -> Tensor:
    """The inverse of `split_windows`: -> (B, H, W, D)."""
    blocks = windows.view(-1, height // window, width // window, window, window, windows.shape[-1])
    return blocks.transpose(2, 3).reshape(-1, height, width, windows.shape[-1])


def relative_positions(window: int) -> Tensor:
    """(window^2, window^2) int64: row of the position table for each pair of tokens of a window."""
    axis = torch.arange(window)
    places = torch.stack(torch.meshgrid(axis, axis, indexing="ij")).flatten(1)
    offsets = places[:, :, None] - places[:, None, :] + window - 1  # 0 .. 2 window - 2 along each axis
    return offsets[0] * (2 * window - 1) + offsets[1]


def shift_mask(resolution: int, window: int, shift: int) -> Tensor:
    """(windows, window^2, window^2): 0 where two tokens of a shifted window may meet, -100 elsewhere."""
    region = torch.zeros(resolution, dtype=torch.float32)
    region[resolution - window :] = 1
    region[resolution - shift :] = 2
    regions = (3 * region[:, None] + region[None, :])[None, :, :, None]
    labels = split_windows(regions, window).squeeze(-1)
    return torch.where(labels[:, None, :] == labels[:, :, None], 0.0, SEPARATED)


class WindowAttention(nn.Module):
    """Multi-head attention inside windows, with a bias per relative position and head."""

    def __init__(self, dim: int, window: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.register_buffer("relative_position_index", relative_positions(window))
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=INIT_STD)

    def forward(self, windows: Tensor, mask: Tensor | None) -> Tensor:
        """(B * n, N, D) windows of N tokens, (n, N, N) mask or None -> (B * n, N, D)."""
        count, tokens, dim = windows.shape
        qkv = self.qkv(windows).view(count, tokens, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)  # (B * n, heads, N, D / heads) each
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)
        attention = (query * self.scale) @ key.mT + bias
        if mask is not None:
            attention = (attention.unflatten(0, (-1, len(mask))) + mask[:, None]).flatten(0, 1)
        mixed = attention.softmax(dim=-1) @ value
        return self.proj(mixed.transpose(1, 2).reshape(count, tokens, dim))


class FeedForward(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return self.fc2(nn.functional.gelu(self.fc1(tokens)))


class SwinBlock(nn.Module):
    """Window attention and feed-forward layers, each normalised before and added to its input.

    Args:
        dim: width of the tokens.
        resolution: tokens per side of the (square) map.
        heads: attention heads.
        window: tokens per side of a window; a map no larger than that is one window and is not shifted.
        shifted: whether windows are shifted by half their size.
        mlp_ratio: hidden width of the feed-forward layers, in multiples of `dim`.
        drop_path: probability of leaving a branch out, per sample, in training.
    """

    def __init__(
        self, dim: int, resolution: int, heads: int, window: int, shifted: bool, mlp_ratio: float, drop_path: float
    ) -> None:
        super().__init__()
        self.resolution, self.window = resolution, min(window, resolution)
        self.shift = window // 2 if shifted and resolution > window else 0
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, self.window, heads)
        self.drop_path = StochasticDepth(drop_path, mode="row")
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = FeedForward(dim, int(dim * mlp_ratio))
        # a block without shift has no entry in the state dict
        self.register_buffer("attn_mask", shift_mask(resolution, self.window, self.shift) if self.shift else None)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, H * W, D) -> (B, H * W, D)."""
        side = self.resolution
        image = self.norm1(tokens).unflatten(1, (side, side))
        if self.shift:
            image = image.roll((-self.shift, -self.shift), dims=(1, 2))
        windows = self.attn(split_windows(image, self.window), self.attn_mask)
        image = join_windows(windows, self.window, side, side)
        if self.shift:
            image = image.roll((self.shift, self.shift), dims=(1, 2))
        tokens = tokens + self.drop_path(image.flatten(1, 2))
        return tokens + self.drop_path(self.mlp(self.norm2(tokens)))


class PatchMerging(nn.Module):
    """Four neighbours become one token of twice the width."""

    def __init__(self, dim: int, resolution: int) -> None:
        super().__init__()
        self.resolution = resolution
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)
        self.norm = nn.LayerNorm(4 * dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, H * W, D) -> (B, H * W / 4, 2 D)."""
        image = tokens.unflatten(1, (self.resolution, self.resolution))
        corners = [image[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(corners, dim=-1).flatten(1, 2)))


class SwinStage(nn.Module):
    """Blocks at one resolution, every second one shifted, and the merging after them (None after the last stage)."""

    def __init__(
        self,
        dim: int,
        resolution: int,
        heads: int,
        window: int,
        mlp_ratio: float,
        drop_path: Sequence[float],
        merge: bool,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            SwinBlock(dim, resolution, heads, window, index % 2 == 1, mlp_ratio, rate)
            for index, rate in enumerate(drop_path)
        )
        self.downsample = PatchMerging(dim, resolution) if merge else None

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, H * W, D) -> (B, H * W / 4, 2 D), or the shape it got after the last stage."""
        for block in self.blocks:
            tokens = block(tokens)
        return tokens if self.downsample is None else self.downsample(tokens)


class PatchEmbedding(nn.Module):
    """One token per patch: a convolution whose stride is its kernel, and a layer norm."""

    def __init__(self, patch: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, stride=patch)
        self.norm = nn.LayerNorm(dim)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, H * W / patch^2, D)."""
        return self.norm(self.proj(images).flatten(2).transpose(1, 2))


class SwinTransformer(Backbone):
    """Patch embedding, stages of window attention, a last norm, the mean over all tokens. Defaults: Swin-T.

    Args:
        img_size: height and width of the images, fixed by masks and position tables.
        patch_size: pixels per side of a patch.
        embed_dim: width of the first stage's tokens; doubled from stage to stage.
        depths: blocks per stage.
        num_heads: attention heads per stage.
        window_size: tokens per side of a window.
        mlp_ratio: hidden width of the feed-forward layers, in multiples of the token width.
        drop_path_rate: probability of leaving out a branch of the last block; grows linearly from 0 at the first.
        num_classes: outputs of the classifier that is registered and never used.

    Raises:
        ValueError: if stages, heads, windows and the image size do not fit each other.
    """

    def __init__(
        self,
        img_size: int = 224,
        patch_size: int = 4,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: int = 7,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.1,
        num_classes: int = 1000,
    ) -> None:
        super().__init__()
        if len(depths) != len(num_heads):
            raise ValueError(f"one number of heads per stage expected, found {len(num_heads)} for {len(depths)} stages")
        self.img_size = img_size
        self.num_features = embed_dim * 2 ** (len(depths) - 1)
        self.patch_embed = PatchEmbedding(patch_size, embed_dim)
        rates = torch.linspace(0, drop_path_rate, sum(depths)).tolist()
        self.layers = nn.ModuleList()
        resolution, dim = img_size // patch_size, embed_dim
        for index, (depth, heads) in enumerate(zip(depths, num_heads, strict=True)):
            last = index == len(depths) - 1
            _check_stage(index + 1, dim, heads, resolution, window_size, last)
            stage_rates, rates = rates[:depth], rates[depth:]
            self.layers.append(SwinStage(dim, resolution, heads, window_size, mlp_ratio, stage_rates, not last))
            resolution, dim = resolution // 2, 2 * dim
        self.norm = nn.LayerNorm(self.num_features)
        self.head = nn.Linear(self.num_features, num_classes)  # original: registered, drawn, never used
        self.apply(_initialise)  # rng: module by module; the task heads come later and keep their default
        self.last = TaskHeads(self.num_features, {})

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, img_size, img_size) normalised images -> (B, F).

        Raises:
            UserError: for images of another size.
        """
        if images.shape[-2:] != (self.img_size, self.img_size):
            found = " x ".join(map(str, images.shape[-2:]))
            raise UserError(
                f"SwinTransformer takes {self.img_size} x {self.img_size} images, found {found}; use a data set of "
                "that size (--dataset SubImageNet) or another --model_type"
            )
        tokens = self.patch_embed(images)
        for stage in self.layers:
            tokens = stage(tokens)
        return self.norm(tokens).mean(dim=1)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=INIT_STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _check_stage(stage: int, dim: int, heads: int, resolution: int, window: int, last: bool) -> None:
    if dim % heads:
        raise ValueError(f"stage {stage}: a width of {dim} cannot be shared by {heads} heads")
    if resolution > window and resolution % window:
        raise ValueError(f"stage {stage}: windows of {window} tokens do not tile {resolution} tokens per side")
    if not last and resolution % 2:
        raise ValueError(f"stage {stage}: {resolution} tokens per side cannot be merged in pairs")
