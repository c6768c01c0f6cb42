"""Import of data sets that are folders of image files, from an archive or another folder."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from pathlib import Path, PurePosixPath

from torchvision.datasets.folder import IMG_EXTENSIONS

from common.data.files import Archive, write_bytes
from common.data.folders import FOLDERS, class_folders, read_annotations
from common.training.errors import UserError

SPLIT_FOLDERS = {"train": "train", "val": "val", "test": "val"}
"""Folder in an archive -> folder here; test/ is taken only where it has class folders and there is no val/."""
CLASS_LIST = "wnids.txt"
"""TinyImageNet's list of its classes, beside train/; some code numbers the classes by its lines."""


def import_folders(name: str, archive: Archive, root: Path) -> str:
    """Lay an image-folder set out as `<root>/<folder>/{train,val}/<class>/<file>`; returns a summary.

    Class folders may hold their images directly or in a folder `images`. A flat validation folder of TinyImageNet's
    form (`val/images/` with `val_annotations.txt`) is regrouped. Images are copied byte for byte, and so is the list
    `wnids.txt` where the archive has one; a copy that was made without it gets it.

    Raises:
        UserError: if train/ and val/ class folders are not both there or differ, or other data stand in the place.
    """
    base = _base(name, archive)
    plan = _plan(name, archive, base)
    listed = archive.read(base + CLASS_LIST) if base + CLASS_LIST in archive.names else None
    target = root / FOLDERS[name].folder
    counts = Counter(path.parts[0] for path in plan)
    classes = len({path.parts[1] for path in plan})
    images = f"{counts['train']} training and {counts['val']} test images"
    amount = f"{classes} of {FOLDERS[name].num_classes} classes, {images}"
    if class_folders(target):
        if _holds_the_same(target, plan, archive, listed):
            if listed is None or (target / CLASS_LIST).is_file():
                return f"{name}: {target} is already there with these images ({amount})."
            write_bytes(target / CLASS_LIST, listed)
            return f"{name}: {target} is already there with these images ({amount}); {CLASS_LIST} added."
        raise UserError(
            f"{target} holds other images or another list of classes already; move it away and prepare again"
        )
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".prepare-") as temporary:
        incoming = Path(temporary) / target.name
        for path, source in plan.items():
            (incoming / path).parent.mkdir(parents=True, exist_ok=True)
            (incoming / path).write_bytes(archive.read(source))
        if listed is not None:
            (incoming / CLASS_LIST).write_bytes(listed)
        os.sync()  # why: once for all of the many small files, before the folder appears under its name
        if target.is_dir() and not any(target.iterdir()):
            target.rmdir()
        incoming.rename(target)
    return f"{name}: {amount} in {target}."


def _plan(name: str, archive: Archive, base: str) -> dict[PurePosixPath, str]:
    """Path below the target -> image in the archive, in the order of the archive."""
    files = [file for file in archive.names if file.startswith(base) and file.lower().endswith(IMG_EXTENSIONS)]
    below = {file: PurePosixPath(file[len(base) :]).parts for file in files}
    has_val = any(parts[0] == "val" for parts in below.values())
    annotations = f"{base}val/val_annotations.txt"
    class_of = (
        read_annotations(archive.read(annotations).decode(errors="replace"), annotations)
        if annotations in archive.names
        else {}
    )
    plan: dict[PurePosixPath, str] = {}
    for file, parts in below.items():
        if parts[0] not in SPLIT_FOLDERS or (parts[0] == "test" and has_val) or len(parts) < 3:
            continue
        class_name, file_name = parts[1], "_".join(part for part in parts[2:] if part != "images")
        if parts[0] == "val" and class_name == "images" and class_of:
            if file_name not in class_of:
                raise UserError(f"{file} in {archive.path} is not in val_annotations.txt; get the archive again")
            class_name = class_of[file_name]
        plan[PurePosixPath(SPLIT_FOLDERS[parts[0]], class_name, file_name)] = file
    classes = {split: {path.parts[1] for path in plan if path.parts[0] == split} for split in ("train", "val")}
    if not classes["val"]:
        raise UserError(
            f"{archive.path} is not {name}: expected train/<class>/ and val/<class>/, found {archive.examples()}"
        )
    if classes["train"] != classes["val"]:
        odd = sorted(classes["train"] ^ classes["val"])
        raise UserError(f"{archive.path}: classes of train/ and val/ differ, e.g. {odd[0]}; labels would not agree")
    return plan


def _base(name: str, archive: Archive) -> str:
    """What stands before "train/" in the archive: the shallowest folder that has train/<class>/<image>."""
    bases = set()
    for file in archive.names:
        before, found, rest = f"/{file}".partition("/train/")
        if found and "/" in rest:
            bases.add(f"{before}/"[1:])
    if not bases:
        raise UserError(f"{archive.path} is not {name}: no train/<class>/ folders in it, found {archive.examples()}")
    return min(bases, key=lambda base: (base.count("/"), base))


def _holds_the_same(target: Path, plan: dict[PurePosixPath, str], archive: Archive, listed: bytes | None) -> bool:
    """Whether exactly these images with these bytes are there, and no other list of classes."""
    own_list = target / CLASS_LIST
    if listed is not None and own_list.is_file() and own_list.read_bytes() != listed:
        return False
    present = {
        PurePosixPath(file.relative_to(target).as_posix())
        for split in ("train", "val")
        for file in (target / split).rglob("*")
        if file.is_file()
    }
    return present == set(plan) and all(
        (target / path).read_bytes() == archive.read(source) for path, source in plan.items()
    )
