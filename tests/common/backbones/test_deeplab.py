"""DeepLabV3's dilated convolutions on small maps."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from common.backbones.deeplab import DilatedConv2d

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("size", [(9, 9), (6, 9), (9, 6), (4, 4), (1, 1), (7, 5)])
@pytest.mark.parametrize("bias", [False, True])
def test_taps_outside_the_map_can_be_left_out(size, bias):
    torch.manual_seed(0)
    ours = DilatedConv2d(2, 3, 3, padding=6, dilation=6, bias=bias).double()
    plain = nn.Conv2d(2, 3, 3, padding=6, dilation=6, bias=bias).double()
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(2, 2, *size, dtype=torch.float64)
    outputs = []
    for convolution in (ours, plain):
        own = x.clone().requires_grad_()
        y = convolution(own)
        y.square().sum().backward()
        outputs.append((y, own.grad, *(parameter.grad for parameter in convolution.parameters())))
    for found, expected in zip(*outputs, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_only_the_centre_is_multiplied_on_a_map_smaller_than_the_dilation():
    convolution = DilatedConv2d(1, 1, 3, padding=6, dilation=6, bias=False)
    with torch.no_grad():
        convolution.weight.fill_(float("nan"))
        convolution.weight[0, 0, 1, 1] = 2.0
    assert convolution(torch.ones(1, 1, 4, 4)).sum() == 32
