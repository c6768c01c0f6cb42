"""The accuracy matrix, worked out by hand."""

from __future__ import annotations

import io

import pytest
import torch

from common.metrics.continual import AccuracyMatrix

pytestmark = pytest.mark.unit

ROWS = [
    [70.0],
    [80.0, 90.0],
    [60.0, 85.0, 50.0],
]


def test_average_accuracy() -> None:
    assert AccuracyMatrix(ROWS).average_accuracy() == pytest.approx([70, 85, 65])


def test_backward_transfer_compares_with_the_day_of_learning() -> None:
    # after task 2: 80 - 70; after task 3: the mean of 60 - 70 and 85 - 90
    assert AccuracyMatrix(ROWS).backward_transfer() == pytest.approx([0, 10, -7.5])


def test_forgetting_compares_with_the_best_day() -> None:
    # after task 2: 70 - 80 (a gain); after task 3: the mean of 80 - 60 and 90 - 85
    assert AccuracyMatrix(ROWS).forgetting() == pytest.approx([0, -10, 12.5])


def test_weighted_average_is_the_accuracy_over_all_samples() -> None:
    # 10, 30 and 60 images: (800 + 2700) / 40 and (600 + 2550 + 3000) / 100
    assert AccuracyMatrix(ROWS).weighted_average([10, 30, 60]) == pytest.approx([70, 87.5, 61.5])
    assert AccuracyMatrix(ROWS).weighted_average([5, 5, 5]) == pytest.approx([70, 85, 65])
    assert AccuracyMatrix(ROWS[:2]).weighted_average([10, 30, 60]) == pytest.approx([70, 87.5])


def test_too_few_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        AccuracyMatrix(ROWS).weighted_average([10, 30])


@pytest.mark.parametrize("row", [[], [1.0], [1.0, 2.0, 3.0]])
def test_a_row_of_the_wrong_length_is_refused(row: list[float]) -> None:
    matrix = AccuracyMatrix(ROWS[:1])
    with pytest.raises(ValueError, match="after task 2"):
        matrix.add(row)
    assert matrix.rows == ROWS[:1]
    with pytest.raises(ValueError, match="after task 2"):
        AccuracyMatrix([ROWS[0], row])


def test_an_empty_matrix_has_empty_histories() -> None:
    matrix = AccuracyMatrix()
    for history in (matrix.average_accuracy(), matrix.backward_transfer(), matrix.forgetting()):
        assert history == []


def test_values_become_plain_numbers() -> None:
    matrix = AccuracyMatrix()
    matrix.add([torch.tensor(70.0)])
    assert type(matrix.rows[0][0]) is float


def test_a_matrix_goes_on_from_its_state() -> None:
    matrix = AccuracyMatrix(ROWS[:2])
    file = io.BytesIO()
    torch.save(matrix.state_dict(), file)
    matrix.add(ROWS[2])
    file.seek(0)
    again = AccuracyMatrix()
    again.load_state_dict(torch.load(file, weights_only=True))
    assert again.rows == ROWS[:2]
    again.add(ROWS[2])
    assert again.forgetting() == matrix.forgetting()
