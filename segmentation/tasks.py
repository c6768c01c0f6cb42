"""Protocols: which classes (or cities, sequences) belong to which step.

Source: arthurdouillard/CVPR2021_PLOP@4b4a060 tasks.py; `cityscape` from zhangchbin/RCIL@b9aad58 tasks.py. CamVid is
added here. In class-incremental protocols the numbers are classes, in domain protocols they are cities or sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from common.training.errors import UserError

CLASSES = {
    "voc": 21,
    "ade": 151,
    "cityscapes_domain": 19,
    "cityscape": 20,
    "camvid": 12,
    "camvid_domain": 11,
}
"""Output classes of each data set. cityscape: RCIL's code says 19, its labels run from 0 to 19 (D15)."""

DOMAIN_DATASETS = ("cityscapes_domain", "camvid_domain")
"""Data sets whose steps are domains: all classes in every step."""

CITIES = (
    "aachen", "bremen", "darmstadt", "erfurt", "hanover", "krefeld", "strasbourg", "tubingen", "weimar", "bochum",
    "cologne", "dusseldorf", "hamburg", "jena", "monchengladbach", "stuttgart", "ulm", "zurich", "frankfurt", "lindau",
    "munster",
)  # fmt: skip
"""Cities of Cityscapes by number; the last three are its validation cities."""

SEQUENCES = ("0001TP", "0006R0", "0016E5", "Seq05VD")
"""Sequences of CamVid by number."""

_VOC_ORDERS = {
    "b": (12, 9, 20, 7, 15, 8, 14, 16, 5, 19, 4, 1, 13, 2, 11, 17, 3, 6, 18, 10),
    "c": (13, 19, 15, 17, 9, 8, 5, 20, 4, 3, 10, 11, 18, 16, 7, 12, 14, 6, 1, 2),
    "d": (15, 3, 2, 12, 14, 18, 20, 16, 11, 1, 19, 8, 10, 7, 17, 6, 5, 13, 9, 4),
    "e": (7, 5, 3, 9, 13, 12, 14, 19, 10, 2, 1, 4, 16, 8, 17, 15, 18, 6, 11, 20),
    "f": (7, 13, 5, 11, 9, 2, 15, 12, 14, 3, 20, 1, 16, 4, 18, 8, 6, 10, 19, 17),
    "g": (7, 5, 9, 1, 15, 18, 14, 3, 20, 10, 4, 19, 11, 17, 16, 12, 8, 6, 2, 13),
    "h": (12, 9, 19, 6, 4, 10, 5, 18, 14, 15, 16, 3, 8, 7, 11, 13, 2, 20, 17, 1),
    "i": (13, 10, 15, 8, 7, 19, 4, 3, 16, 12, 14, 11, 5, 20, 6, 2, 18, 9, 17, 1),
    "j": (1, 14, 9, 5, 2, 15, 8, 20, 6, 16, 18, 7, 11, 10, 19, 3, 4, 17, 12, 13),
    "k": (16, 13, 1, 11, 12, 18, 6, 14, 5, 3, 7, 9, 20, 19, 15, 4, 2, 10, 8, 17),
    "l": (10, 7, 6, 19, 16, 8, 17, 1, 14, 4, 9, 3, 15, 11, 12, 2, 18, 20, 13, 5),
    "m": (18, 4, 14, 17, 12, 10, 7, 3, 9, 1, 8, 15, 6, 13, 2, 5, 11, 20, 16, 19),
    "n": (5, 4, 13, 18, 14, 10, 19, 15, 7, 9, 3, 2, 8, 16, 20, 1, 12, 11, 6, 17),
    "o": (9, 12, 13, 18, 7, 1, 15, 17, 10, 8, 4, 5, 20, 16, 6, 14, 19, 11, 2, 3),
    "p": (9, 12, 13, 18, 2, 11, 15, 17, 10, 8, 4, 5, 20, 16, 6, 14, 19, 1, 7, 3),
    "q": (3, 14, 13, 18, 2, 11, 15, 17, 10, 8, 4, 5, 20, 16, 6, 12, 19, 1, 7, 9),
    "r": (3, 14, 13, 1, 2, 11, 15, 17, 7, 8, 4, 5, 9, 16, 19, 12, 6, 18, 10, 20),
    "s": (3, 14, 6, 1, 2, 11, 12, 17, 7, 20, 4, 5, 9, 16, 19, 15, 13, 18, 10, 8),
    "t": (3, 15, 13, 1, 2, 11, 18, 17, 7, 20, 8, 5, 9, 16, 19, 14, 6, 12, 10, 4),
    "u": (3, 15, 13, 14, 6, 11, 18, 17, 7, 20, 8, 4, 9, 16, 10, 1, 2, 12, 19, 5),
    "v": (1, 2, 12, 14, 6, 19, 18, 17, 5, 20, 8, 4, 9, 16, 10, 3, 15, 13, 11, 7),
    "w": (1, 2, 12, 14, 13, 19, 18, 7, 11, 20, 8, 4, 9, 16, 10, 3, 15, 6, 5, 17),
}
"""Random orders of VOC's classes: 15 of step 0 (after the background), then five steps of one class."""


