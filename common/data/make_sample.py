"""Cut the embedded sample out of the CIFAR-100 archive.

    python -m common.data.make_sample --archive cifar100.zip

Takes every fifth fine label (0, 5, ..., 95: no choice by looks) and the first images of each class in the order of the
original files, writes lossless strips, and compares every pixel with the archive.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from common.data.embedded import SAMPLE_FOLDER, open_sample
from common.data.files import open_archive, write_bytes
from common.data.strips import decode_strip, encode_strip
from common.training.errors import UserError, command_line

EVERY = 5
TRAIN_PER_CLASS = 250
TEST_PER_CLASS = 50
MAX_BYTES = 9_990_000  # the whole folder stays below ten million

README = """# Embedded sample

{classes} classes of CIFAR-100 (A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009): every
fifth fine label (0, 5, ..., 95; no choice by looks), the first {train} training images and the first {test} test images
of each, in the order they have inside their class in the original files. Pixels are unchanged.

- `classes.txt`: class names in label order (label in the sample = line number from 0 = original label / {every}).
- `train/<class>.webp`, `test/<class>.webp`: lossless WebP strips, 32 pixels wide, images stacked top to bottom.

No licence is stated with the images of CIFAR-100; they are here for research and for testing this code.

Cut by `python -m common.data.make_sample --archive cifar100.zip`. Content fingerprints (SHA-256, as computed by
`ImageSet.fingerprint()`):

    train {train_sha256}
    test  {test_sha256}
"""


def make_sample(archive: Path, folder: Path = SAMPLE_FOLDER) -> dict[str, str]:
    """Write the sample and return split -> content fingerprint.

    Raises:
        UserError: if the archive is another one, or the result is too big or differs from the archive.
    """
    with open_archive(archive) as source:
        names_file = source.find("cifar100/classes.txt")
        if names_file is None:
            raise UserError(f"{archive} is not the CIFAR-100 archive: no cifar100/classes.txt, but {source.examples()}")
        classes = source.read(names_file).decode().split()[::EVERY]
        wanted = {
            (split, name): decode_strip(source.read(f"cifar100/{split}/{name}.webp"), f"{split}/{name}.webp")[:count]
            for split, count in (("train", TRAIN_PER_CLASS), ("test", TEST_PER_CLASS))
            for name in classes
        }
    strips = {}
    for (split, name), images in wanted.items():
        strips[split, name] = encode_strip(images)
        if not np.array_equal(decode_strip(strips[split, name], f"{split}/{name}.webp"), images):
            raise UserError(f"the strip of {split}/{name} is not lossless; use another version of Pillow")
    size = sum(len(strip) for strip in strips.values())
    if size > MAX_BYTES:
        raise UserError(f"the sample takes {size} bytes, at most {MAX_BYTES} are allowed; take fewer images per class")
    for (split, name), strip in strips.items():
        write_bytes(folder / split / f"{name}.webp", strip)
    write_bytes(folder / "classes.txt", "".join(f"{name}\n" for name in classes).encode())
    fingerprints = {split: open_sample(split, folder).fingerprint() for split in ("train", "test")}
    readme = README.format(
        classes=len(classes),
        every=EVERY,
        train=TRAIN_PER_CLASS,
        test=TEST_PER_CLASS,
        train_sha256=fingerprints["train"],
        test_sha256=fingerprints["test"],
    )
    write_bytes(folder / "README.md", readme.encode())
    return fingerprints


def main(argv: list[str] | None = None) -> None:
    """Command line of this script."""
    parser = argparse.ArgumentParser(description="Cut the embedded sample out of the CIFAR-100 archive.")
    parser.add_argument("--archive", type=Path, required=True, help="CIFAR-100 as lossless strips (cifar100.zip)")
    parser.add_argument("--folder", type=Path, default=SAMPLE_FOLDER, help="where to write (default: into the package)")
    arguments = parser.parse_args(argv)
    for split, fingerprint in make_sample(arguments.archive, arguments.folder).items():
        print(split, fingerprint)


if __name__ == "__main__":
    command_line(main)()
