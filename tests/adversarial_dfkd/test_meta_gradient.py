"""The finding of this reproduction: in the released code the meta-learning term changes no weight (D1)."""

from __future__ import annotations

import pytest
import torch
from torch.func import functional_call

from adversarial_dfkd.losses import distillation_loss
from adversarial_dfkd.meta import WEIGHT_DECAY, MetaUpdate, student_losses
from adversarial_dfkd.networks import STUDENTS
from common.backbones.lenet_dafl import LeNet5
from tests.adversarial_dfkd.building import trained_weights

pytestmark = pytest.mark.unit

RATE = 0.05


@pytest.fixture
def scene():
    torch.manual_seed(0)
    student, teacher = STUDENTS["lenet"](), LeNet5()
    novel, replayed = torch.randn(8, 1, 32, 32), torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        targets = teacher(torch.cat([novel, replayed]))
    return student, novel, replayed, targets


def gradients(student, loss):
    student.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in student.named_parameters()}


def released_step(student, novel, replayed, targets):
    """The released computation in full: copies of the weights, a differentiable inner step, both losses."""
    copies = {name: value.detach().clone().requires_grad_() for name, value in student.named_parameters()}
    acquired = distillation_loss(functional_call(student, copies, (novel,)), targets[:8])
    slopes = torch.autograd.grad(acquired, list(copies.values()), create_graph=True)
    stepped = {
        name: value - RATE * (slope + WEIGHT_DECAY * value)
        for (name, value), slope in zip(copies.items(), slopes, strict=True)
    }
    retention = distillation_loss(functional_call(student, stepped, (replayed,)), targets[8:])
    kd = distillation_loss(student(torch.cat([novel, replayed])), targets)
    return retention, kd


def test_the_released_meta_gradient_is_inert(scene):
    """The full released step, its skipping here, and plain distillation give the same gradient, bit for bit."""
    student, novel, replayed, targets = scene
    retention, kd = released_step(*scene)
    full = gradients(student, retention + kd)
    plain = gradients(student, student_losses(student, novel, replayed, targets, None)["loss"])
    for measure in (True, False):
        terms = student_losses(student, novel, replayed, targets, MetaUpdate("detached", RATE), measure)
        ours = gradients(student, terms["loss"])
        for name in full:
            assert torch.equal(full[name], plain[name]) and torch.equal(full[name], ours[name]), name
        assert ("retention" in terms) == measure
        if measure:
            torch.testing.assert_close(terms["retention"], retention)
            torch.testing.assert_close(terms["total"], retention + kd)


def test_the_second_order_gradient_is_the_derivative_of_the_papers_loss(scene):
    """Against a central difference of L_ret(theta') + L_kd(theta) along a direction."""
    student, novel, replayed, targets = (part.double() for part in scene)
    meta = MetaUpdate("second_order", RATE)
    found = gradients(student, student_losses(student, novel, replayed, targets, meta)["loss"])
    weight = student.fc1.weight
    direction = torch.randn_like(weight)
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight.add_(sign * 1e-6 * direction)
        values.append(student_losses(student, novel, replayed, targets, meta)["total"].item())
        with torch.no_grad():
            weight.sub_(sign * 1e-6 * direction)
    slope = (values[0] - values[1]) / 2e-6
    assert slope == pytest.approx(float((found["fc1.weight"] * direction).sum()), rel=1e-4)


def test_the_first_order_gradient_leaves_out_the_hessian(scene):
    """d L_kd + (1 - rate * decay) d L_ret at the stepped weights."""
    student, novel, replayed, targets = scene
    meta = MetaUpdate("first_order", RATE)
    ours = gradients(student, student_losses(student, novel, replayed, targets, meta)["loss"])
    plain = gradients(student, student_losses(student, novel, replayed, targets, None)["loss"])
    slopes = gradients(student, distillation_loss(student(novel), targets[:8]))
    stepped = {
        name: (value - RATE * (slopes[name] + WEIGHT_DECAY * value)).detach().requires_grad_()
        for name, value in student.named_parameters()
    }
    retention = distillation_loss(functional_call(student, stepped, (replayed,)), targets[8:])
    at_stepped = dict(zip(stepped, torch.autograd.grad(retention, list(stepped.values())), strict=True))
    for name in ours:
        expected = plain[name] + (1 - RATE * WEIGHT_DECAY) * at_stepped[name]
        torch.testing.assert_close(ours[name], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "pair", [("PREDFKDMemAgent", "PREDFKDMemMetaAgent"), ("PREDFKDAgent", "PREDFKDMetaAgent")], ids=["bank", "vae"]
)
def test_whole_runs_of_ours_and_of_their_rivals_are_equal(pair, tmp_path):
    """Ours-1 = MB-DFKD and Ours-2 = PRE-DFKD, all weights and statistics; with second order they part."""
    rival = trained_weights(tmp_path / "rival", pair[0])
    for logged in ("never", "step"):
        ours = trained_weights(tmp_path / logged, pair[1], log_meta_loss=logged)
        assert rival.keys() == ours.keys()
        assert all(torch.equal(rival[name], ours[name]) for name in rival)
    true = trained_weights(tmp_path / "true", pair[1], meta_gradient="second_order")
    assert not torch.equal(rival["student.fc.weight"], true["student.fc.weight"])


def test_running_statistics_move_once_per_step():
    student = STUDENTS["wrn-10-1"](10).train()
    novel, replayed = torch.randn(16, 3, 8, 8), torch.randn(2, 3, 8, 8)
    targets = torch.randn(18, 10)
    student_losses(student, novel, replayed, targets, MetaUpdate("second_order", 0.1))
    assert int(student.bn1.num_batches_tracked) == 1
