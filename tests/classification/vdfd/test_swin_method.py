"""Whole matrices: their gradients, a factorisation per row, the functional, the recipe's learning rates."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from classification.vdfd.importance import class_gradients
from classification.vdfd.optimization import WarmupCosine, backbone_names
from common.backbones.swin_vdfd import SwinTransformer
from common.continual.compression import MatrixFactors, draw_start, low_rank_factors, matrix_functional
from common.continual.memory import Memory, TaskMemory
from common.continual.summary import ROW_MEANS, WHOLE_MATRICES

pytestmark = pytest.mark.unit

SMALL = {
    "img_size": 16, "patch_size": 2, "embed_dim": 8, "depths": (1, 2), "num_heads": (2, 2), "window_size": 4,
    "drop_path_rate": 0.0,
}  # fmt: skip


def network() -> SwinTransformer:
    torch.manual_seed(0)
    model = SwinTransformer(**SMALL)
    model.set_heads({"1": 3, "2": 3})
    return model.eval()


def random_factors(memory: Memory, classes: int, rank: int = 1) -> dict:
    factors = {}
    for name, shape in zip(memory.names, memory.shapes(), strict=True):
        matrix = torch.randn(*shape, classes)
        own_rank = min(rank, *matrix.shape[-2:])
        factors[name] = low_rank_factors(matrix, own_rank, draw_start(matrix, own_rank))
    return factors


# --- what is kept of a gradient ---------------------------------------------------------------------------------------


def test_summary_of_each_kind_of_parameter():
    matrix, convolution, vector = torch.ones(4, 3), torch.ones(4, 2, 3, 3), torch.ones(4)
    assert [WHOLE_MATRICES.shape(p) for p in (matrix, convolution, vector)] == [(4, 3), (4,), (4,)]
    assert [ROW_MEANS.shape(p) for p in (matrix, convolution, vector)] == [(4,), (4,), (4,)]
    gradient = torch.arange(6.0).reshape(2, 3)
    assert torch.equal(WHOLE_MATRICES.of(gradient), gradient) and ROW_MEANS.of(gradient).tolist() == [1.0, 4.0]


def test_whole_gradients_equal_the_definition():
    model = network()
    names, parameters = backbone_names(model), dict(model.named_parameters())
    images = torch.randn(4, 3, 16, 16)
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4])
    ours = class_gradients(model, names, "2", slice(0, 3), images, weights, WHOLE_MATRICES)
    outputs = (model(images)["2"] * weights[:, None]).sum(dim=0)
    for name in names:
        gradients = [torch.autograd.grad(output, parameters[name], retain_graph=True)[0] for output in outputs]
        expected = torch.stack(gradients, dim=-1)
        if expected.dim() == 5:  # the patch embedding: averaged over input channels and kernel
            expected = expected.mean(dim=(1, 2, 3))
        torch.testing.assert_close(ours[name], expected, rtol=1e-4, atol=1e-6)


def test_row_means_are_the_means_of_the_whole_gradients():
    model = network()
    names, images, weights = backbone_names(model), torch.randn(2, 3, 16, 16), torch.full((2,), 0.5)
    whole = class_gradients(model, names, "1", slice(0, 3), images, weights, WHOLE_MATRICES)
    means = class_gradients(model, names, "1", slice(0, 3), images, weights)
    for name in names:
        expected = whole[name].mean(dim=1) if whole[name].dim() == 3 else whole[name]
        torch.testing.assert_close(means[name], expected, rtol=1e-4, atol=1e-6)


# --- factors and functional -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("inputs", "classes"), [(12, 5), (3, 5)])  # the position tables have few inputs (heads)
@pytest.mark.parametrize("rank", [1, 2])
def test_every_row_has_the_factors_of_torchs_routine_drawn_in_turn(inputs, classes, rank):
    matrices = torch.randn(6, inputs, classes)
    torch.manual_seed(3)
    factors = low_rank_factors(matrices, rank, draw_start(matrices, rank))
    torch.manual_seed(3)
    for row, matrix in enumerate(matrices):
        left, singular, right = torch.svd_lowrank(matrix, q=rank, niter=2)
        expected = left @ torch.diag(singular) @ right.T
        torch.testing.assert_close(factors.product()[row], expected, rtol=1e-4, atol=1e-5)


def test_a_row_without_gradient_has_factors_that_vanish():
    matrices = torch.zeros(3, 5, 4)
    factors = low_rank_factors(matrices, 1, draw_start(matrices, 1))
    assert torch.equal(factors.product(), matrices) and all(part.isfinite().all() for part in factors)


@pytest.mark.parametrize("rank", [1, 2])
def test_functional_equals_the_multiplied_out_gradient_times_the_weights(rank):
    weights = [torch.randn(4, 7), torch.randn(5, 3)]
    tasks = [
        [low_rank_factors(m, rank, draw_start(m, rank)) for m in (torch.randn(4, 7, 6), torch.randn(5, 3, 6))]
        for _ in range(3)
    ]
    stacked = [MatrixFactors.stack([task[position] for task in tasks]) for position in range(2)]
    expected = [
        sum(torch.einsum("oic,oi->c", f.product(), w) for f, w in zip(task, weights, strict=True)) for task in tasks
    ]
    torch.testing.assert_close(matrix_functional(weights, stacked), torch.stack(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rank", [1, 3])
def test_memory_of_several_tasks_against_dense_algebra(rank):
    model = network()
    memory = Memory(model, backbone_names(model), WHOLE_MATRICES)
    for _ in range(2):
        memory.add(random_factors(memory, 3, rank))
    basis, gw_star = memory.stacked([0, 1])
    torch.testing.assert_close(basis.functional(memory.weights()), gw_star)  # nothing has moved yet
    with torch.no_grad():
        for parameter in memory.parameters:
            parameter.mul_(1.1).add_(0.01)
    gw = basis.functional(memory.weights())
    for task, found in zip(memory.tasks, gw, strict=True):
        expected = 0.0
        for name, parameter in zip(memory.names, memory.parameters, strict=True):
            dense = task.factors[name].product()
            weight = parameter.flatten(1).sum(dim=1) if parameter.dim() == 4 else parameter
            expected = expected + torch.tensordot(weight, dense, dims=weight.dim())
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (gw - gw_star).abs().max() > 1e-3


def test_the_functional_reaches_every_regularised_parameter():
    model = network()
    memory = Memory(model, backbone_names(model), WHOLE_MATRICES)
    memory.add(random_factors(memory, 3))
    basis, _ = memory.stacked([0])
    basis.functional(memory.weights()).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in memory.parameters)


def test_storage_of_swin_t_exceeds_its_backbone():
    """The published count, from shapes alone: meta tensors hold no numbers."""
    memory = Memory(model := SwinTransformer(), backbone_names(model), WHOLE_MATRICES)
    factors = {}
    for name, shape in zip(memory.names, memory.shapes(), strict=True):
        matrix = torch.empty(*shape, 10, device="meta")
        start = torch.empty(*shape[:-1], min(matrix.shape[-2:]), 1, device="meta")
        factors[name] = low_rank_factors(matrix, 1, start)
    assert TaskMemory(factors, torch.empty(10)).storage() == 27_990_306
    assert sum(parameter.numel() for parameter in memory.parameters) == 27_519_354


# --- learning rates ---------------------------------------------------------------------------------------------------


def schedule(total: int = 10, warmup: int = 4, **rates: float) -> tuple[torch.optim.Optimizer, WarmupCosine]:
    optimizer = torch.optim.SGD([{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (1.0, 2.0)])
    return optimizer, WarmupCosine(optimizer, total, warmup, rates.get("min_lr", 0.1), rates.get("warmup_lr", 0.2))


def test_rates_by_hand():
    optimizer, rates = schedule()
    found = []
    for _ in range(12):
        found.append(rates.rates()[1])
        rates.step(epoch=0)
    rise = [0.2, 0.2, 0.2 + 1.8 / 4, 0.2 + 1.8 * 2 / 4, 0.2 + 1.8 * 3 / 4]  # the first rate holds for two updates
    fall = [0.1 + 0.5 * 1.9 * (1 + math.cos(math.pi * u / 10)) for u in range(4, 10)]  # the clock ran from the start
    assert found == pytest.approx([*rise, *fall, 0.1])


def test_without_warm_up_the_base_rates_come_first():
    _, rates = schedule(warmup=0)
    assert rates.rates() == [1.0, 2.0]


def test_a_restored_schedule_goes_on():
    optimizer, rates = schedule()
    for _ in range(3):
        rates.step(0)
    saved = rates.state_dict()
    other_optimizer, other = schedule()
    other.load_state_dict(saved)
    for _ in range(4):
        rates.step(0), other.step(0)
        assert rates.rates() == other.rates()
    rates.restart()
    rates.step(0)
    assert rates.rates() == [0.2, 0.2]
