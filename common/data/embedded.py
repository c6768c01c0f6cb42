"""The sample that comes with the package: 20 classes of CIFAR-100, for smoke runs and tests without any download."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from common.data.cifar import cifar_set
from common.data.images import SUB_SAMPLED, ImageSet
from common.data.strips import decode_strip
from common.training.errors import UserError

SAMPLE_FOLDER = Path(__file__).parent / "sample"


def open_sample(split: str, folder: Path = SAMPLE_FOLDER) -> ImageSet:
    """The embedded sample: real 32x32 RGB images, class by class.

    Raises:
        UserError: if a file of it is missing or damaged.
    """
    try:
        classes = (folder / "classes.txt").read_text().split()
        strips = [(folder / split / f"{name}.webp").read_bytes() for name in classes]
    except OSError as error:
        raise UserError(f"the embedded sample is incomplete ({error}); install the package again") from error
    named = zip(classes, strips, strict=True)
    images = [decode_strip(strip, f"{split}/{name}.webp of the sample") for name, strip in named]
    labels = np.repeat(np.arange(len(classes)), [len(of_class) for of_class in images])
    complete = 500 if split == "train" else 100
    note = f"{len(classes)} of 100 classes, {len(images[0])} of {complete} images per class of CIFAR-100"
    return cifar_set("Sample", split, np.concatenate(images), labels, classes, copy=SUB_SAMPLED, note=note)
