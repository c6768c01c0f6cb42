"""MNIST and its relatives: 28x28 grey images in the IDX format of the original MNIST files."""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torchvision

from common.data.cifar import DOWNLOAD_ERRORS, quiet_download
from common.data.images import ORIGINAL, RE_ENCODED, SUB_SAMPLED, ImageSet
from common.training.errors import UserError

PREFIXES = {"train": "train", "test": "t10k"}


@dataclass(frozen=True)
class IdxFacts:
    """What is known about one set.

    Attributes:
        classes: class names in label order.
        downloads: whether torchvision can download it.
        complete: split -> number of images of the complete set; None where there is no published size.
        fingerprints: split -> `ImageSet.fingerprint()` of the complete split, where it was seen.
    """

    classes: tuple[str, ...]
    downloads: bool
    complete: dict[str, int | None]
    fingerprints: dict[str, str]


_DIGITS = tuple(str(digit) for digit in range(10))
_CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
_KUZUSHIJI = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
_FULL = {"train": 60_000, "test": 10_000}

IDX = {
    "MNIST": IdxFacts(
        _DIGITS,
        True,
        _FULL,
        {
            "train": "384c24d7e6d4a550218df7be4a82aba216076ebd80544357704226caabf81a72",
            "test": "301ae32d0f44331b60cdda58b095de5a23ab48fb518ba8ab6abbea7e806c0eae",
        },
    ),
    "FashionMNIST": IdxFacts(
        _CLOTHES,
        True,
        _FULL,
        {
            "train": "3291ee79bc7e942ca991e9154f82ee86217c5e902f9051c18b0d6c0a61c1965d",
            "test": "702ef859ba715b66633e1c60359185d97a000072275c2fa462e76b409aa5cc29",
        },
    ),
    "KMNIST": IdxFacts(_KUZUSHIJI, True, _FULL, {}),
    "notMNIST": IdxFacts(
        tuple("ABCDEFGHIJ"),
        False,
        {"train": None, "test": None},
        {
            "test": "580282a641dd41228eaf3bfe137f697c9b3764fd0a0426b5cd099447f37ffbf6",
        },
    ),
}


def open_idx(name: str, root: Path, split: str, download: bool) -> ImageSet:
    """An MNIST-like set from `<root>/<name>/raw/` (torchvision's place), `<root>/<name>/` or `<root>` itself.

    Raises:
        UserError: if it is not there and cannot be downloaded, is damaged, or is another set of this family.
    """
    found = find_idx(name, root, split)
    if found is None and download and IDX[name].downloads:
        try:
            with quiet_download():
                getattr(torchvision.datasets, name)(str(root), train=split == "train", download=True)
        except DOWNLOAD_ERRORS:
            pass  # why: the error below says all that a user can do about it
        found = find_idx(name, root, split)
    if found is None:
        attempt = " and downloading it failed" if download and IDX[name].downloads else ""
        raise UserError(
            f"{name} ({split}) is not in {root}{attempt}; expected {name}/raw/{PREFIXES[split]}-images-idx3-ubyte and "
            f"-labels-idx1-ubyte (or .gz) there: repro data prepare {name.lower()} --from ARCHIVE"
        )
    images, labels = (read_idx(path.read_bytes(), str(path)) for path in found)
    return idx_set(name, split, images, labels, str(found[0].parent))


def find_idx(name: str, root: Path, split: str) -> tuple[Path, Path] | None:
    """Image and label file of a split, or None unless both are there."""
    for folder in (root / name / "raw", root / name, root):
        stems = [folder / f"{PREFIXES[split]}-{kind}-ubyte" for kind in ("images-idx3", "labels-idx1")]
        variants = [(stem, stem.with_name(f"{stem.name}.gz")) for stem in stems]
        images, labels = (next((path for path in pair if path.is_file()), None) for pair in variants)
        if images and labels:
            return images, labels
    return None


def read_idx(data: bytes, what: str) -> np.ndarray:
    """Array of unsigned bytes from the content of an IDX file, gzipped or not.

    Args:
        data: the whole file: two zero bytes, type (8 = unsigned byte), number of dimensions, sizes as big-endian
            32-bit integers, values.
        what: how to call it in an error.

    Raises:
        UserError: if it is damaged or holds something else.
    """
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"{what} is damaged or incomplete ({error}); get it again") from error
    if len(data) < 4 or data[:3] != b"\x00\x00\x08" or data[3] not in (1, 3) or len(data) < 4 + 4 * data[3]:
        raise UserError(f"{what} is no IDX file of unsigned bytes; get it again")
    shape = tuple(int(size) for size in np.frombuffer(data, ">u4", count=data[3], offset=4))
    start = 4 + 4 * len(shape)
    if len(data) - start != math.prod(shape):
        raise UserError(f"{what} holds {len(data) - start} values, its header says {math.prod(shape)}; get it again")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def idx_set(name: str, split: str, images: np.ndarray, labels: np.ndarray, where: str) -> ImageSet:
    """An image set from (N, 28, 28) images and (N,) labels, compared with what is known of this family.

    Raises:
        UserError: if shapes or labels do not fit, or the content is known as another set.
    """
    facts = IDX[name]
    if images.ndim != 3 or images.shape[1:] != (28, 28) or labels.shape != images.shape[:1] or not len(labels):
        raise UserError(f"{where}: expected N images of 28 x 28 and N labels, found {images.shape} and {labels.shape}")
    if labels.max() >= len(facts.classes):
        raise UserError(f"{where}: label {labels.max()} found, {name} has {len(facts.classes)} classes")
    tensors = torch.from_numpy(images.copy())[:, None], torch.from_numpy(labels.astype(np.int64))
    opened = ImageSet(name, split, *tensors, list(facts.classes))
    for other, other_facts in IDX.items():
        if other != name and opened.fingerprint() in other_facts.fingerprints.values():
            raise UserError(f"the files in {where} hold {other}, not {name}; put each set into ROOT/<name>/raw")
    copy, note = _judgement(facts, split, opened.fingerprint(), len(labels))
    return ImageSet(name, split, *tensors, list(facts.classes), copy, note)


def _judgement(facts: IdxFacts, split: str, fingerprint: str, count: int) -> tuple[str, str]:
    expected = facts.complete[split]
    if expected is None:
        return SUB_SAMPLED, f"{count} images drawn from a larger collection"
    if count < expected:
        return SUB_SAMPLED, f"{count} of {expected} images"
    known = facts.fingerprints.get(split)
    if known is None:
        return ORIGINAL, "complete by count; there was no published copy to compare the content with"
    if fingerprint != known:
        return RE_ENCODED, "content differs from the published images"
    return ORIGINAL, ""
