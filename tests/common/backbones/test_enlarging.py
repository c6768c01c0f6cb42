"""The joined doubling and convolution equals the two steps one by one."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import spectral_norm

from common.backbones.enlarging import EnlargingConv2d

pytestmark = pytest.mark.unit


def in_two_steps(layer: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    return F.conv2d(F.interpolate(x, scale_factor=2), layer.weight, layer.bias, padding=1)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (1, 3, 1, 1), (2, 3, 5, 2)])
def test_values_and_gradients_are_those_of_two_steps(shape, bias) -> None:
    torch.manual_seed(0)
    layer = EnlargingConv2d(3, 4, bias=bias).double()
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    probe = torch.randn(shape[0], 4, 2 * shape[2], 2 * shape[3], dtype=torch.float64)
    wanted = [x, *layer.parameters()]
    results = []
    for images in (layer(x), in_two_steps(layer, x)):
        results.append([images, *torch.autograd.grad((images * probe).sum(), wanted)])
    for ours, slow in zip(*results, strict=True):
        torch.testing.assert_close(ours, slow, rtol=1e-12, atol=1e-12)


def test_weights_and_draws_are_those_of_the_plain_convolution() -> None:
    torch.manual_seed(3)
    joined = EnlargingConv2d(3, 4)
    torch.manual_seed(3)
    plain = nn.Conv2d(3, 4, 3, padding=1)
    assert list(joined.state_dict()) == list(plain.state_dict())
    assert all(torch.equal(joined.state_dict()[key], value) for key, value in plain.state_dict().items())


def test_spectral_normalisation_reaches_the_joined_layer() -> None:
    layer = spectral_norm(EnlargingConv2d(3, 4))
    x = torch.randn(1, 3, 4, 4)
    with torch.no_grad():
        for _ in range(50):  # power iterations
            ours = layer(x)
        largest = torch.linalg.matrix_norm(layer.weight_orig.flatten(1), ord=2)
        layer.weight = layer.weight_orig / largest
        torch.testing.assert_close(ours, in_two_steps(layer, x), rtol=1e-4, atol=1e-5)
