"""Data sets that are folders of image files: train/<class>/... and val/<class>/..."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torchvision.datasets.folder import IMG_EXTENSIONS, has_file_allowed_extension, make_dataset

from common.data.images import ORIGINAL, SUB_SAMPLED, ImageSet, LazyImages, join_notes
from common.training.errors import UserError

SUBFOLDERS = {"train": "train", "test": "val"}


@dataclass(frozen=True)
class FolderFacts:
    """What a complete copy looks like.

    Attributes:
        num_classes: number of class folders.
        per_class: split -> images of every class; None where classes differ or it is not known.
        side: height and width of every image, pixels; None = any size, decoded when asked for.
        folder: folder below the data root that `prepare` writes.
        remark: what is not known about the published set.
    """

    num_classes: int
    per_class: dict[str, int] | None
    side: int | None
    folder: str
    remark: str = ""


FOLDERS = {
    "TinyImageNet": FolderFacts(200, {"train": 500, "test": 50}, 64, "tiny-imagenet-200"),
    "SubImageNet": FolderFacts(
        100,
        {"train": 500, "test": 50},
        None,
        "SubImageNet",
        remark="which 100 ImageNet classes the paper took is not published",
    ),
    "FiveDatasets": FolderFacts(
        50,
        None,
        32,
        "fivedatasets",
        remark="the published archive was not at hand: content and task order cannot be compared",
    ),
}


def open_folders(name: str, root: Path, split: str) -> ImageSet:
    """An image-folder set; classes are the sorted folder names of train/, of val/ where that stands alone for testing.

    `val/` may hold class folders (images directly inside or deeper), or lie flat as TinyImageNet is published:
    `val/images/` with `val/val_annotations.txt`. Both give the same set in the same order.

    Raises:
        UserError: if a folder is missing or empty, the classes of val/ differ, or an image is damaged.
    """
    facts = FOLDERS[name]
    train = root / SUBFOLDERS["train"]
    folder = root / SUBFOLDERS[split]
    classes = class_folders(train if train.exists() else folder)  # data-free methods read test images only
    if not classes:
        raise UserError(
            f"{name} is not in {root}; expected train/<class>/ and val/<class>/ there: "
            f"repro data prepare {name.lower()} --from ARCHIVE"
        )
    samples = _annotated_samples(folder, classes) if is_flat(folder) else _folder_samples(folder, classes, train)
    paths = tuple(path.relative_to(root).as_posix() for path, _ in samples)
    labels = torch.tensor([label for _, label in samples], dtype=torch.int64)
    lazy = LazyImages(root, paths)
    images = lazy if facts.side is None else _decode(lazy, facts.side)
    missing = _missing(facts, split, len(classes), labels)
    return ImageSet(
        name, split, images, labels, classes, SUB_SAMPLED if missing else ORIGINAL, join_notes(missing, facts.remark)
    )


def class_folders(folder: Path) -> list[str]:
    """Sorted names of the class folders; the flat `images` folder beside annotations is none."""
    if not folder.is_dir():
        return []
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    return [name for name in names if not (name == "images" and (folder / "val_annotations.txt").is_file())]


def is_flat(folder: Path) -> bool:
    """Whether a validation folder is as TinyImageNet is published: one folder of images with an annotation file."""
    return (folder / "val_annotations.txt").is_file() and (folder / "images").is_dir() and not class_folders(folder)


def read_annotations(text: str, what: str) -> dict[str, str]:
    """File name -> class name from TinyImageNet's `val_annotations.txt` (tab-separated, further columns unused).

    Raises:
        UserError: if a line has no two columns.
    """
    rows = [line.split("\t") for line in text.splitlines() if line.strip()]
    if not rows or any(len(row) < 2 for row in rows):
        raise UserError(f"{what} is damaged: expected file name, tab, class name in every line")
    return {row[0]: row[1].strip() for row in rows}


def _annotated_samples(folder: Path, classes: list[str]) -> list[tuple[Path, int]]:
    """Images of a flat validation folder in the order they would have in class folders."""
    file = folder / "val_annotations.txt"
    label_of = {name: label for label, name in enumerate(classes)}
    listed = read_annotations(file.read_text(errors="replace"), str(file))
    samples = [
        (label_of[class_name], file_name)
        for file_name, class_name in listed.items()
        if class_name in label_of and (folder / "images" / file_name).is_file()
    ]
    absent = [name for name, label in label_of.items() if label not in {label for label, _ in samples}]
    if absent:
        raise UserError(f"{folder} lacks images of {len(absent)} of {len(classes)} classes in train/, e.g. {absent[0]}")
    return [(folder / "images" / file_name, label) for label, file_name in sorted(samples)]


def _folder_samples(folder: Path, classes: list[str], train: Path) -> list[tuple[Path, int]]:
    """Images of class folders in the order of torchvision's ImageFolder."""
    found = class_folders(folder)
    if not found:
        raise UserError(f"{folder} is missing or has no class folders; expected one per folder of {train}")
    if found != classes:
        odd = sorted(set(found) ^ set(classes))
        raise UserError(f"{folder} and {train} have different class folders, e.g. {odd[0]}; labels would not agree")
    for name in classes:
        if not any(has_file_allowed_extension(file.name, IMG_EXTENSIONS) for file in (folder / name).rglob("*")):
            raise UserError(f"{folder / name} holds no image; put some there or remove the class from train/ and val/")
    labels = {name: label for label, name in enumerate(classes)}
    return [(Path(path), label) for path, label in make_dataset(str(folder), labels, extensions=IMG_EXTENSIONS)]


def _decode(files: LazyImages, side: int) -> torch.Tensor:
    """All images as one tensor (N, 3, side, side) uint8."""
    images = np.empty((len(files), side, side, 3), np.uint8)

    def decode(index: int) -> None:
        image = files.load(index)
        if image.size != (side, side):
            path, size = files.root / files.paths[index], f"{image.width} x {image.height}"
            raise UserError(f"{path} is {size} pixels, expected {side} x {side}; another data set?")
        images[index] = np.asarray(image)

    with ThreadPoolExecutor() as pool:  # why threads: Pillow decodes without holding the interpreter's lock
        list(pool.map(decode, range(len(files))))
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def _missing(facts: FolderFacts, split: str, num_classes: int, labels: torch.Tensor) -> str:
    """What is missing from a complete copy, in words; empty if nothing is."""
    notes = []
    if num_classes < facts.num_classes:
        notes.append(f"{num_classes} of {facts.num_classes} classes")
    if facts.per_class is not None:
        full = facts.per_class[split]
        counts = Counter(torch.bincount(labels, minlength=num_classes).tolist())
        if any(count < full for count in counts):
            smallest, largest = min(counts), max(counts)
            found = f"{smallest}" if smallest == largest else f"{smallest} to {largest}"
            notes.append(f"{found} of {full} images per class")
    return join_notes(*notes)
