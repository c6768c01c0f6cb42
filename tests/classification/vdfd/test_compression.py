"""Low-rank factors against torch's own routine, and the functional against its definition."""

from __future__ import annotations

import pytest
import torch

from common.continual.compression import draw_start, functional, low_rank_factors, row_sums

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(("rows", "classes"), [(30, 6), (6, 6), (4, 9)])
@pytest.mark.parametrize("rank", [1, 3])
def test_factors_equal_torchs_randomised_svd_from_the_same_start(rows, classes, rank):
    matrix = torch.randn(rows, classes)
    torch.manual_seed(5)
    left, singular, right = torch.svd_lowrank(matrix, q=rank, niter=2)
    torch.manual_seed(5)
    factors = low_rank_factors(matrix, rank, draw_start(matrix, rank))
    torch.testing.assert_close(factors.product(), left @ torch.diag(singular) @ right.T, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(factors.singular, singular, rtol=1e-4, atol=1e-5)


def test_full_rank_factors_give_the_matrix_back():
    matrix = torch.randn(12, 5, dtype=torch.float64)
    factors = low_rank_factors(matrix, 5, draw_start(matrix, 5))
    torch.testing.assert_close(factors.product(), matrix)


def test_stored_numbers_are_rows_plus_rank_plus_classes():
    matrix = torch.randn(64, 10)
    assert low_rank_factors(matrix, 1, draw_start(matrix, 1)).count() == 64 + 1 + 10


@pytest.mark.parametrize("rank", [0, 5])
def test_a_rank_that_does_not_fit_is_refused(rank):
    with pytest.raises(ValueError, match=f"rank-{rank}"):
        low_rank_factors(torch.randn(8, 4), rank, torch.randn(4, max(rank, 1)))


def test_row_sums_by_hand():
    convolution = torch.arange(8.0).reshape(2, 1, 2, 2)
    vector = torch.tensor([5.0, -1.0, 2.0])
    assert row_sums([convolution, vector]).tolist() == [6.0, 22.0, 5.0, -1.0, 2.0]


def test_functional_is_the_spread_gradient_times_the_weights():
    weight, matrices = torch.randn(3, 2, 5, 5), torch.randn(4, 3, 6)
    by_definition = torch.stack(
        [
            torch.einsum("rc,riuv->c", matrix, weight) for matrix in matrices
        ]  # every entry of a row meets the same number
    )
    basis = matrices.permute(1, 0, 2).contiguous()
    torch.testing.assert_close(functional(row_sums([weight]), basis), by_definition, rtol=1e-4, atol=1e-4)
