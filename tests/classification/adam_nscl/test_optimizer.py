"""Projected Adam: plain Adam without projections, by hand with one, and through a saved state."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from classification.adam_nscl.optimizer import ProjectedAdam

pytestmark = pytest.mark.unit


def parameters() -> tuple[nn.Parameter, nn.Parameter]:
    torch.manual_seed(0)
    return nn.Parameter(torch.randn(2, 3, 1, 1)), nn.Parameter(torch.randn(4))


def move(optimizer: torch.optim.Optimizer, weights: tuple[nn.Parameter, ...], steps: int, seed: int = 1) -> None:
    torch.manual_seed(seed)
    for _ in range(steps):
        for weight in weights:
            weight.grad = torch.randn_like(weight)
        optimizer.step()


def test_without_projections_it_is_adam():
    ours, theirs = parameters(), parameters()
    groups = [{"lr": 0.1, "weight_decay": 0.2}, {"lr": 0.01, "weight_decay": 0.0}]
    move(ProjectedAdam([{"params": [p], **g} for p, g in zip(ours, groups, strict=True)], {}), ours, 5)
    move(torch.optim.Adam([{"params": [p], **g} for p, g in zip(theirs, groups, strict=True)]), theirs, 5)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_first_step_by_hand():
    weight = nn.Parameter(torch.zeros(1, 2, 1, 1))
    projection = torch.tensor([[0.5, 0.25], [0.0, 1.0]])
    optimizer = ProjectedAdam([{"params": [weight], "lr": 0.1, "weight_decay": 0.0}], {weight: projection})
    weight.grad = torch.tensor([3.0, -2.0]).view_as(weight)
    optimizer.step()  # the first update of Adam is -lr * sign(gradient): (-0.1, 0.1), times P from the right
    assert weight.flatten().tolist() == pytest.approx([-0.1 * 0.5, -0.1 * 0.25 + 0.1], rel=1e-5)


def test_eps_meets_the_uncorrected_second_moment():
    weight = nn.Parameter(torch.zeros(1))
    optimizer = ProjectedAdam([{"params": [weight], "lr": 1.0, "weight_decay": 0.0}], {})
    weight.grad = torch.tensor([1e-8])
    optimizer.step()
    expected = -math.sqrt(0.001) / 0.1 * (0.1 * 1e-8) / (math.sqrt(0.001) * 1e-8 + 1e-8)
    assert weight.item() == pytest.approx(expected, rel=1e-4)  # torch's own Adam: -0.5


def test_updates_stay_in_the_null_space():
    weight = nn.Parameter(torch.randn(3, 2, 2, 2))
    used = torch.linalg.qr(torch.randn(8, 3)).Q  # directions that earlier inputs reached
    projection = torch.eye(8) - used @ used.T
    before = weight.detach().clone()
    optimizer = ProjectedAdam([{"params": [weight], "lr": 0.1, "weight_decay": 0.0}], {weight: projection})
    move(optimizer, (weight,), 4)
    moved = (weight.detach() - before).flatten(1)
    assert moved.norm() > 0.1 and (moved @ used).abs().max() < 1e-6


def test_a_parameter_without_gradient_stays():
    weight, vector = parameters()
    before = vector.detach().clone()
    optimizer = ProjectedAdam([{"params": [weight, vector], "lr": 0.1, "weight_decay": 0.1}], {})
    move(optimizer, (weight,), 1)
    assert torch.equal(vector, before)


def test_a_restored_optimiser_goes_on_exactly():
    whole, parts = parameters(), parameters()
    projection = torch.randn(3, 3)

    def build(weights):
        groups = [{"params": list(weights), "lr": 0.1, "weight_decay": 0.01}]
        return ProjectedAdam(groups, {weights[0]: projection})

    optimizer = build(whole)
    move(optimizer, whole, 3)
    move(optimizer, whole, 3, seed=2)
    first = build(parts)
    move(first, parts, 3)
    second = build(parts)
    second.load_state_dict(first.state_dict())
    move(second, parts, 3, seed=2)
    for one, other in zip(whole, parts, strict=True):
        assert torch.equal(one, other)
