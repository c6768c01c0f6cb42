"""VDFD for segmentation: importance, exact ranks, the functional, the penalty, what is stored."""

from __future__ import annotations

import math

import pytest
import torch

from segmentation import vdfd
from segmentation.network import build_network
from segmentation.rcil.merging import freeze_merged
from segmentation.start import start_step
from segmentation.vdfd import (
    Functional,
    VdfdRegularizer,
    classifier_rows,
    compress,
    importance,
    regularised_names,
)
from tests.segmentation.building import small_config

pytestmark = pytest.mark.unit

DOMAIN = {"dataset": "camvid_domain", "task": "1-1", "regularizer": "vdfd"}


def network_of(classes: list[int], **changes):
    torch.manual_seed(0)
    return build_network(small_config(**{**DOMAIN, **changes}), classes).eval()


def batches(count: int = 2) -> list[torch.Tensor]:
    return list(torch.randn(count, 2, 3, 32, 32, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("score", ["small", "full"])
def test_importance_is_the_row_mean_of_the_gradient_of_the_mean_score(score):
    network = network_of([5])
    names = regularised_names(network, "none")
    matrices, features = importance(network, batches(1), names, score)
    images = batches(1)[0]
    logits, maps = network(images)
    scores = (logits if score == "full" else maps["sem_logits_small"]).mean((0, 2, 3))
    for name, parameter in network.named_parameters():
        if name in ("body.mod2.block1.convs.conv2.weight", "head.map_bn.bias", "body.mod1.conv1.weight"):
            literal = torch.autograd.grad(scores[3], parameter, retain_graph=True)[0]
            literal = literal.flatten(1).mean(dim=1) if literal.dim() > 1 else literal
            torch.testing.assert_close(matrices[name][:, 3], literal, rtol=1e-3, atol=1e-7)
    rows, biases = classifier_rows(network)
    torch.testing.assert_close(rows @ features + biases, scores.detach(), rtol=1e-4, atol=1e-6)


def test_importance_in_parts_is_that_of_the_whole_batch(monkeypatch):
    network = network_of([5])
    names = regularised_names(network, "none")
    whole, features = importance(network, batches(2), names)
    monkeypatch.setattr(vdfd, "PIXELS_AT_ONCE", 1)
    parts, part_features = importance(network, batches(2), names)
    torch.testing.assert_close(parts, whole, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(part_features, features)


def test_exact_factors_are_the_best_of_their_rank():
    matrix = torch.randn(30, 7, generator=torch.Generator().manual_seed(2))
    error = (compress(matrix, 2).product() - matrix).square().sum()
    singular = torch.linalg.svdvals(matrix)
    torch.testing.assert_close(error, singular[2:].square().sum())
    torch.manual_seed(0)
    assert (compress(matrix, 1, "lowrank").product() - matrix).norm() > (compress(matrix, 1).product() - matrix).norm()
    assert compress(torch.randn(3, 7), 5).count() == 3 * 3 + 3 + 3 * 7


def regularizer_after(steps: int, **changes) -> tuple[VdfdRegularizer, torch.nn.Module]:
    config, network = small_config(**{**DOMAIN, **changes}), network_of([5], **changes)
    saved = []
    for _ in range(steps):
        first = VdfdRegularizer(config, network, saved, iterations=4)
        first.finish(network, batches())
        saved = first.steps
    return VdfdRegularizer(config, network, saved, iterations=4), network


@pytest.mark.parametrize("head", ["exact", "rank1", "none"])
def test_nothing_has_changed_right_after_a_step(head):
    regularizer, network = regularizer_after(1, vdfd_head=head)
    assert torch.equal(regularizer.functionals(network)[0][0], regularizer.steps[0].gw_star)
    constant = regularizer.penalty(network)
    with torch.no_grad():
        network.body.mod2.block1.convs.conv1.weight.add_(0.05)
    assert regularizer.penalty(network) > constant


def test_a_merge_changes_nothing_that_the_penalty_measures():
    """RCIL's first branches, which the merge rewrites and then freezes, are left out from the first step on."""
    config = small_config(**DOMAIN, vdfd_network="rcil")
    network = network_of([5], vdfd_network="rcil")
    for images in batches():
        network.train()(images)  # statistics of the norms
    first = VdfdRegularizer(config, network, [], iterations=4)
    first.finish(network, batches())
    merged = network_of([5], vdfd_network="rcil")
    start_step(config, merged, network.state_dict())
    freeze_merged(merged)
    second = VdfdRegularizer(config, merged, first.steps, iterations=4)
    assert torch.equal(second.functionals(merged)[0][0], first.steps[0].gw_star)
    named = dict(merged.named_parameters())
    assert all(named[name].requires_grad for name in first.steps[0].factors)
    assert regularised_names(merged, "exact") == list(first.steps[0].factors)
    assert any(".conv2_new." in name for name in first.steps[0].factors)


def test_the_exact_head_follows_the_classifier_linearly():
    regularizer, network = regularizer_after(1)
    step = regularizer.steps[0]
    with torch.no_grad():
        network.cls[0].weight[2] += 0.1
        network.cls[0].bias[1] -= 0.3
    change = Functional([step])(network)[0] - step.gw_star
    expected = torch.zeros(5)
    expected[2], expected[1] = 0.1 * step.features.sum(), -0.3
    torch.testing.assert_close(change, expected, rtol=1e-4, atol=1e-5)


def test_the_penalty_of_nineteen_classes_is_finite_where_the_determinant_underflows():
    """D23: det(P + 1e-3 I) of a smooth graph network is 0 in float32."""
    config = small_config(**DOMAIN)
    torch.manual_seed(0)
    network = build_network(config, [19]).eval()
    with torch.no_grad():
        network.cls[0].weight.copy_(torch.ones_like(network.cls[0].weight) + 1e-3 * torch.randn(19, 8, 1, 1))
    first = VdfdRegularizer(config, network, [], iterations=4)
    first.finish(network, batches())
    regularizer = VdfdRegularizer(config, network, first.steps, iterations=4)
    loss = regularizer.penalty(network)
    loss.backward()
    assert math.isfinite(loss.item()) and loss.dtype == torch.float64
    gradients = [p.grad for p in regularizer.hypermodel.parameters()]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert torch.det(torch.ones(19, 19) + 1e-3 * torch.eye(19)) < 1e-38


def test_sum_over_steps_against_the_last_one_squared():
    regularizer, network = regularizer_after(2)
    last, _ = regularizer_after(2, vdfd_sum="last_squared")
    last.hypermodel.load_state_dict(regularizer.hypermodel.state_dict())
    constants = regularizer.penalty(network), last.penalty(network)
    assert constants[0].item() == pytest.approx(2 * constants[1].item())
    with torch.no_grad():
        network.cls[0].bias[0] += 0.2
    changes = [r.penalty(network).item() - c.item() for r, c in zip((regularizer, last), constants, strict=True)]
    assert changes[1] == pytest.approx(2 * changes[0], rel=1e-3)  # 2^2 times one of two equal steps


def test_state_goes_through_a_checkpoint():
    regularizer, network = regularizer_after(2)
    regularizer.penalty(network).backward()
    regularizer.after_step()
    restored = VdfdRegularizer(regularizer.config, network, regularizer.steps, iterations=4)
    restored.load_state_dict(regularizer.state_dict())
    assert torch.equal(restored.penalty(network), regularizer.penalty(network))
    assert restored.optimizer.param_groups[0]["lr"] == pytest.approx(0.001 * 0.75**0.9)


def test_old_steps_with_fewer_classes_are_kept_apart():
    config = small_config(dataset="camvid", task="7-4", regularizer="vdfd")
    torch.manual_seed(0)
    network = build_network(config, [8]).eval()
    first = VdfdRegularizer(config, network, [], iterations=4)
    first.finish(network, batches())
    wider = build_network(config, [8, 4]).eval()
    wider.load_state_dict(network.state_dict(), strict=False)
    second = VdfdRegularizer(config, wider, first.steps, iterations=4)
    second.finish(wider, batches())
    third = VdfdRegularizer(config, wider, second.steps, iterations=4)
    assert [tuple(gw.shape) for gw in third.functionals(wider)] == [(1, 8), (1, 12)]
    for gw, step in zip(third.functionals(wider), third.steps, strict=True):
        assert torch.equal(gw[0], step.gw_star)
    assert torch.isfinite(third.penalty(wider))
