"""Second moments against their definition, null spaces and projections worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from classification.adam_nscl.projection import (
    adding_second_moments,
    convolutions,
    mean_patches,
    null_space_basis,
    projection_onto,
)
from common.backbones.registry import build_backbone
from common.training.errors import UserError

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (1, 2, 0)])
def test_a_convolution_is_its_weight_times_the_patches(kernel, stride, padding):
    module = nn.Conv2d(3, 5, kernel, stride=stride, padding=padding, bias=False)
    images = torch.randn(4, 3, 8, 8)
    by_patches = module.weight.flatten(1) @ mean_patches(images, module)
    torch.testing.assert_close(by_patches, module(images).mean(dim=0).flatten(1), rtol=1e-4, atol=1e-5)


def test_moments_add_up_over_batches_and_leave_no_hooks():
    torch.manual_seed(0)
    model = build_backbone("resnet", "resnet18", widths=(4, 6), blocks=(1, 1)).eval()
    modules, moments = convolutions(model), {}
    batches = [torch.randn(3, 3, 8, 8), torch.randn(2, 3, 8, 8)]
    with adding_second_moments(modules, moments):
        for images in batches:
            model.embed(images)
    assert set(moments) == {name for name, parameter in model.named_parameters() if parameter.dim() == 4}
    patches = [mean_patches(images, model.conv1) for images in batches]
    torch.testing.assert_close(moments["conv1.weight"], sum(p @ p.T for p in patches), rtol=1e-4, atol=1e-4)
    assert moments["stage2.0.shortcut.0.weight"].shape == (4, 4)
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert not any(moment.requires_grad for moment in moments.values())


def test_directions_up_to_a_multiple_of_the_smallest_eigenvalue():
    rotation = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    moment = rotation @ torch.diag(torch.tensor([100.0, 9.0, 2.0, 1.0], dtype=torch.float64)) @ rotation.T
    for threshold, kept in ((1.5, 1), (2.5, 2), (10, 3), (1000, 4)):
        basis = null_space_basis(moment, threshold)
        assert basis.shape == (4, kept)
        used = rotation[:, : 4 - kept]
        assert ((used.T @ basis).abs() < 1e-10).all()
        torch.testing.assert_close(basis.T @ basis, torch.eye(kept, dtype=torch.float64))


def test_projection_has_length_one_and_spares_the_used_directions():
    basis = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    projection = projection_onto(basis)
    expected = torch.diag(torch.tensor([1.0, 1.0, 0.0])) / 2**0.5
    torch.testing.assert_close(projection, expected)


def test_grouped_convolutions_are_refused():
    with pytest.raises(UserError, match=r"grouped convolution 0\.weight"):
        convolutions(nn.Sequential(nn.Conv2d(4, 4, 3, groups=2)))
