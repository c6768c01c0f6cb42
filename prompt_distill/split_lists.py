"""The fixed image lists of ImageNet-R, ImageNet-A and DomainNet.

The lists of the first two come with the code (`splits/*.csv.gz`, columns split, index, file, label). DomainNet's belong
to CODA-Prompt and are read in its form: two YAML files with the parallel lists `data` and `targets`.
"""

from __future__ import annotations

import csv
import gzip
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from torch import Tensor

from common.data.images import ORIGINAL, ImageSet, LazyImages
from common.training.errors import UserError

FOLDER = Path(__file__).parent / "splits"


@dataclass(frozen=True)
class ListedFacts:
    """A data set that is defined by lists.

    Attributes:
        folder: below the data root; listed paths are relative to it.
        classes: size of the label range that tasks are cut from; listed labels outside of it belong to no task.
        packed: the list that comes with the code; None: YAML files in the folder.
    """

    folder: str
    classes: int
    packed: str | None


LISTED = {
    "ImageNet_R": ListedFacts("imagenet-r", 200, "imagenet_r_split.csv.gz"),
    "ImageNet_A": ListedFacts("imagenet-a", 200, "imagenet_a_split.csv.gz"),
    "DomainNet": ListedFacts("domainnet", 345, None),
}


def read_list(name: str, split: str, root: Path | None = None) -> tuple[list[str], Tensor]:
    """Relative paths and labels of a split, in list order.

    Args:
        name: one of `LISTED`.
        split: "train" or "test".
        root: data root; needed for DomainNet.

    Raises:
        UserError: if DomainNet's lists are not there.
    """
    facts = LISTED[name]
    if facts.packed is not None:
        with gzip.open(FOLDER / facts.packed, "rt", encoding="utf-8", newline="") as file:
            rows = [(row["file"], int(row["label"])) for row in csv.DictReader(file) if row["split"] == split]
        return [path for path, _ in rows], torch.tensor([label for _, label in rows])
    path = Path(root or ".") / facts.folder / f"{facts.folder}_{split}.yaml"
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        files, labels = content["data"], content["targets"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise UserError(
            f"{name}: its list {path.name} is not in {path.parent} ({type(error).__name__}); take it from CODA-Prompt "
            "(dataloaders/splits) and put the images beside it"
        ) from error
    marker = f"{facts.folder}/"
    return [str(file).rpartition(marker)[2] for file in files], torch.tensor([int(label) for label in labels])


def open_listed(name: str, root: Path, split: str) -> ImageSet:
    """A split with its images, decoded when asked for.

    Raises:
        UserError: if images are missing.
    """
    facts = LISTED[name]
    paths, labels = read_list(name, split, root)
    folder = Path(root) / facts.folder
    missing = next((path for path in paths if not (folder / path).is_file()), None)
    if missing is not None:
        raise UserError(f"{name} is not complete in {folder}: {missing} is missing; unpack the published archive there")
    classes = max(facts.classes, int(labels.max()) + 1)
    names = [str(label) for label in range(classes)]
    return ImageSet(name, split, LazyImages(folder, tuple(paths)), labels, names, copy=ORIGINAL)