def _sizes(*sizes: int, order: Sequence[int] | None = None) -> list[list[int]]:
    """Steps of the given sizes, numbered upwards or in the given order."""
    order = range(sum(sizes)) if order is None else order
    ends = [sum(sizes[: position + 1]) for position in range(len(sizes))]
    return [list(order[end - size : end]) for size, end in zip(sizes, ends, strict=True)]


TASKS: dict[str, dict[str, list[list[int]]]] = {
    "voc": {
        "offline": _sizes(21),
        "19-1": _sizes(20, 1),
        "15-5": _sizes(16, 5),
        "15-5s": _sizes(16, 1, 1, 1, 1, 1),
        "10-1": _sizes(11, *[1] * 10),
        **{f"15-5s_{name}": _sizes(16, *[1] * 5, order=(0, *order)) for name, order in _VOC_ORDERS.items()},
    },
    "ade": {
        "offline": _sizes(151),
        "100-50": _sizes(101, 50),
        "100-10": _sizes(101, *[10] * 5),
        "100-5": _sizes(101, *[5] * 10),
        "50": _sizes(51, 50, 50),
    },
    "cityscapes_domain": {
        "offline": _sizes(21),
        "11-5": _sizes(11, 5, 5),
        "11-1": _sizes(11, *[1] * 10),
        "1-1": _sizes(*[1] * 21),
    },
    "cityscape": {"offline": _sizes(20), "10-9": _sizes(11, 9)},
    "camvid": {
        "offline": _sizes(12),
        "5-3": _sizes(6, 3, 3),
        "7-4": _sizes(8, 4),
        "7-2": _sizes(8, 2, 2),
        "7-1": _sizes(8, 1, 1, 1, 1),
    },
    "camvid_domain": {"offline": _sizes(4), "2-1": _sizes(2, 1, 1), "1-1": _sizes(1, 1, 1, 1)},
}
"""Data set -> protocol -> steps. The papers' "15-1" of VOC is 15-5s (D10)."""


@dataclass(frozen=True)
class Task:
    """One protocol.

    Attributes:
        dataset, name: as on the command line.
        steps: labels of every step.
    """

    dataset: str
    name: str
    steps: list[list[int]]

    @property
    def is_domain(self) -> bool:
        """Whether steps are domains with all classes each."""
        return self.dataset in DOMAIN_DATASETS

    def labels(self, step: int) -> list[int]:
        """Classes (domains) that are new in a step."""
        return list(self.steps[step])

    def labels_old(self, step: int) -> list[int]:
        """Classes (domains) of all earlier steps, in their order."""
        return [label for earlier in self.steps[:step] for label in earlier]

    def sizes(self, step: int) -> list[int]:
        """Sizes of the steps up to this one; in domain protocols their numbers of domains."""
        return [len(labels) for labels in self.steps[: step + 1]]

    def classes_per_step(self, step: int) -> list[int]:
        """Outputs of the network's classifiers at this step: one classifier for all domains, or one per step."""
        return [CLASSES[self.dataset]] if self.is_domain else self.sizes(step)

    def seen_classes(self, step: int) -> int:
        """Classes the network distinguishes after this step."""
        return sum(self.classes_per_step(step))

    def index_folder(self, overlap: bool) -> str:
        """Where the original keeps the lists of images of this protocol, relative to its code."""
        return f"data/{self.dataset}/{self.name}" + ("-ov" if overlap else "")


def find_task(dataset: str, name: str) -> Task:
    """A protocol by its upstream name.

    Raises:
        UserError: for an unknown name, listing those of the data set.
    """
    tasks = TASKS[dataset]
    if name not in tasks:
        raise UserError(f"--task {name}: {dataset} has {', '.join(tasks)}")
    return Task(dataset, name, tasks[name])
