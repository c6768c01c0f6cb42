"""The compiled package inplace_abn against our norms; skipped where it is not built (`make abn`)."""

from __future__ import annotations

import importlib

import pytest
import torch

from common.backbones import abn
from common.backbones.deeplab import ResNet

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def package():
    try:
        return importlib.import_module("inplace_abn")
    except (ImportError, OSError) as error:
        pytest.skip(f"the package inplace_abn is not built ({error}); `make abn` builds it")


CASES = [("leaky_relu", 0.01), ("leaky_relu", 1.0), ("elu", 1.0), ("identity", 0.01)]


@pytest.mark.parametrize("name", ["ABN", "InPlaceABN", "InPlaceABNSync"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("activation", "param"), CASES)
def test_package_and_ours_agree(package, name, training, activation, param):
    torch.manual_seed(0)
    theirs = getattr(package, name)(6, activation=activation, activation_param=param)
    ours = getattr(abn, name)(6, activation=activation, activation_param=param)
    assert list(theirs.state_dict()) == list(ours.state_dict())
    state = {key: value + torch.rand(value.shape) if value.dim() else value for key, value in ours.state_dict().items()}
    state["weight"][::2] *= -1
    images, grad = torch.randn(4, 6, 9, 7), torch.randn(4, 6, 9, 7)
    found = []
    for norm in (theirs, ours):
        norm.load_state_dict(state)
        norm.train(training)
        x = images.clone().requires_grad_()
        y = norm(x.clone())
        y.backward(grad)
        found.append({"y": y.detach(), "x": x.grad, "weight": norm.weight.grad, "bias": norm.bias.grad}
                     | dict(norm.named_buffers()))  # fmt: skip
    for key, value in found[0].items():
        torch.testing.assert_close(found[1][key], value, rtol=1e-4, atol=1e-4)


def test_flags_reach_the_package(package):
    norm = abn.make_norm("pkg_iabn", 1.0)(4)
    assert isinstance(norm, package.InPlaceABN) and norm.activation_param == 1.0
    assert isinstance(abn.make_norm("pkg_iabn_sync")(4), package.InPlaceABNSync)


def test_a_network_with_the_package_is_bit_equal_to_ours(package):
    theirs, ours = (ResNet((1, 1, 1, 1), True, abn.make_norm(name), width=8) for name in ("pkg_iabn", "iabn"))
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        assert torch.equal(theirs(images)[0], ours(images)[0])
    assert all(torch.equal(value, ours.state_dict()[key]) for key, value in theirs.state_dict().items())
