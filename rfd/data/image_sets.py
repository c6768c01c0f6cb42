"""Opens the data sets by cl-lite's names, in its folder layout or in this repository's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import yaml

from common.data.datasets import ImageSet, LazyImages, open_dataset
from common.data.images import SUB_SAMPLED
from common.training.errors import UserError

CLASSES = {"cifar10": 10, "cifar100": 100, "tiny-imagenet200": 200, "imagenet100": 100, "imagenet1000": 1000,
           "imagenet-r": 200, "sample": 20}  # fmt: skip
"""Data sets and their numbers of classes."""
_IMAGES = {"imagenet100": (129395, 5000), "imagenet1000": (1281167, 50000), "imagenet-r": (24000, 6000)}


def open_images(dataset: str, root: str | Path, split: str, *, sorted_classes: bool = False) -> ImageSet:
    """Open one split.

    Args:
        dataset: a key of `CLASSES`; "sample" is the one that comes with this repository.
        root: the data folder; a set lies in `root/<dataset>`, or in `root` itself as `repro data prepare` puts it.
        split: "train" or "test".
        sorted_classes: Tiny-ImageNet's classes in the order of their names (ABD) instead of `wnids.txt` (cl-lite).

    Raises:
        UserError: for an unknown name, or if the data are missing or damaged.
    """
    root = Path(root)
    if dataset == "sample":
        return open_dataset("Sample", root, split)
    if dataset in ("cifar10", "cifar100"):
        facts = {"cifar10": ("CIFAR10", "cifar-10-batches-py"), "cifar100": ("CIFAR100", "cifar-100-python")}[dataset]
        own = root / dataset
        in_own_folder = (own / facts[1]).is_dir() or (own / f"{dataset}.npz").is_file()
        return open_dataset(facts[0], own if in_own_folder else root, split)
    if dataset == "tiny-imagenet200":
        folder = next(
            (root / name for name in (dataset, "tiny-imagenet-200") if (root / name / "train").is_dir()), None
        )
        if folder is None:
            raise UserError(
                f"tiny-imagenet200 is not in {root}; expected {dataset}/ or tiny-imagenet-200/ there: "
                "repro data prepare tinyimagenet --from ARCHIVE"
            )
        images = open_dataset("TinyImageNet", folder, split)
        return images if sorted_classes else _in_listed_order(images, folder / "wnids.txt")
    if dataset in ("imagenet100", "imagenet1000"):
        number = CLASSES[dataset]
        name = f"{'train' if split == 'train' else 'val'}_{number}.txt"
        return _listed(dataset, split, *_read_list(root / dataset / name))
    if dataset == "imagenet-r":
        return _listed(dataset, split, *_read_yaml_lists(root, split))
    raise UserError(f"unknown data set {dataset!r}; expected one of {', '.join(CLASSES)}")


def _in_listed_order(images: ImageSet, file: Path) -> ImageSet:
    """Classes in the order of a file of class names."""
    if not file.is_file():
        raise UserError(
            f"{file} is missing; classes are numbered by its lines: take it from the published archive, or "
            "repro data prepare tinyimagenet --from ARCHIVE adds it"
        )
    listed = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    order = [name for name in listed if name in set(images.classes)]
    if len(order) != len(images.classes):
        odd = next(name for name in images.classes if name not in set(listed))
        raise UserError(f"{file} does not list the class folder {odd}; expected every folder of train/ in it")
    place = {name: number for number, name in enumerate(order)}
    relabelled = torch.tensor([place[name] for name in images.classes])[images.labels]
    return replace(images, labels=relabelled, classes=order)


def _read_list(file: Path) -> tuple[Path, list[str], list[int]]:
    """Folder, paths and labels of a list `relative/path label`, one image per line; blank lines do not count."""
    if not file.is_file():
        raise UserError(f"{file} is missing; expected lines `relative/path label`, as published by PODNet")
    paths, labels = [], []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        path, _, label = line.strip().rpartition(" ")
        if not line.strip():
            continue
        if not path or not label.isdigit():
            raise UserError(f"{file}, line {number}: expected `relative/path label`, found {line.strip()!r}")
        paths.append(path)
        labels.append(int(label))
    return file.parent, paths, labels


def _read_yaml_lists(root: Path, split: str) -> tuple[Path, list[str], list[int]]:
    """ImageNet-R's two lists `data` and `targets`; paths count from the folder above `data/`.

    original: from the working directory; here the lists are looked for in the data folder too.
    """
    name = f"imagenet-r_{split}.yaml"
    file = next((path for path in (root / name, Path("data") / name) if path.is_file()), None)
    if file is None:
        raise UserError(
            f"{root / name} is missing; expected the keys data (paths such as data/imagenet-r/<wnid>/<file>.jpg) and "
            "targets, as CODA-Prompt publishes them"
        )
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        paths, labels = [str(path) for path in content["data"]], [int(label) for label in content["targets"]]
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file}: expected two lists, data and targets ({' '.join(str(error).split())})") from error
    folder = (
        file.parent.parent if all(path.startswith("data/") for path in paths) and file.parent.name == "data" else None
    )
    if folder is None:
        folder, paths = file.parent, [path.removeprefix("data/") for path in paths]
    return folder, paths, labels


def _listed(dataset: str, split: str, folder: Path, paths: Sequence[str], labels: Sequence[int]) -> ImageSet:
    if not paths or len(paths) != len(labels):
        raise UserError(f"the {split} list of {dataset} holds {len(paths)} images and {len(labels)} labels")
    absent = next((path for path in (paths[0], paths[-1]) if not (folder / path).is_file()), None)
    if absent is not None:
        raise UserError(f"{folder / absent} is missing; the {split} list of {dataset} names it")
    count = CLASSES[dataset]
    if not 0 <= min(labels) <= max(labels) < count:
        raise UserError(f"the {split} list of {dataset} has labels outside 0..{count - 1}")
    expected = _IMAGES[dataset][0 if split == "train" else 1]
    images = ImageSet(
        dataset, split, LazyImages(folder, tuple(paths)), torch.tensor(labels), [str(n) for n in range(count)]
    )
    if len(paths) < expected:
        return replace(images, copy=SUB_SAMPLED, note=f"{len(paths)} of {expected} images")
    return images
