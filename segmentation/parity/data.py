"""Label maps, choice of images, transforms, order, colours."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from PIL import Image

from common.parity import Fixture, reproduces
from segmentation.data.colormaps import ade_colormap, cityscapes_colormap, voc_colormap
from segmentation.data.label_maps import ade_map, cityscapes_domain_map, voc_test_map, voc_training_map
from segmentation.data.sampler import epoch_order, part_of
from segmentation.data.selection import filter_domains, filter_images, presence_of, shuffled_split
from segmentation.data.transforms import normalise, to_bytes, training_pair, validation_pair
from segmentation.tasks import CITIES, find_task

ADE_CASES = (("100-50", 1), ("100-10", 0))
"""Protocols and steps of the recording, which has no arguments."""


@reproduces("seg.data.labelmap_voc_0", "seg.data.labelmap_voc_1")
def voc_label_maps(fixture: Fixture) -> dict[str, Any]:
    """What every raw value becomes."""
    task = find_task("voc", fixture.args["task"])
    maps: dict[str, Any] = {}
    for step in fixture.args["steps"]:
        labels, old = task.labels(step), task.labels_old(step)
        for masking in ("current", "current+old", "new"):
            maps[f"out.train_step{step}_{masking}"] = voc_training_map(labels, old, masking)
        maps[f"out.test_step{step}"] = voc_test_map([*old, *labels], [])
    return maps


@reproduces("seg.data.labelmap_ade")
def ade_label_maps(fixture: Fixture) -> dict[str, Any]:
    """The same for ADE, with and without --ignore_test_bg."""
    maps: dict[str, Any] = {}
    for name, step in ADE_CASES:
        task = find_task("ade", name)
        labels, old = task.labels(step), task.labels_old(step)
        for ignore in (0, 1):
            maps[f"out.train_{name}_{step}_ig{ignore}"] = ade_map(labels, old, bool(ignore))
            maps[f"out.test_{name}_{step}_ig{ignore}"] = ade_map([*old, *labels], [], bool(ignore))
    return maps


@reproduces("seg.data.labelmap_domain")
def domain_label_map(fixture: Fixture) -> dict[str, Any]:
    """Label ids to train ids."""
    return {"out.map": cityscapes_domain_map()}


@reproduces("seg.data.domain_ids")
def domain_ids(fixture: Fixture) -> dict[str, Any]:
    """Numbers of cities."""
    return {"out.ids": torch.tensor([CITIES.index(city) for city in fixture.args["cities"]])}


@reproduces("seg.data.domain_split_0", "seg.data.domain_split_1")
def domain_split(fixture: Fixture) -> dict[str, Any]:
    """Training and other images of a list of domains."""
    training, other = shuffled_split(filter_domains(fixture.inputs["domain_of_image"].numpy(), fixture.args["labels"]))
    return {"out.train_idx": training, "out.val_idx": other}


@reproduces("seg.data.filter_images")
def kept_images(fixture: Fixture) -> dict[str, Any]:
    """Images of a step, overlapped and disjoint."""
    presence = presence_of(list(fixture.inputs["masks"].numpy()))
    kept: dict[str, Any] = {}
    for name, step, overlap in fixture.args["cases"]:
        task = find_task("voc", name)
        setting = "overlap" if overlap else "disjoint"
        kept[f"out.{name}_{step}_{setting}"] = filter_images(
            presence, task.labels(step), task.labels_old(step), bool(overlap)
        )
    return kept


@reproduces("seg.data.transform_train")
def training_transform(fixture: Fixture) -> dict[str, Any]:
    """Random resized crop, flip, normalisation."""
    image, label = _pair(fixture)
    results: dict[str, Any] = {}
    for seed in fixture.args["seeds"]:
        cut, mask, crop = training_pair(image, label, fixture.args["crop_size"], random.Random(seed))
        pixels, labels = to_bytes(cut, mask)
        results[f"out.image{seed}"] = normalise(torch.from_numpy(pixels))
        results[f"out.label{seed}"] = torch.from_numpy(labels)
        results[f"out.crop_i_j_h_w{seed}"] = torch.tensor(crop)
    return results


@reproduces("seg.data.transform_val")
def validation_transform(fixture: Fixture) -> dict[str, Any]:
    """Resize and central crop."""
    pixels, labels = to_bytes(*validation_pair(*_pair(fixture), fixture.args["crop_size"]))
    return {"out.image": normalise(torch.from_numpy(pixels)), "out.label": torch.from_numpy(labels)}


def _pair(fixture: Fixture) -> tuple[Image.Image, Image.Image]:
    return Image.fromarray(fixture.inputs["image"].numpy()), Image.fromarray(fixture.inputs["label"].numpy())


@reproduces("seg.data.distributed_sampler")
def orders(fixture: Fixture) -> dict[str, Any]:
    """Two processes, two epochs."""
    return {
        f"out.epoch{epoch}_rank{rank}": torch.tensor(part_of(epoch_order(fixture.args["n"], epoch, 2), rank, 2))
        for epoch in (0, 1)
        for rank in (0, 1)
    }


@reproduces("seg.data.colormap")
def colours(fixture: Fixture) -> dict[str, np.ndarray]:
    """Palettes."""
    voc, ade = (slice(*fixture.args[name]) for name in ("voc_rows", "ade_rows"))
    return {"out.voc": voc_colormap()[voc], "out.cityscapes": cityscapes_colormap(), "out.ade": ade_colormap()[ade]}
