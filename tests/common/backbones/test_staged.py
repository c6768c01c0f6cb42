"""Forms of networks that compute the same function with less work; stages entered from outside."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from common.backbones.generators_dfcil import cifar_generator, doubled, doubled_convolution
from common.backbones.resnet_cllite import CifarResNet, ImageNetResNet18
from common.backbones.staged import every_nth, folded, spatial_mean

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("build", [lambda: CifarResNet(3, 4), ImageNetResNet18])
def test_folded_norms_give_the_same_outputs(build):
    torch.manual_seed(0)
    network = build().double()
    network(torch.randn(4, 3, 32, 32, dtype=torch.float64))  # statistics other than 0 and 1
    before = {key: value.clone() for key, value in network.state_dict().items()}
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    copied = folded(network)
    torch.testing.assert_close(copied(images), network.eval()(images), rtol=1e-10, atol=1e-12)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in copied.modules())
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_pooling_and_subsampling_keep_values_and_the_layout_of_gradients(layout):
    torch.manual_seed(0)
    values = torch.randn(2, 3, 5, 4).contiguous(memory_format=layout)
    x, other = (values.clone(memory_format=torch.preserve_format).requires_grad_() for _ in range(2))
    inner, outer = torch.randn(2, 3), torch.randn(2, 3, 3, 2)
    for pooled, sampled, leaf in (
        (spatial_mean(x * 1), every_nth(x, 2), x),
        (other.mean(dim=(2, 3)), other[:, :, ::2, ::2], other),
    ):
        ((pooled * inner).sum() + (sampled * outer).sum()).backward()
        assert leaf.grad is not None
    assert torch.equal(spatial_mean(x), other.mean(dim=(2, 3))) and torch.equal(every_nth(x, 2), other[:, :, ::2, ::2])
    torch.testing.assert_close(x.grad, other.grad)

    seen = []
    between = values.clone(memory_format=torch.preserve_format).requires_grad_() * 2
    pooled = spatial_mean(between)
    between.register_hook(seen.append)
    pooled.sum().backward()
    assert seen[0].is_contiguous(memory_format=layout)


def test_doubling_without_a_gradient_gives_the_same_numbers():
    x = torch.randn(2, 3, 4, 5)
    with torch.no_grad():
        assert torch.equal(doubled(x), F.interpolate(x, scale_factor=2))


@pytest.mark.parametrize("size", [(4, 6), (1, 1), (5, 3)])
def test_doubling_and_convolution_in_one(size):
    layer = nn.Conv2d(3, 5, 3, padding=1).double()
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    expected = layer(F.interpolate(x, scale_factor=2))
    found = doubled_convolution(x, layer.weight, layer.bias)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    weights = torch.randn_like(expected)
    inputs = (x, layer.weight, layer.bias)
    for one, other in zip(*(torch.autograd.grad((y * weights).sum(), inputs) for y in (found, expected)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_a_generator_gives_the_same_images_both_ways():
    generator, noise = cifar_generator(16, 16).double(), torch.randn(3, 16, dtype=torch.float64)
    expected = generator.eval()(noise)
    generator.merges_doubling = True
    torch.testing.assert_close(generator(noise), expected, rtol=1e-9, atol=1e-11)


def test_the_later_stages_continue_the_first():
    network, images = CifarResNet(2, 4).eval(), torch.randn(2, 3, 16, 16)
    stages = network.stage_outputs(images)
    assert [tuple(stage.shape[1:]) for stage in stages] == [(4, 16, 16), (8, 8, 8), (16, 4, 4), (16, 4, 4)]
    assert torch.equal(network.from_first_stage(stages[0]), network(images))
