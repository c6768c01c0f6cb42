"""The whole network: body, head and one linear classifier per step.

Layout and state-dict keys of arthurdouillard/CVPR2021_PLOP (commit 4b4a060) segmentation_module.py and of RCIL's fork
(zhangchbin/RCIL, commit b9aad58).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.backbones.abn import make_norm, norms_of
from common.backbones.deeplab import STRUCTURES, DeepLabV3, ResNet, tap_maps
from common.training.errors import UserError
from segmentation.options import SYNCHRONISED_NORMS
from segmentation.rcil.merging import second_branches_from_first
from segmentation.rcil.network import RcilBlock, RcilDeepLabV3, draw_mixes


class IncrementalSegmentationModule(nn.Module):
    """Body, head, classifiers.

    Args:
        body: images -> (last map, maps of its stages).
        head: last map -> features.
        channels: of the features.
        classes: classes of every step so far; one number where all steps share one classifier.
        cosine: rows of the classifiers have length 1, and there is no bias.

    Attributes:
        cls: the classifiers.
    """

    def __init__(
        self, body: nn.Module, head: nn.Module, channels: int, classes: Sequence[int], cosine: bool = False
    ) -> None:
        super().__init__()
        self.scalar = nn.Parameter(torch.ones(())) if cosine else None
        self.body, self.head, self.classes = body, head, list(classes)
        self.cls = nn.ModuleList([nn.Conv2d(channels, count, 1, bias=not cosine) for count in classes])

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """Normalised images (B, 3, H, W) -> logits (B, C, H, W), and the maps on the way.

        Returns:
            The logits, and "body" (last map of the body), "pre_logits" (features), "attentions" (maps of the body's
            stages, then the features), "sem_logits_small" (logits before they are enlarged).
        """
        draw_mixes(self, images.device)
        last, maps = self.body(images)
        features = self.head(last)
        small = self.classify(features)
        logits = F.interpolate(small, size=images.shape[-2:], mode="bilinear", align_corners=False)
        return logits, {
            "body": last,
            "pre_logits": features,
            "attentions": [*maps, features],
            "sem_logits_small": small,
        }

    def classify(self, features: Tensor) -> Tensor:
        """(B, channels, H, W) -> logits (B, C, H, W)."""
        if self.scalar is None:
            return torch.cat([classifier(features) for classifier in self.cls], dim=1)
        # original: only the rows are normalised; the normalised features are computed and dropped there
        rows = [F.normalize(classifier.weight, dim=1) for classifier in self.cls]
        return F.conv2d(features, torch.cat(rows))

    def start_balanced(self, copy_bias: bool) -> None:
        """Give all new classes the background's row, so that they share its probability with it.

        Args:
            copy_bias: also share out the background's bias (PLOP); RCIL leaves all biases alone.
        """
        first, newest = self.cls[0], self.cls[-1]
        if first is newest:
            raise UserError("--init_balanced: there is one classifier for all steps and no new class to start")
        with torch.no_grad():
            newest.weight.copy_(first.weight[:1].expand_as(newest.weight))
            if copy_bias and first.bias is not None:
                shared = first.bias[0] - math.log(newest.out_channels + 1)
                newest.bias.fill_(0.0).add_(shared)
                first.bias[0] = shared

    def align_weight(self, only: str) -> None:
        """Scale the newest classifier's rows to the mean length of the earlier ones'.

        Args:
            only: rows of the first classifier that count: old (all but the background), background, or all.
        """
        chosen = {"old": slice(1, None), "background": slice(0, 1), "all": slice(None)}[only]
        with torch.no_grad():
            lengths = [classifier.weight.flatten(1).norm(dim=1) for classifier in self.cls]
            earlier = torch.cat([lengths[0][chosen], *lengths[1:-1]])
            self.cls[-1].weight.mul_(earlier.mean() / lengths[-1].mean())

    def freeze_norms(self) -> None:
        """--fix_bn: statistics and affine parameters stay; the former until the next call of `train()`."""
        for norm in norms_of(self):
            norm.eval()
            for parameter in norm.parameters():
                parameter.requires_grad_(False)


def build_network(config: Any, classes: Sequence[int]) -> IncrementalSegmentationModule:
    """The network of a step, without trained weights.

    Args:
        config: flags (segmentation/options.py).
        classes: classes of every step so far; for domains the single number of classes.

    Raises:
        UserError: for a norm or a body that cannot be had.
    """
    rcil = uses_rcil_network(config)
    slope = config.rcil_slope if rcil and config.norm_act in SYNCHRONISED_NORMS else 0.01
    norm = make_norm(config.norm_act, slope)
    structure, bottleneck = STRUCTURES[config.backbone]
    if rcil and not bottleneck:
        raise UserError(f"--backbone {config.backbone} has no bottlenecks, which RCIL's network needs; try resnet14")
    options = {"block": RcilBlock} if rcil else {}
    body = ResNet(structure, bottleneck, norm, config.output_stride, config.width, **options)
    make_head = RcilDeepLabV3 if rcil else DeepLabV3
    head = make_head(
        body.channels, config.head_width, norm, hidden=config.head_width, out_stride=config.output_stride,
        pooling_size=config.pooling, gain_slope=slope,
    )  # fmt: skip
    if config.attention_maps != "released":
        tap_maps(body, config.attention_maps == "before")
    return IncrementalSegmentationModule(body, head, config.head_width, classes, config.cosine)


def uses_rcil_network(config: Any) -> bool:
    """Whether the two-branch network is meant: RCIL's code, or VDFD told to use it."""
    return follows_rcil(config) or (config.regularizer == "vdfd" and config.vdfd_network == "rcil")


def follows_rcil(config: Any) -> bool:
    """Whether RCIL's code rather than PLOP's is followed."""
    return config.codebase == "rcil" or (config.codebase is None and config.method == "RCIL")


def copies_balanced_bias(config: Any) -> bool:
    """Whether the balanced initialisation shares out the background's bias (D6)."""
    if config.init_balanced_bias == "released":
        return not follows_rcil(config)
    return config.init_balanced_bias == "on"


def pretrained_file(config: Any) -> Path:
    """Where the body's pretrained weights are expected.

    The published file is `resnet101_iabn_sync.pth.tar`; it also serves the other norms with |weight| + eps as scale.
    """
    folder = Path(config.code_directory) / "pretrained"
    named = folder / f"{config.backbone}_{config.norm_act}.pth.tar"
    published = folder / f"{config.backbone}_iabn_sync.pth.tar"
    return published if not named.exists() and "iabn" in config.norm_act else named


def load_pretrained(network: IncrementalSegmentationModule, config: Any) -> Path:
    """Fill the body with ImageNet weights; returns the file.

    Raises:
        UserError: if the file is missing or does not fit the body.
    """
    path = pretrained_file(config)
    if not path.is_file():
        raise UserError(
            f"pretrained body: {path} not found; put the weights of inplace_abn's ResNet-101 there, or give "
            "--no_pretrained"
        )
    stored = torch.load(path, map_location="cpu", weights_only=True)
    state = {key.removeprefix("module."): value for key, value in stored["state_dict"].items()}
    state = {key: value for key, value in state.items() if not key.startswith("classifier.fc.")}
    if uses_rcil_network(config):
        state = second_branches_from_first(state)
    try:
        network.body.load_state_dict(state)
    except RuntimeError as error:
        first_line = " ".join(str(error).split())[:200]
        raise UserError(f"pretrained body: {path} does not fit --backbone {config.backbone}: {first_line}") from error
    return path
