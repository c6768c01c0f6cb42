"""Hypermodel, precision and regulariser against values worked out by hand and against the literal formulas."""

from __future__ import annotations

import math

import pytest
import torch

from common.continual.hypermodel import GCN, bottleneck_gcn, normalised_adjacency, residual_gcn
from common.continual.regulariser import (
    class_affinity,
    negative_log_determinant,
    precision_matrices,
    prototypes_of,
    quadratic_regulariser,
)

pytestmark = pytest.mark.unit


def test_adjacency_of_two_unrelated_classes_is_the_identity():
    torch.testing.assert_close(normalised_adjacency(torch.eye(2)), torch.eye(2))


def test_adjacency_by_hand():
    affinity = torch.tensor([[1.0, 0.5], [0.5, 1.0]])  # with loops: 2 on the diagonal, degrees 2.5
    torch.testing.assert_close(normalised_adjacency(affinity), torch.tensor([[0.8, 0.2], [0.2, 0.8]]))


@pytest.mark.parametrize("column", [-3.0, -2.0])  # degree negative; degree exactly zero
def test_a_node_without_positive_degree_is_cut_off(column):
    affinity = torch.tensor([[1.0, column], [column, 1.0]])
    assert torch.equal(normalised_adjacency(affinity), torch.zeros(2, 2))


def test_hypermodel_sizes_of_the_two_settings():
    assert sum(p.numel() for p in bottleneck_gcn(512).parameters()) == 18_528
    assert sum(p.numel() for p in residual_gcn(512).parameters()) == 525_312


def test_the_residual_form_adds_the_prototypes():
    hypermodel = GCN(4, 4, 4, residual=True)
    torch.nn.init.zeros_(hypermodel.gcn_layer2.linear.weight)
    torch.nn.init.zeros_(hypermodel.gcn_layer2.linear.bias)
    prototypes = torch.randn(3, 4)
    assert torch.equal(hypermodel(torch.eye(3), prototypes), prototypes)
    with pytest.raises(ValueError, match="residual"):
        GCN(4, 4, 5, residual=True)


def test_reset_draws_new_weights_from_the_global_generator():
    hypermodel = bottleneck_gcn(32)
    torch.manual_seed(1)
    hypermodel.reset()
    first = hypermodel.gcn_layer2.linear.weight.clone()
    torch.manual_seed(1)
    hypermodel.reset()
    assert torch.equal(hypermodel.gcn_layer2.linear.weight, first)


def test_prototypes_have_unit_rows_and_no_gradient():
    rows = torch.randn(3, 5, requires_grad=True)
    prototypes = prototypes_of(rows)
    torch.testing.assert_close(prototypes.norm(dim=1), torch.ones(3))
    assert not prototypes.requires_grad
    torch.testing.assert_close(class_affinity(prototypes).diagonal(), torch.ones(3))


def test_precision_has_a_unit_diagonal_only_with_unit_rows():
    hypermodel, prototypes = bottleneck_gcn(32), prototypes_of(torch.randn(2, 4, 32))
    adjacency = normalised_adjacency(class_affinity(prototypes))
    unit = precision_matrices(hypermodel, adjacency, prototypes)
    torch.testing.assert_close(unit.diagonal(dim1=1, dim2=2), torch.ones(2, 4))
    free = precision_matrices(hypermodel, adjacency, prototypes, normalise_rows=False)
    assert not torch.allclose(free.diagonal(dim1=1, dim2=2), torch.ones(2, 4))
    assert torch.linalg.eigvalsh(free).min() > -1e-6


def test_log_determinant_of_twenty_alike_classes_is_finite():
    nearly_alike = torch.ones(20, 20)  # its determinant, 20 * 1e-57, is zero in float32
    value = negative_log_determinant(nearly_alike, 1e-3)
    assert float(value) == pytest.approx(-(math.log(20.001) + 19 * math.log(1e-3)), rel=1e-4)


def test_regulariser_by_hand():
    gw, gw_star = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 0.0]])
    precision = torch.tensor([[[1.0, 0.5], [0.5, 1.0]]])
    log_determinant = math.log(1.1**2 - 0.25)
    plain = quadratic_regulariser(gw, gw_star, precision, 0.1)
    assert float(plain) == pytest.approx(1 + 2 + 4 - log_determinant, rel=1e-5)  # 1 + 2 * 0.5 * 2 + 4
    scaled = quadratic_regulariser(gw, gw_star, precision, 0.1, quad_scale=9.0)
    assert float(scaled) == pytest.approx(9 * 7 - log_determinant, rel=1e-5)
    with_eps = quadratic_regulariser(gw, gw_star, precision, 0.1, eps_in_quadratic=True)
    assert float(with_eps) == pytest.approx(7 + 0.1 * 5 - log_determinant, rel=1e-5)


def test_tasks_add_up():
    gw, gw_star, factor = torch.randn(3, 4), torch.randn(3, 4), torch.randn(3, 4, 4)
    precision = factor @ factor.mT
    together = quadratic_regulariser(gw, gw_star, precision, 0.1)
    one_by_one = sum(
        quadratic_regulariser(gw[t : t + 1], gw_star[t : t + 1], precision[t : t + 1], 0.1) for t in range(3)
    )
    torch.testing.assert_close(together, one_by_one)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="expected"):
        quadratic_regulariser(torch.randn(2, 3), torch.randn(2, 3), torch.randn(2, 4, 4), 0.1)


def test_the_released_log_determinant_has_no_usable_gradient_where_ours_has():
    """log(1 / det) of ten nearly alike classes (D22): det = 1e-26, and the gradient overflows in float32."""
    released = torch.ones(10, 10, requires_grad=True)
    torch.log(1 / torch.det(released + 1e-3 * torch.eye(10))).backward()
    assert not torch.isfinite(released.grad).all()
    ours = torch.ones(10, 10, requires_grad=True)
    negative_log_determinant(ours, 1e-3).backward()
    exact = -torch.linalg.inv(torch.ones(10, 10, dtype=torch.float64) + 1e-3 * torch.eye(10, dtype=torch.float64))
    torch.testing.assert_close(ours.grad.double(), exact, rtol=1e-2, atol=1.0)
