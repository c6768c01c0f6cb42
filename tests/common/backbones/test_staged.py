"""Forms of networks that compute the same function with less work; stages entered from outside."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from common.backbones.generators_dfcil import cifar_generator, doubled_convolution
from common.backbones.resnet_cllite import CifarResNet, ImageNetResNet18
from common.backbones.staged import folded

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
