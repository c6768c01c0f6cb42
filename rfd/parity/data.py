"""Adapters: class orders, task splits, transforms."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torchvision import transforms
from torchvision.transforms.functional import to_pil_image

from common.data.transforms import BatchTransform
from common.parity import Fixture, reproduces
from rfd.data.protocol import class_split, default_order, imagenet_order, positions, published_order, task_sizes
from rfd.data.transforms import (
    ABD,
    BRIGHTNESS,
    CLLITE,
    CONTRAST,
    ColourJitterCrop,
    JitterDraws,
    NormalisedPadding,
    cllite_pipeline,
)
from rfd.program import read_config_file

_CONFIGS = Path(__file__).resolve().parents[1] / "config"


@reproduces("rfd.data.class_order")
def class_orders(fixture: Fixture) -> dict[str, Tensor]:
    published = {f"n{n}_seed{seed}": published_order(n, seed) for n in (10, 100, 200) for seed in range(3)}
    names = {"cifar10": "cifar10", "cifar100": "cifar100", "tiny_imagenet200": "tiny-imagenet200",
             "imagenet_r": "imagenet-r", "imagenet100": "imagenet100"}  # fmt: skip
    active = {
        f"config_{name}_active": read_config_file(_CONFIGS / f"{file}.yaml").data.class_order
        for name, file in names.items()
    }
    orders = published | {"imagenet100_np1993": imagenet_order(100)} | active
    return {f"out.{name}": torch.tensor(order) for name, order in orders.items()}


@reproduces("rfd.data.default_order")
def order_by_seed(fixture: Fixture) -> dict[str, Tensor]:
    return {"out.order": torch.tensor(default_order(fixture.args["num_classes"], fixture.args["task_seed"]))}


@reproduces("rfd.data.split_sizes")
def sizes(fixture: Fixture) -> dict[str, Tensor]:
    rows = []
    for classes, tasks, first in fixture.inputs["cases"].tolist():
        # why the digits: the table is in single precision, and 0.7 read back from it is a little less than 0.7
        rows.append(torch.tensor(task_sizes(int(classes), int(tasks), float(f"{first:.6g}"))))
    return {"out.sizes": torch.stack([torch.nn.functional.pad(row, (0, 30 - len(row))) for row in rows])}


@reproduces("rfd.data.split_indices")
def indices(fixture: Fixture) -> dict[str, Tensor]:
    order, targets = fixture.inputs["class_order"].tolist(), fixture.inputs["targets"]
    split = class_split(order, task_sizes(len(order), fixture.args["num_tasks"]))
    found = [split.indices(targets, task) for task in range(1, split.tasks + 1)]
    return {
        "out.indices": torch.cat(found),
        "out.sizes": torch.tensor([len(part) for part in found]),
        "out.label_map": positions(order),
    }


@reproduces("rfd.data.transforms")
def cllite_transforms(fixture: Fixture) -> dict[str, Tensor]:
    args, outputs = fixture.args, {}
    for name, dataset in (("cifar10", "cifar10"), ("cifar100", "cifar100"), ("tiny", "tiny-imagenet200")):
        image = fixture.inputs["img64" if name == "tiny" else "img32"].permute(2, 0, 1)[None]
        spec, stride = CLLITE[dataset], args["stride_tiny"] if name == "tiny" else 1
        train = NormalisedPadding(spec, train=True)
        found = {"eval": NormalisedPadding(spec, train=False)(image)}
        for number in (0, 1):
            draws = train.draw(1, torch.Generator().manual_seed(args[f"seed_train{number}"]))
            found[f"train{number}"] = train(image, draws)
        outputs |= {f"out.{name}_{kind}": value[0, :, ::stride, ::stride] for kind, value in found.items()}
    picture, stride = to_pil_image(fixture.inputs["big"].permute(2, 0, 1)), args["stride_imagenet"]
    for kind in ("eval", "train"):
        torch.manual_seed(args["seed_imagenet_train"])
        found_one = cllite_pipeline(CLLITE["imagenet100"], kind == "train")(picture)
        outputs[f"out.imagenet_{kind}_strided"] = found_one[:, ::stride, ::stride]
    return outputs


@reproduces("rfd.abd.data.transforms")
def abd_transforms(fixture: Fixture) -> dict[str, Tensor]:
    args, outputs = fixture.args, {}
    for name, dataset in (("cifar10", "cifar10"), ("cifar100", "cifar100"), ("tinyimagenet", "tiny-imagenet200")):
        image = fixture.inputs["img64" if name == "tinyimagenet" else "img32"].permute(2, 0, 1)[None]
        spec, stride = ABD[dataset], args["stride_tiny"] if name == "tinyimagenet" else 1
        draws = _torchvision_draws(args["seed"], image)
        found = {
            "eval": BatchTransform(spec, train=False)(image),
            "train": ColourJitterCrop(spec, train=True)(image, draws),
        }
        outputs |= {f"out.{name}_{kind}": value[0, :, ::stride, ::stride] for kind, value in found.items()}
    return outputs


def _torchvision_draws(seed: int, image: Tensor) -> JitterDraws:
    """The decisions for one image, drawn in torchvision's order: jitter, flip, crop."""
    torch.manual_seed(seed)
    ranges = ([1 - BRIGHTNESS, 1 + BRIGHTNESS], [1 - CONTRAST, 1 + CONTRAST])
    order, brightness, contrast, _, _ = transforms.ColorJitter.get_params(*ranges, None, None)
    flip = torch.rand(1) < 0.5
    padded = torch.nn.functional.pad(image, (4,) * 4)
    top, left, _, _ = transforms.RandomCrop.get_params(padded, tuple(image.shape[-2:]))
    places = order.tolist()
    return JitterDraws(
        torch.tensor([top]), torch.tensor([left]), flip, torch.tensor([brightness]), torch.tensor([contrast]),
        torch.tensor([places.index(1) < places.index(0)]),
    )  # fmt: skip
