"""Open a data set by name: images and labels as they are on disk, no transform, no random number drawn."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from common.data.cifar import CIFAR, open_cifar
from common.data.embedded import open_sample
from common.data.folders import FOLDERS, open_folders
from common.data.idx import IDX, open_idx
from common.data.images import ImageSet, LazyImages
from common.training.errors import UserError

__all__ = ["DATASET_NAMES", "ImageSet", "LazyImages", "open_dataset"]

DATASET_NAMES = (*CIFAR, *IDX, *FOLDERS, "Sample")
"""Names that `open_dataset` knows."""


def open_dataset(name: str, root: str | Path, split: str, *, download: bool = True) -> ImageSet:
    """Open one split of a data set.

    Labels are read from the files or folder names; the originals read them through the training transform, which
    consumed random numbers. Class order: fine labels 0..99 for CIFAR-100, sorted folder names for image folders.

    Args:
        name: one of `DATASET_NAMES`.
        root: where the data lie. CIFAR and MNIST-like sets: the folder that holds torchvision's layout or a file made
            by `repro data prepare`. Image folders: the folder that holds train/ and val/. "Sample" ignores it.
        split: "train" or "test" (val/ of image folders).
        download: fetch a missing set where torchvision can, as the originals do.

    Raises:
        UserError: for an unknown name or split, or if the data are missing or damaged (says how to get them).
    """
    if split not in ("train", "test"):
        raise UserError(f"split must be train or test, got {split!r}")
    openers = {
        **{known: partial(open_cifar, known, Path(root), split, download) for known in CIFAR},
        **{known: partial(open_idx, known, Path(root), split, download) for known in IDX},
        **{known: partial(open_folders, known, Path(root), split) for known in FOLDERS},
        "Sample": partial(open_sample, split),
    }
    if name not in openers:
        raise UserError(f"unknown data set {name!r}; known: {', '.join(DATASET_NAMES)}")
    return openers[name]()
