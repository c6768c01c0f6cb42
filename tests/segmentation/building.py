"""Small networks and configs for tests."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from segmentation.configuration import with_preset
from segmentation.network import build_network
from segmentation.options import SegmentationOptions
from segmentation.start import start_step
from segmentation.step import SegLearner

CPU = torch.device("cpu")


def small_config(**changes: Any) -> SegmentationOptions:
    """A network that takes milliseconds."""
    values = {"backbone": "resnet14", "width": 4, "head_width": 8, "no_pretrained": True, "pooling": 4, **changes}
    return dataclasses.replace(SegmentationOptions(), **values)


def small_learner(method: str, counts: list[int], iterations: int = 20, **changes: Any) -> SegLearner:
    """A learner in the second of two steps (or in the first, with one count), always with the same weights."""
    torch.manual_seed(0)
    given = changes.pop("learner", {})
    config = with_preset(small_config(method=method, **changes))
    network, old = build_network(config, counts), None
    if len(counts) > 1:
        old = build_network(config, counts[:-1])
        start_step(config, network, old.state_dict())
    return SegLearner(config, network, old, counts, CPU, iterations=iterations, lr=0.01, **given)


def random_batch(
    classes: list[int], size: int = 32, count: int = 4, seed: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and labels: background, the newest step's classes, some ignored pixels."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 3, size, size, generator=generator)
    first_new = sum(classes[:-1])
    choices = torch.tensor([0, 0, *range(first_new, sum(classes)), 255])
    labels = choices[torch.randint(len(choices), (count, size, size), generator=generator)]
    return images, labels.to(torch.uint8)
