"""The rules that fill weights without storing them, against the formulas written out number by number."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from common import parity
from common.parity import Fixture, disturbed, fill_by_rule, reproduces

pytestmark = pytest.mark.unit


def sine(k: int, j: int) -> float:
    return 0.1 * math.sin(0.37 * k + 0.011 * j)


def uniform(k: int, j: int) -> float:
    x = 43758.5453 * math.sin(12.9898 * (j + 1) + 78.233 * (k + 1))
    return 2 * (x - math.floor(x)) - 1


def assert_entry(found: torch.Tensor, expected: list[float], shape: tuple[int, ...]) -> None:
    assert found.shape == shape
    numbers = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(found.double().flatten(), numbers, rtol=1e-6, atol=1e-7)


STATE = {
    "conv.weight": torch.zeros(2, 3, 1, 2),
    "bn.weight": torch.zeros(3),
    "bn.bias": torch.zeros(3),
    "bn.running_mean": torch.zeros(3),
    "bn.running_var": torch.zeros(3),
    "bn.num_batches_tracked": torch.tensor(7),
    "attn.relative_position_bias_table": torch.zeros(2, 2),
    "attn.relative_position_index": torch.tensor([[3, 4]]),
    "attn_mask": torch.tensor([[0.0, -100.0]]),
    "fc.weight": torch.zeros(2, 2),
    "fc.bias": torch.zeros(2),
}


def test_sine_rule() -> None:
    filled = fill_by_rule(STATE, "sine")
    assert list(filled) == list(STATE)
    assert_entry(filled["conv.weight"], [sine(0, j) for j in range(12)], (2, 3, 1, 2))
    assert_entry(filled["bn.bias"], [sine(2, j) for j in range(3)], (3,))
    assert_entry(filled["bn.running_mean"], [sine(3, j) for j in range(3)], (3,))
    assert_entry(filled["bn.running_var"], [1 + abs(sine(4, j)) for j in range(3)], (3,))
    assert filled["bn.num_batches_tracked"].item() == 0
    assert filled["bn.num_batches_tracked"].dtype == torch.int64
    assert_entry(filled["fc.weight"], [sine(9, j) for j in range(4)], (2, 2))  # integer entries are counted too
    assert filled["fc.weight"].dtype == torch.float32


def test_first_numbers_of_the_sine_rule() -> None:
    filled = fill_by_rule({"a": torch.zeros(2), "b": torch.zeros(1)}, "sine")
    assert filled["a"].tolist() == pytest.approx([0.0, 0.0010999778], rel=1e-6)
    assert filled["b"].item() == pytest.approx(0.0361615432, rel=1e-6)


def test_sine_rule_of_a_negative_wave_keeps_variances_above_one() -> None:
    state = {str(k): torch.zeros(1) for k in range(10)} | {"running_var": torch.zeros(2)}
    assert math.sin(3.7) < 0
    expected = [1 + 0.1 * abs(math.sin(3.7)), 1 + 0.1 * abs(math.sin(3.711))]
    assert_entry(fill_by_rule(state, "sine")["running_var"], expected, (2,))


def test_hash_rule() -> None:
    filled = fill_by_rule(STATE, "hash")
    assert list(filled) == list(STATE)
    fan = 3 * 1 * 2
    assert_entry(filled["conv.weight"], [uniform(0, j) * math.sqrt(3 / fan) for j in range(12)], (2, 3, 1, 2))
    assert_entry(filled["bn.weight"], [1 + 0.2 * uniform(1, j) for j in range(3)], (3,))
    assert_entry(filled["bn.bias"], [0.1 * uniform(2, j) for j in range(3)], (3,))
    assert_entry(filled["bn.running_mean"], [0.1 * uniform(3, j) for j in range(3)], (3,))
    assert_entry(filled["bn.running_var"], [1 + 0.2 * abs(uniform(4, j)) for j in range(3)], (3,))
    assert_entry(filled["attn.relative_position_bias_table"], [0.3 * uniform(6, j) for j in range(4)], (2, 2))
    assert_entry(filled["fc.weight"], [uniform(9, j) * math.sqrt(3 / 2) for j in range(4)], (2, 2))
    assert_entry(filled["fc.bias"], [0.1 * uniform(10, j) for j in range(2)], (2,))
    for kept in ("bn.num_batches_tracked", "attn.relative_position_index", "attn_mask"):
        assert torch.equal(filled[kept], STATE[kept])
        assert filled[kept].data_ptr() != STATE[kept].data_ptr()


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="'cosine'.*sine, hash"):
        fill_by_rule(STATE, "cosine")


def test_a_disturbance_moves_every_entry_by_its_size() -> None:
    value = torch.linspace(1, 2, 1000, dtype=torch.float64)
    ratio = disturbed(value, 0.01, seed=0) / value
    torch.testing.assert_close((ratio - 1).abs(), torch.full_like(ratio, 0.01))
    assert 400 < (ratio > 1).sum() < 600
    assert torch.equal(disturbed(value, 0.01, seed=0), value * ratio)
    assert not torch.equal(disturbed(value, 0.01, seed=1), value * ratio)
    assert torch.equal(disturbed(torch.tensor([3, 4]), 0.5, seed=0), torch.tensor([3, 4]))


def test_a_fixture_fills_a_module() -> None:
    layer = nn.Linear(2, 2)
    fixture = Fixture("toy.a", {"init": "sine"}, {})
    assert fixture.fill(layer) is layer
    assert_entry(layer.weight.detach(), [sine(0, j) for j in range(4)], (2, 2))
    assert_entry(layer.bias.detach(), [sine(1, j) for j in range(2)], (2,))
    clean = layer.bias.detach().clone()
    Fixture("toy.a", {"init": "sine"}, {}, disturbance=0.01).fill(layer)
    torch.testing.assert_close((layer.bias / clean - 1).abs(), torch.full((2,), 0.01), rtol=1e-3, atol=0)


def test_weights_under_a_prefix() -> None:
    a, b = torch.ones(1), torch.zeros(1)
    fixture = Fixture("toy.a", {}, {}, {"model.conv.weight": a, "hypermodel.w": b, "remodel.x": b})
    assert fixture.under("model.") == {"conv.weight": a}


def test_adapters_are_registered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "ADAPTERS", {})

    @reproduces("toy.a", "toy.b", derive=dict)
    def compute(fixture: Fixture) -> dict:
        return {"out.x": fixture.args["x"]}

    assert list(parity.ADAPTERS) == ["toy.a", "toy.b"]
    adapter = parity.ADAPTERS["toy.b"]
    assert adapter.compute is compute
    assert adapter.derive is dict
    assert adapter.compute(Fixture("toy.b", {"x": 3}, {})) == {"out.x": 3}
    with pytest.raises(ValueError, match="toy.a"):
        reproduces("toy.a")(compute)
