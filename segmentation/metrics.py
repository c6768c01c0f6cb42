"""Scores of segmentation, and the summary of a results file.

Source: arthurdouillard/CVPR2021_PLOP@4b4a060 metrics/stream_metrics.py, average_csv.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.metrics.segmentation import SegmentationScores
from common.training.errors import UserError

__all__ = ["ResultsSummary", "average_rows", "read_rows", "results_row", "summary_text"]

NOT_YET, ABSENT = "x", "X"
"""Marks of a results file: class of a later step; class that does not occur in the test set."""


def results_row(step: int, scores: SegmentationScores, classes: int) -> str:
    """One line of a results file: step, IoU of every class as a fraction, mean IoU.

    Args:
        step: number of the step.
        scores: of the classes seen so far.
        classes: of the whole data set.
    """
    of_classes = [ABSENT if iou is None else repr(iou) for iou in scores.class_iou]
    later = [NOT_YET] * (classes - len(of_classes))
    return ",".join([str(step), *of_classes, *later, repr(scores.mean_iou)])


@dataclass(frozen=True)
class ResultsSummary:
    """What the papers call old / new / all / avg, in percent with two decimals.

    Attributes:
        last_step: number of the last row.
        final: mean IoU after it ("all").
        average: mean over the rows of the mean IoU ("avg").
        first: mean IoU of the classes of step 0, background included ("old"); all classes of a domain protocol.
        last: mean IoU of the other classes ("new"); 0 in a domain protocol.
    """

    last_step: int
    final: float
    average: float
    first: float
    last: float


def average_rows(rows: Sequence[str]) -> ResultsSummary:
    """Summary of a results file.

    Absent classes count in the divisor but not in the sum, as in the original; with a single row `first` and `last`
    are 0 there.

    Args:
        rows: lines of the file, in the order of the steps.

    Raises:
        UserError: if there is no row or one cannot be read.
    """
    try:
        table = [row.strip().split(",") for row in rows]
        means = [float(row[-1]) for row in table]
        last_row, border = table[-1], _first_later_class(table[0])
        first = last = 0.0
        if len(table) > 1:
            first, last = _mean(last_row[1:border]), _mean(last_row[border:-1])
        step = int(last_row[0])
    except (IndexError, ValueError) as error:
        raise UserError(f"results file: expected step, IoU per class, mean IoU in each line ({error})") from error
    percent = [round(100 * value, 2) for value in (means[-1], sum(means) / len(means), first, last)]
    return ResultsSummary(step, *percent)


def _first_later_class(row: Sequence[str]) -> int:
    """Column of the first class of a later step; the mean's column where there is none."""
    return row.index(NOT_YET) if NOT_YET in row else len(row) - 1


def _mean(values: Sequence[str]) -> float:
    numbers = [float(value) for value in values if value not in (NOT_YET, ABSENT)]
    return sum(numbers) / len(values) if values else 0.0


def summary_text(summary: ResultsSummary) -> str:
    """The lines that the original prints."""
    return (
        f"Last Step: {summary.last_step}\nFinal Mean IoU {summary.final}\nAverage Mean IoU {summary.average}\n"
        f"Mean IoU first {summary.first}\nMean IoU last {summary.last}"
    )


def read_rows(path: Path) -> list[str]:
    """Lines of a results file.

    Raises:
        UserError: if it is missing.
    """
    if not path.is_file():
        raise UserError(f"results file {path} not found; run the steps first")
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
