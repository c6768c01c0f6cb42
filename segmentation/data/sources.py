"""Image files with their masks, before any transform.

Source of the layouts: arthurdouillard/CVPR2021_PLOP@4b4a060 dataset/{voc,ade,cityscapes_domain}.py,
zhangchbin/RCIL@b9aad58 dataset/cityscape.py.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from common.data.images import ORIGINAL, RE_ENCODED, SUB_SAMPLED, load_rgb
from common.training.errors import UserError
from segmentation.tasks import CITIES, SEQUENCES

SAMPLE_ROOT = Path(__file__).parent / "sample"
"""Data root of the embedded sample."""
CACHE_BYTES = 2**30
"""Most memory for decoded images of one source."""
IMAGE_SUFFIXES = (".jpg", ".webp", ".png")


@dataclass
class PairSource:
    """Images and masks of one split.

    Attributes:
        name: of the data set.
        root: folder that the paths are relative to.
        images, masks: relative paths with forward slashes, one pair per image.
        domains: (N,) city or sequence of every image; None where there are none.
        copy, note: see `common.data.images.ImageSet`.
    """

    name: str
    root: Path
    images: tuple[str, ...]
    masks: tuple[str, ...]
    domains: np.ndarray | None = None
    copy: str = ORIGINAL
    note: str = ""
    _cache: dict[int, tuple[Image.Image, Image.Image]] = field(default_factory=dict, repr=False)
    _cached_bytes: int = 0

    def __len__(self) -> int:
        return len(self.images)

    def load(self, index: int) -> tuple[Image.Image, Image.Image]:
        """Image (RGB) and mask (mode L) number `index`; decoded once where memory allows.

        Raises:
            UserError: if a file cannot be decoded, or their sizes differ.
        """
        if index in self._cache:
            return self._cache[index]
        image, mask = load_rgb(self.root / self.images[index]), Image.fromarray(self.mask(index))
        if image.size != mask.size:
            raise UserError(f"{self.images[index]} has {image.size} pixels, its mask {mask.size}; replace the files")
        size = image.width * image.height * 4
        if self._cached_bytes + size <= CACHE_BYTES:
            self._cache[index] = image, mask
            self._cached_bytes += size
        return image, mask

    def mask(self, index: int) -> np.ndarray:
        """(H, W) uint8 raw values of a mask.

        Raises:
            UserError: if it cannot be decoded or holds colours.
        """
        path = self.root / self.masks[index]
        try:
            with Image.open(path) as mask:
                values = np.array(mask)
        except (OSError, SyntaxError, ValueError) as error:
            raise UserError(f"{path} cannot be decoded as a mask ({error}); replace the file") from error
        if values.ndim != 2:
            raise UserError(f"{path}: expected a mask with one value per pixel, found shape {values.shape}")
        return values.astype(np.uint8)

    def fingerprint(self, indices: Sequence[int]) -> str:
        """SHA-256 (hex) over paths and sizes of the chosen pairs, in sorted order."""
        digest = hashlib.sha256()
        for index in sorted(indices, key=lambda place: self.images[place]):
            for path in (self.images[index], self.masks[index]):
                digest.update(f"{path}\t{(self.root / path).stat().st_size}\n".encode())
        return digest.hexdigest()


def open_voc(root: Path, split: str) -> PairSource:
    """Pascal VOC 2012 with the augmented masks: `list/` or `splits/`, images where PLOP, RCIL or the download put them.

    Args:
        root: data root.
        split: "train" (train_aug) or "val".

    Raises:
        UserError: if a list or the images are missing.
    """
    name = "train_aug.txt" if split == "train" else "val.txt"
    lists = [base / folder / name for base in (root, root / "PascalVOC12") for folder in ("list", "splits")]
    path = _first(lists, f"{name} of Pascal VOC")
    base = path.parent.parent
    pairs = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise UserError(f"{path}: expected '/JPEGImages/<id>.jpg /SegmentationClassAug/<id>.png' in each line")
    places = [base / "VOCdevkit" / "VOC2012" / "JPEGImages", base / "JPEGImages"]
    folder = _first(places, "JPEGImages of Pascal VOC").relative_to(base).as_posix()
    images = tuple(f"{folder}/{Path(image).name}" for image, _ in pairs)
    return PairSource("voc", base, images, tuple(mask.lstrip("/") for _, mask in pairs))


def open_ade(root: Path, split: str) -> PairSource:
    """ADE20K of the scene parsing challenge, sorted by name."""
    folder = {"train": "training", "val": "validation"}[split]
    base = _first([root / "ADEChallengeData2016"], "ADE20K")
    images = _files(base / "images" / folder, ".jpg", base)
    masks = tuple(f"annotations/{folder}/{Path(image).stem}.png" for image in images)
    return PairSource("ade", base, images, masks)


def open_cityscapes(root: Path, splits: Sequence[str] = ("train", "val")) -> PairSource:
    """Cityscapes with label ids: the sorted files of every split, one split after the other.

    Raises:
        UserError: if it is missing, or holds a city that is not known.
    """
    base = _first([root, root / "cityscapes"], "leftImg8bit of Cityscapes", inside="leftImg8bit")
    images = [name for split in splits for name in _files(base / "leftImg8bit" / split, ".png", base, deep=True)]
    cities = [Path(image).parent.name for image in images]
    if unknown := set(cities) - set(CITIES):
        raise UserError(f"{base / 'leftImg8bit'}: unknown city {min(unknown)}; expected {len(CITIES)} known ones")
    masks = tuple(f"gtFine{image[len('leftImg8bit') : -15]}gtFine_labelIds.png" for image in images)
    domains = np.array([CITIES.index(city) for city in cities], dtype=np.int64)
    return PairSource("cityscapes", base, tuple(images), masks, domains)


def open_camvid(root: Path, splits: Sequence[str] | None = None) -> PairSource:
    """The four sequences of CamVid that `repro data prepare camvid` lays out.

    Args:
        root: data root, holding `camvid/`.
        splits: of the official ones ("train", "val", "test"); None: all.

    Raises:
        UserError: if it is missing or damaged.
    """
    base = root / "camvid"
    path = base / "list.csv"
    if not path.is_file():
        raise UserError(f"CamVid: {path} not found; repro data prepare camvid --from camvid_domains.zip")
    with path.open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if splits is None or row["official_split"] in splits]
    stems = [f"{row['sequence']}/{row['name']}" for row in rows]
    images = []
    for stem in stems:
        found = [name for suffix in IMAGE_SUFFIXES if (base / (name := f"images/{stem}{suffix}")).is_file()]
        if not found:
            raise UserError(f"CamVid: {base / 'images' / stem} is missing; prepare it again")
        images.append(found[0])
    domains = np.array([SEQUENCES.index(row["sequence"]) for row in rows], dtype=np.int64)
    is_sample = base.parent == SAMPLE_ROOT
    return PairSource(
        "camvid",
        base,
        tuple(images),
        tuple(f"labels/{stem}.png" for stem in stems),
        domains,
        SUB_SAMPLED if is_sample else RE_ENCODED,
        "24 embedded frames of 160 x 120" if is_sample else "148 of 701 frames, images re-encoded (JPEG quality 94)",
    )


def _first(places: Sequence[Path], what: str, inside: str = "") -> Path:
    """The first of some places that exists."""
    for place in places:
        if (place / inside).exists():
            return place
    shown = " nor ".join(str(place / inside) for place in places)
    raise UserError(f"{what} not found: there is neither {shown}; give the right --data_root")


def _files(folder: Path, suffix: str, base: Path, deep: bool = False) -> tuple[str, ...]:
    """Sorted relative paths of the files with a suffix."""
    glob: Callable[[str], object] = folder.rglob if deep else folder.glob
    found = tuple(sorted(path.relative_to(base).as_posix() for path in glob(f"*{suffix}"))) if folder.is_dir() else ()
    if not found:
        raise UserError(f"no {suffix} files in {folder}; give the right --data_root")
    return found
