"""Activated batch norms: the in-place function against plain autograd, its memory, and two processes against one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from common.backbones.abn import ABN, InPlaceABN, InPlaceABNSync, activate, make_norm
from common.training.errors import UserError
from tests.helpers import REPOSITORY

pytestmark = pytest.mark.unit

ACTIVATIONS = [("leaky_relu", 0.01), ("leaky_relu", 1.0), ("elu", 1.0), ("elu", 0.5), ("identity", 0.01)]


def plain(norm: InPlaceABN, x: torch.Tensor) -> torch.Tensor:
    """The formula, by autograd."""
    dims, shape = [0, 2, 3], [1, -1, 1, 1]
    if norm.training:
        mean, variance = x.mean(dims), x.var(dims, correction=0)
    else:
        mean, variance = norm.running_mean, norm.running_var
    x_hat = (x - mean.view(shape)) / torch.sqrt(variance + norm.eps).view(shape)
    if norm.affine:
        x_hat = x_hat * (norm.weight.abs() + norm.eps).view(shape) + norm.bias.view(shape)
    return activate(x_hat, norm.activation, norm.activation_param)


def random_norm(activation: str = "leaky_relu", param: float = 0.01, affine: bool = True, **options) -> InPlaceABN:
    torch.manual_seed(1)
    norm = InPlaceABN(3, activation=activation, activation_param=param, affine=affine, **options).double()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    if affine:
        norm.weight.data = torch.tensor([-0.7, 0.4, 1.3], dtype=torch.float64)
        norm.bias.data.normal_()
    return norm


@pytest.mark.parametrize(("activation", "param"), ACTIVATIONS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_in_place_equals_plain_autograd(activation, param, training, affine):
    norm = random_norm(activation, param, affine).train(training)
    x = torch.randn(4, 3, 5, 2, dtype=torch.float64, requires_grad=True)
    wanted = [x, *norm.parameters()]
    grad = torch.randn_like(x)
    expected_y = plain(norm, x)
    expected = torch.autograd.grad(expected_y, wanted, grad)
    y = norm(x.clone())
    torch.testing.assert_close(y, expected_y, rtol=1e-12, atol=1e-12)
    for found, value in zip(torch.autograd.grad(y, wanted, grad), expected, strict=True):
        torch.testing.assert_close(found, value, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("activation", "param"), ACTIVATIONS)
def test_gradients_by_finite_differences(activation, param, training):
    norm = random_norm(activation, param, momentum=0.0).train(training)
    weight, bias = norm.weight, norm.bias

    def run(x, weight, bias):
        return torch.func.functional_call(norm, {"weight": weight, "bias": bias}, (x.clone(),))

    x = torch.randn(3, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(run, (x, weight, bias))


def test_running_statistics_follow_the_batch():
    norm, reference = InPlaceABN(3, momentum=0.3), nn.BatchNorm2d(3, momentum=0.3)
    for _ in range(3):
        x = torch.randn(4, 3, 5, 5) * 2 + 1
        reference(x)
        norm(x.clone())
    torch.testing.assert_close(norm.running_mean, reference.running_mean)
    torch.testing.assert_close(norm.running_var, reference.running_var)
    assert norm.num_batches_tracked == 3


def test_the_result_lies_where_the_input_was_and_is_kept_once():
    def kept_bytes(norm: nn.Module) -> int:
        seen: dict[int, int] = {}

        def pack(tensor):
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            x = nn.Conv2d(2, 64, 1)(torch.randn(2, 2, 32, 32))
            pointer = x.data_ptr()
            y = nn.Conv2d(64, 2, 1)(norm(x))
            result = y, pointer, x.data_ptr()
        assert result[1] == result[2]
        return sum(seen.values())

    one_map = 2 * 64 * 32 * 32 * 4
    assert kept_bytes(ABN(64)) - kept_bytes(InPlaceABN(64)) > 0.95 * one_map
    x = torch.randn(2, 3, 4, 4)
    assert InPlaceABN(3)(x).data_ptr() == x.data_ptr()


def test_going_back_twice_leaves_the_kept_output_alone():
    norm = random_norm()
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    y = norm(x.clone())
    copy, grad = y.detach().clone(), torch.randn_like(y)
    first = torch.autograd.grad(y, [x, norm.weight], grad, retain_graph=True)
    second = torch.autograd.grad(y, [x, norm.weight], grad)
    assert torch.equal(y, copy)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_output_must_not_be_changed_before_going_back():
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    y = InPlaceABN(3)(x.clone())
    y.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_short_formats_keep_fp32_statistics(dtype):
    norm = InPlaceABN(3)
    x = (torch.randn(8, 3, 16, 16) + 30).to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = norm(x.clone())
    y.sum().backward()
    assert y.dtype == dtype and x.grad.dtype == dtype and norm.weight.grad.dtype == torch.float32
    torch.testing.assert_close(norm.running_mean, 0.1 * x.detach().float().mean((0, 2, 3)), rtol=1e-5, atol=1e-5)
    expected = InPlaceABN(3)(x.detach().float())
    torch.testing.assert_close(y.float(), expected, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("make", [ABN, InPlaceABN])
def test_eps_may_be_zero_in_evaluation(make):
    norm = make(2, activation="identity").eval()
    norm.eps = 0.0
    norm.running_mean.copy_(torch.tensor([1.0, 2.0]))
    norm.running_var.copy_(torch.tensor([4.0, 0.25]))
    x = torch.ones(1, 2, 1, 1)
    assert norm(x).flatten().tolist() == [0.0, -2.0]


@pytest.mark.parametrize("make", [ABN, InPlaceABN])
def test_one_value_per_channel_is_refused_in_training(make):
    with pytest.raises(ValueError, match="more than one value per channel"):
        make(2)(torch.randn(1, 2, 1, 1))
    make(2).eval()(torch.randn(1, 2, 1, 1))


def test_relu_is_for_the_plain_norm_only():
    assert ABN(2, activation="relu")(torch.randn(3, 2, 4, 4)).min() == 0
    with pytest.raises(ValueError, match="cannot be inverted"):
        InPlaceABN(2, activation="relu")(torch.randn(3, 2, 4, 4))


@pytest.mark.parametrize("make", [ABN, InPlaceABN, InPlaceABNSync])
def test_old_weights_without_counter_can_be_loaded(make):
    norm = make(2)
    state = {key: value for key, value in norm.state_dict().items() if key != "num_batches_tracked"}
    norm.num_batches_tracked.fill_(7)
    norm.load_state_dict(state)
    assert norm.num_batches_tracked == 0


def test_names_choose_norms():
    assert [type(make_norm(name)(2)) for name in ("abn", "iabn", "iabn_sync")] == [ABN, InPlaceABN, InPlaceABNSync]
    assert make_norm("iabn", 1.0)(2).activation_param == 1.0
    with pytest.raises(UserError, match="--norm_act std"):
        make_norm("std")


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "inplace_abn", None)
    with pytest.raises(UserError, match="make abn"):
        make_norm("pkg_iabn")


# --- two processes ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory) -> tuple[dict, list[dict]]:
    """What they were given, and what each of them found."""
    folder = tmp_path_factory.mktemp("processes")
    x = torch.randn(5, 3, 4, 2, dtype=torch.float64)
    stored = {"x": x, "grad": torch.randn_like(x), "parts": [4, 1], "state": random_norm().state_dict()}
    source, script = folder / "source.pt", Path(__file__).with_name("synchronised_abn.py")
    torch.save(stored, source)
    results = [folder / f"result{rank}.pt" for rank in (0, 1)]
    running = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), str(folder / "meeting"), str(source), str(result)],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, stderr=subprocess.PIPE, text=True,
        )
        for rank, result in enumerate(results)
    ]  # fmt: skip
    for process in running:
        assert process.wait(timeout=240) == 0, process.stderr.read()
    return stored, [torch.load(result) for result in results]


def test_two_processes_with_unequal_parts_equal_one(two_processes):
    stored, results = two_processes
    parts = [result["together"] for result in results]
    norm = random_norm()
    x = stored["x"].clone().requires_grad_()
    y = norm(x.clone())
    y.backward(stored["grad"])
    joined = {key: torch.cat([part[key] for part in parts]) for key in ("y", "x")}
    torch.testing.assert_close(joined["y"], y.detach(), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(joined["x"], x.grad, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(parts[0]["weight"] + parts[1]["weight"], norm.weight.grad, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(parts[0]["bias"] + parts[1]["bias"], norm.bias.grad, rtol=1e-9, atol=1e-12)
    for part in parts:
        torch.testing.assert_close(part["mean"], norm.running_mean, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(part["variance"], norm.running_var, rtol=1e-10, atol=1e-12)


def test_a_group_of_one_does_not_synchronise(two_processes):
    stored, (first, second) = two_processes
    torch.testing.assert_close(first["alone"]["y"], random_norm()(stored["x"][:4].clone()), rtol=1e-10, atol=1e-12)
    alone = random_norm().eval()(stored["x"][4:].clone())
    torch.testing.assert_close(second["alone"]["y"], alone, rtol=1e-10, atol=1e-12)
