"""Adapters: distillation of feature maps."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from common.parity import Fixture, reproduces
from segmentation.pckd import cube_loss, released_factors
from segmentation.pod import PodOptions, global_embedding, local_embedding, pod_loss, pod_options

_COUNTS = {"index_new_class": 6, "nb_current_classes": 8, "nb_new_classes": 2}
_COUNTED = "seg.pod.loss_voc"
"""Recording that names all class counts; those that leave some out have the same, or, where a folder lacks it, those
that stand above (specification, section 14)."""


@reproduces(*(f"seg.pod.local_embedding_{name}" for name in ("default", "per_scale", "spm", "scales")))
def local(fixture: Fixture) -> dict[str, Tensor]:
    args = fixture.args
    scales = args.get("spp_scales", [1, 2, 4])
    return {"out.emb": local_embedding(fixture.inputs["x"], scales, args.get("normalize_per_scale", False))}


@reproduces("seg.pod.local_masked")
def masked(fixture: Fixture) -> dict[str, Tensor]:
    return {"out.emb": local_embedding(fixture.inputs["x"], mask=fixture.inputs["mask"])}


@reproduces("seg.pod.global_embedding")
def pyramid(fixture: Fixture) -> dict[str, Tensor]:
    return {"out.emb": global_embedding(fixture.inputs["x"], fixture.args["spp_scales"])}


def stated_options(args: dict[str, Any]) -> PodOptions:
    """What the recording says, the flags' defaults otherwise."""
    config = SimpleNamespace(
        pod=args["pod"], pod_factor=args["pod_factor"], pod_options=args.get("pod_options"),
        pod_prepro=args.get("pod_prepro", "pow"), spp_scales=args.get("spp_scales", [1, 2, 4]),
        no_pod_schedule=not args.get("use_pod_schedule", True),
        pod_deeplab_mask=args.get("pod_deeplab_mask", False),
        pod_deeplab_mask_factor=args.get("pod_deeplab_mask_factor"),
        deeplab_mask_downscale=args.get("deeplab_mask_downscale", False),
    )  # fmt: skip
    return pod_options(config)


def recorded_maps(fixture: Fixture) -> tuple[list[Tensor], list[Tensor]]:
    """Maps of the old and of the new network."""
    count = sum(name.startswith("old") for name in fixture.inputs)
    old = [fixture.inputs[f"old{k}"] for k in range(count)]
    return old, [fixture.inputs[f"new{k}"].requires_grad_() for k in range(count)]


def with_gradients(loss: Tensor, maps: list[Tensor]) -> dict[str, Tensor]:
    """A loss and its gradients; maps that it leaves out have gradient 0."""
    found = torch.autograd.grad(loss, maps, allow_unused=True)
    gradients = [torch.zeros_like(m) if g is None else g for m, g in zip(maps, found, strict=True)]
    return {"out.loss": loss} | {f"grad.new{k}": gradient for k, gradient in enumerate(gradients)}


@reproduces(*(f"seg.pod.loss_{name}" for name in ("voc", "ade", "domain")))
@reproduces(
    *(f"seg.pod.loss_{name}" for name in ("trim", "spatial", "global", "deeplab_mask", "l1")),
    base=_COUNTED,
    needs_base=False,
)
def distances(fixture: Fixture) -> dict[str, Tensor]:
    stated = _COUNTS | (fixture.base.args if fixture.base is not None else {}) | fixture.args
    old, new = recorded_maps(fixture)
    options = stated_options(fixture.args)
    loss = pod_loss(old, new, options, *(stated[count] for count in _COUNTS), fixture.inputs.get("labels"))
    return with_gradients(loss, new)


_DATASETS = ("voc", "ade", "cityscape", "cityscapes_domain")


@reproduces(*(f"seg.rcil.pckd_{part}.{name}" for part in ("spatial", "channel") for name in _DATASETS))
def cubes(fixture: Fixture) -> dict[str, Tensor]:
    args = fixture.args
    old, new = recorded_maps(fixture)
    spatial, channel = cube_loss(
        old, new, released_factors(args["dataset"]), args["index_new_class"], args["nb_current_classes"],
        args["nb_new_classes"],
    )  # fmt: skip
    return with_gradients(spatial if "pckd_spatial" in fixture.id else channel, new)
