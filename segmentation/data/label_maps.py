"""What a raw mask value means in a step, as a table of 256 entries.

Source: arthurdouillard/CVPR2021_PLOP@4b4a060 dataset/{voc,ade,cityscapes_domain}.py, zhangchbin/RCIL@b9aad58
dataset/cityscape.py. Speed: the originals call a function for every pixel; here it is one indexed read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from common.training.errors import UserError

IGNORE = 255
"""Label of pixels that count nowhere."""

CITYSCAPES_TRAIN_IDS = {
    7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12, 26: 13, 27: 14, 28: 15,
    31: 16, 32: 17, 33: 18,
}  # fmt: skip
"""Cityscapes' label ids -> the 19 classes of its benchmark."""

CAMVID_IGNORED = 11
"""CamVid's value for unlabelled pixels."""


def table(entries: Mapping[int, int], otherwise: int | None = None) -> np.ndarray:
    """(256,) uint8: the given entries; all other values become `otherwise`, or stay where it is None."""
    values = np.arange(256, dtype=np.uint8) if otherwise is None else np.full(256, otherwise, dtype=np.uint8)
    for raw, label in entries.items():
        values[raw] = label
    return values


def positions(labels_old: Sequence[int], labels: Sequence[int]) -> dict[int, int]:
    """Class -> output of the network: classes are numbered in the order in which they come."""
    return {label: place for place, label in enumerate([*labels_old, *labels])}


def voc_training_map(labels: Sequence[int], labels_old: Sequence[int], masking: str) -> np.ndarray:
    """Label map of a training or validation image of VOC.

    Args:
        labels: classes of the step; class 0 may be among them.
        labels_old: classes of all earlier steps.
        masking: `--data_masking`: current shows the step's classes, current+old the old ones too (all others become
            background), new leaves everything but background and the step's classes out.

    Raises:
        UserError: for `all`, which the original refuses too.
    """
    places = positions(labels_old, labels)
    new = {0: 0} | {label: places[label] for label in labels}
    if masking == "current":
        return table(new | {IGNORE: IGNORE}, 0)
    if masking == "current+old":
        return table({0: 0} | places | {IGNORE: IGNORE}, 0)
    if masking == "new":
        return table(new, IGNORE)
    raise UserError(f"--data_masking {masking}: expected current, current+old or new")


def voc_test_map(labels: Sequence[int], labels_old: Sequence[int]) -> np.ndarray:
    """Label map of a test image of VOC: all classes seen so far; others become background."""
    return table({0: 0} | positions(labels_old, labels) | {IGNORE: IGNORE}, 0)


def ade_map(labels: Sequence[int], labels_old: Sequence[int], ignore_unseen: bool = False) -> np.ndarray:
    """Label map of an image of ADE.

    Only the given labels are shown; the rest, void (0) and 255 included, becomes class 0 (D12).

    Args:
        labels: classes that are shown: those of the step in training, all seen ones in a test (class 0 is skipped).
        labels_old: classes numbered before them.
        ignore_unseen: `--ignore_test_bg`: the rest becomes 255.
    """
    places = positions(labels_old, labels)
    return table({label: places[label] for label in labels if label != 0}, IGNORE if ignore_unseen else 0)


def cityscapes_domain_map() -> np.ndarray:
    """Label map of Cityscapes in all steps of a domain protocol."""
    return table(CITYSCAPES_TRAIN_IDS, IGNORE)


def cityscapes_shifted_map() -> np.ndarray:
    """Cityscapes' label ids -> 1 ... 19, so that 0 is free for unseen classes (class-incremental)."""
    return table({raw: label + 1 for raw, label in CITYSCAPES_TRAIN_IDS.items()}, IGNORE)


def cityscape_map(labels: Sequence[int], labels_old: Sequence[int]) -> np.ndarray:
    """Label map of the class-incremental Cityscapes, after `cityscapes_shifted_map`.

    Unseen classes become 0; old classes keep their labels, in training too (unlike VOC).
    """
    return table(positions(labels_old, labels) | {0: 0, IGNORE: IGNORE}, 0)


def camvid_domain_map() -> np.ndarray:
    """Label map of CamVid in all steps of a domain protocol: 11 classes, unlabelled pixels ignored."""
    return table({label: label for label in range(CAMVID_IGNORED)}, IGNORE)


def camvid_shifted_map() -> np.ndarray:
    """CamVid's values -> 1 ... 11, so that 0 is free for unseen classes (class-incremental)."""
    return table({label: label + 1 for label in range(CAMVID_IGNORED)}, IGNORE)
