"""Images with labels: what `open_dataset` returns."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from common.training.errors import UserError

ORIGINAL = "original"
RE_ENCODED = "re-encoded"
SUB_SAMPLED = "sub-sampled"


@dataclass(frozen=True)
class LazyImages:
    """Image files that are decoded when asked for, for sets too big to hold decoded.

    Attributes:
        root: folder that the paths are relative to.
        paths: relative paths with forward slashes, one per image.
    """

    root: Path
    paths: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def load(self, index: int) -> Image.Image:
        """Image number `index` in RGB.

        Raises:
            UserError: if the file cannot be decoded.
        """
        return load_rgb(self.root / self.paths[index])

    def select(self, indices: Sequence[int]) -> LazyImages:
        """The images at these places, in this order."""
        return replace(self, paths=tuple(self.paths[i] for i in indices))


@dataclass(frozen=True)
class ImageSet:
    """One split of a data set, before any transform.

    Attributes:
        name: name of the data set, as given to `open_dataset`.
        split: "train" or "test".
        images: (N, C, H, W) uint8, or N lazily decoded files.
        labels: (N,) int64, 0 .. number of classes - 1.
        classes: class names in label order.
        copy: "original" (the published images, possibly packed otherwise without loss), "re-encoded" (as many images,
            other pixels) or "sub-sampled" (images or classes are missing).
        note: what a reader of a result should know about this copy; may be empty.
    """

    name: str
    split: str
    images: Tensor | LazyImages
    labels: Tensor
    classes: list[str]
    copy: str = ORIGINAL
    note: str = ""

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            raise ValueError(f"{len(self.images)} images but {len(self.labels)} labels")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def is_lazy(self) -> bool:
        """Whether images are decoded from files when asked for."""
        return isinstance(self.images, LazyImages)

    def fingerprint(self) -> str:
        """SHA-256 (hex) of the content, the same for every way of storing the same images.

        Images are taken class by class in label order, inside a class in the order they have here. For images in
        memory it covers shape, labels and pixels, for files their sorted relative paths and sizes.
        """
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256()
        if isinstance(self.images, LazyImages):
            for path in sorted(self.images.paths):
                digest.update(f"{path}\t{(self.images.root / path).stat().st_size}\n".encode())
            return digest.hexdigest()
        order = torch.sort(self.labels, stable=True).indices
        digest.update(f"{tuple(self.images.shape)}\n".encode())
        digest.update(self.labels[order].numpy().astype("<i8").tobytes())
        for chunk in order.split(4096):  # why: no second copy of the whole set in memory
            digest.update(self.images[chunk].numpy().tobytes())
        return digest.hexdigest()

    def subset(self, indices: Tensor | Iterable[int]) -> ImageSet:
        """The images at these places, in this order; all classes are kept."""
        chosen = torch.as_tensor(list(indices) if not isinstance(indices, Tensor) else indices, dtype=torch.int64)
        images = self.images.select(chosen.tolist()) if isinstance(self.images, LazyImages) else self.images[chosen]
        copy, note = self.copy, self.note
        if len(chosen) < len(self):
            copy, note = SUB_SAMPLED, join_notes(note, f"{len(chosen)} of {len(self)} images")
        return replace(self, images=images, labels=self.labels[chosen], copy=copy, note=note)

    def per_class(self, count: int) -> ImageSet:
        """The first `count` images of every class (all where a class has fewer), in their present order.

        Raises:
            UserError: if `count` is not positive.
        """
        if count < 1:
            raise UserError(f"images per class must be at least 1, got {count}")
        keep = torch.zeros(len(self), dtype=torch.bool)
        for label in range(len(self.classes)):
            keep[(self.labels == label).nonzero()[:count, 0]] = True
        return self.subset(keep.nonzero()[:, 0])

    def classes_only(self, count: int) -> ImageSet:
        """The first `count` classes with their images.

        Raises:
            UserError: if there are not that many classes.
        """
        if not 1 <= count <= len(self.classes):
            raise UserError(f"{self.name} has {len(self.classes)} classes, {count} were asked for")
        if count == len(self.classes):
            return self
        kept = self.subset((self.labels < count).nonzero()[:, 0])
        return replace(
            kept,
            classes=self.classes[:count],
            copy=SUB_SAMPLED,
            note=join_notes(self.note, f"{count} of {len(self.classes)} classes"),
        )


def load_rgb(path: Path) -> Image.Image:
    """Decode an image file completely and convert it to RGB.

    Raises:
        UserError: if it cannot be read or decoded.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        # why: Pillow reports damaged files by all of these
        raise UserError(f"{path} cannot be decoded as an image ({error}); replace the file") from error


def join_notes(*notes: str) -> str:
    """The non-empty notes in one line."""
    return "; ".join(note for note in notes if note)
