"""Which images a step uses.

Source: arthurdouillard/CVPR2021_PLOP@4b4a060 dataset/utils.py `filter_images`, dataset/cityscapes_domain.py;
zhangchbin/RCIL@b9aad58 dataset/cityscape.py. The rules work on a table of which values occur in which mask, so that
no image is decoded.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segmentation.data.label_maps import IGNORE

CITYSCAPE_ORDER = (17, 16, 15, 18, 4, 13, 5, 7, 9, 1, 2, 3, 6, 8, 10, 11, 12, 14, 19)
"""Order in which RCIL's class-incremental Cityscapes hands its images out to the classes."""
CITYSCAPE_SHARE = 150
"""Most images of one of them; the last one takes what is left."""
SPLIT_SEED = 1
"""Seed of the shuffle before images are split into 80 % and 20 %."""
TRAINING_SHARE = 0.8


def presence_of(masks: Sequence[np.ndarray]) -> np.ndarray:
    """(N, 256) bool: which values occur in which mask (uint8 arrays)."""
    presence = np.zeros((len(masks), 256), dtype=bool)
    for row, mask in zip(presence, masks, strict=True):
        row[:] = np.bincount(np.asarray(mask).ravel(), minlength=256) > 0
    return presence


def filter_images(
    presence: np.ndarray, labels: Sequence[int], labels_old: Sequence[int] = (), overlap: bool = True
) -> np.ndarray:
    """Images that show a class of the step.

    Args:
        presence: (N, 256) which values occur in which mask.
        labels: classes of the step; 0 does not count.
        labels_old: classes of earlier steps.
        overlap: False also demands that an image shows no class of a later step.

    Returns:
        Their numbers, int64, in ascending order.
    """
    wanted = [label for label in labels if label != 0]
    keep = presence[:, wanted].any(axis=1)
    if not overlap:
        allowed = {*wanted, *labels_old, 0, IGNORE}
        forbidden = [value for value in range(256) if value not in allowed]
        keep &= ~presence[:, forbidden].any(axis=1)
    return np.flatnonzero(keep).astype(np.int64)


def filter_domains(domain_of_image: np.ndarray, domains: Sequence[int]) -> np.ndarray:
    """Numbers of the images of the given domains, int64, in ascending order."""
    return np.flatnonzero(np.isin(domain_of_image, list(domains))).astype(np.int64)


def shuffled_split(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shuffle with a fixed seed and part into 80 % and 20 %, as the domain protocols and `--test_on_val` do.

    Returns:
        Training part, other part.
    """
    shuffled = indices.copy()
    np.random.RandomState(SPLIT_SEED).shuffle(shuffled)
    border = int(TRAINING_SHARE * len(shuffled))
    return shuffled[:border], shuffled[border:]


def clean_split(domain_of_image: np.ndarray, domains: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The same for each domain by itself, so that an image is on the same side in every step (D11).

    Returns:
        Training part, other part, domain after domain.
    """
    parts = [shuffled_split(filter_domains(domain_of_image, [domain])) for domain in domains]
    empty = np.empty(0, dtype=np.int64)
    return np.concatenate([empty, *(part[0] for part in parts)]), np.concatenate([empty, *(p[1] for p in parts)])


def hand_out(presence: np.ndarray) -> np.ndarray:
    """Give each training image of the class-incremental Cityscapes to one class (D15).

    Args:
        presence: (N, 256) of the labels 1 ... 19.

    Returns:
        (N,) int64 class of each image; 0 where no class took it.
    """
    owner = np.zeros(len(presence), dtype=np.int64)
    for label in CITYSCAPE_ORDER:
        free = np.flatnonzero((owner == 0) & presence[:, label])
        owner[free if label == CITYSCAPE_ORDER[-1] else free[:CITYSCAPE_SHARE]] = label
    return owner
