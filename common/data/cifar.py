"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009): 32x32 RGB, 50,000 training and 10,000 test images."""

from __future__ import annotations

import io
import socket
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torchvision

from common.data.images import RE_ENCODED, SUB_SAMPLED, ImageSet
from common.training.errors import UserError

DOWNLOAD_TIMEOUT = 30.0
"""Seconds without an answer after which a download is given up."""

DOWNLOAD_ERRORS = (OSError, RuntimeError, EOFError, ValueError, tarfile.TarError, zipfile.BadZipFile, zlib.error)
"""What torchvision raises when a download fails or what arrives is damaged."""


@dataclass(frozen=True)
class CifarFacts:
    """What is known about one of the two sets.

    Attributes:
        name: name for `open_dataset`.
        folder: folder of the original files, as torchvision lays it out.
        prepared: file that `prepare` writes.
        num_classes: number of (fine) classes.
        fingerprints: split -> `ImageSet.fingerprint()` of the complete set.
    """

    name: str
    folder: str
    prepared: str
    num_classes: int
    fingerprints: dict[str, str]

    def size(self, split: str) -> int:
        """Number of images of a complete split."""
        return 50_000 if split == "train" else 10_000


CIFAR = {
    "CIFAR10": CifarFacts(
        "CIFAR10",
        "cifar-10-batches-py",
        "cifar10.npz",
        10,
        {
            "train": "a2a0713236e12e8d8692b8a4e0612c46701d025ff6f4062a1c13ec28f4f5ee5b",
            "test": "eb0eab764e10e1fe559217b062e8021f57af494cc3577e75fd413c6f323ba9af",
        },
    ),
    "CIFAR100": CifarFacts(
        "CIFAR100",
        "cifar-100-python",
        "cifar100.npz",
        100,
        {
            "train": "48f1dad5cc03b1fdf9ed8743c99a32fb896250dadc26607810a9458ef37b4f2d",
            "test": "9f015ae84db89b3fe83286bee1a1be0554530356a068d974fc8cfdd8e7ad0436",
        },
    ),
}


def open_cifar(name: str, root: Path, split: str, download: bool) -> ImageSet:
    """CIFAR from the original files, else from the prepared file, else downloaded.

    Raises:
        UserError: if there is nothing usable, or what there is is damaged.
    """
    facts = CIFAR[name]
    original_files = (root / facts.folder).is_dir()
    if original_files:
        found = _read_torchvision(facts, root, split, download=False)
        if found is not None:
            return _judged(facts, split, *found, note="")
    if (root / facts.prepared).is_file():
        return _judged(facts, split, *read_prepared(root / facts.prepared, split), note=_prepared_note(facts, split))
    if download:
        found = _read_torchvision(facts, root, split, download=True)
        if found is not None:
            return _judged(facts, split, *found, note="")
    problem = f"{root / facts.folder} is damaged or incomplete" if original_files else f"{name} is not in {root}"
    attempt = " and downloading it failed" if download else ""
    raise UserError(
        f"{problem}{attempt}; expected {facts.folder}/ (original files) or {facts.prepared} there: "
        f"repro data prepare {name.lower()} --from ARCHIVE"
    )


def read_prepared(path: Path, split: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """One split of a file written by `prepare`.

    Returns:
        images (N, 32, 32, 3) uint8, labels (N,) and class names.

    Raises:
        UserError: if the file is damaged or something else.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            images, labels = stored[f"{split}_images"], stored[f"{split}_labels"]
            classes = [str(name) for name in stored["classes"]]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"{path} is damaged or not a prepared data set ({error}); delete it and run "
            f"repro data prepare {path.stem} --from ARCHIVE"
        ) from error
    if images.dtype != np.uint8 or images.shape[1:] != (32, 32, 3) or labels.shape != images.shape[:1]:
        raise UserError(f"{path} holds {split} images {images.shape}, expected (N, 32, 32, 3) bytes; prepare it again")
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(classes):
        raise UserError(f"{path} holds labels outside 0..{len(classes) - 1}; prepare it again")
    return images, labels, classes


def cifar_set(
    name: str, split: str, images: np.ndarray, labels: np.ndarray, classes: list[str], **about: str
) -> ImageSet:
    """An image set from (N, 32, 32, 3) uint8 images."""
    tensor = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    return ImageSet(name, split, tensor, torch.as_tensor(np.asarray(labels), dtype=torch.int64), classes, **about)


def _judged(
    facts: CifarFacts, split: str, images: np.ndarray, labels: np.ndarray, classes: list[str], note: str
) -> ImageSet:
    """The set, with `copy` by comparison with the complete published content."""
    opened = cifar_set(facts.name, split, images, labels, classes, note=note)
    if opened.fingerprint() == facts.fingerprints[split]:
        return opened
    if len(labels) >= facts.size(split) and len(classes) == facts.num_classes:
        return replace(opened, copy=RE_ENCODED, note="content differs from the published images")
    found = f"{len(labels)} of {facts.size(split)} images, {len(classes)} of {facts.num_classes} classes"
    return replace(opened, copy=SUB_SAMPLED, note=found)


def _prepared_note(facts: CifarFacts, split: str) -> str:
    if facts.name == "CIFAR100" and split == "test":
        return "test images class by class; their order across classes in the original files is not known"
    return ""


def _read_torchvision(
    facts: CifarFacts, root: Path, split: str, download: bool
) -> tuple[np.ndarray, np.ndarray, list[str]] | None:
    """The original files through torchvision, which checks their MD5; None if that fails."""
    try:
        with quiet_download():
            found = getattr(torchvision.datasets, facts.name)(str(root), train=split == "train", download=download)
    except DOWNLOAD_ERRORS:
        return None
    return found.data, np.asarray(found.targets), list(found.classes)


@contextmanager
def quiet_download() -> Iterator[None]:
    """Let torchvision download with a time limit and without its messages on standard output."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        socket.setdefaulttimeout(before)
