"""Accuracies in percent, and means that are weighted by counts."""

from __future__ import annotations

import io

import pytest
import torch

from common.metrics.accuracy import RunningMean, accuracy_percent, count_correct

pytestmark = pytest.mark.unit

LOGITS = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [5.0, 0.0, 1.0], [-3.0, -2.0, -1.0]])
TARGET = torch.tensor([0, 1, 2, 2])  # the third is wrong


def test_accuracy_is_in_percent() -> None:
    assert count_correct(LOGITS, TARGET).item() == 3
    assert accuracy_percent(LOGITS, TARGET).item() == 75.0
    assert accuracy_percent(LOGITS, LOGITS.argmax(1)).item() == 100.0
    assert accuracy_percent(LOGITS[:1], TARGET[1:2]).item() == 0.0


def test_counts_are_exact_over_a_large_set() -> None:
    mean = RunningMean()
    mean.add_sum(torch.tensor(2.0**24), 2**24)
    for _ in range(3):  # sums in fp32 would not grow any more
        mean.add_sum(count_correct(LOGITS[:1], TARGET[:1]), 1)
    assert mean.value() == 1.0


def test_a_mean_is_weighted_by_counts() -> None:
    mean = RunningMean()
    assert mean.value() == 0.0
    mean.add(torch.tensor(1.0), 3)
    mean.add(torch.tensor(5.0), 1)
    assert mean.value() == 2.0
    mean.add_sum(torch.tensor(12.0), 4)
    assert mean.value() == 2.5
    assert mean.count == 8


def test_a_mean_does_not_hold_the_graph() -> None:
    loss = torch.tensor(2.0, requires_grad=True) * 3
    mean = RunningMean()
    mean.add(loss, 2)
    mean.add_sum(loss, 1)
    assert not mean.state_dict()["sum"].requires_grad


def test_adding_does_not_read_from_the_device() -> None:
    mean = RunningMean("meta")
    mean.add(torch.ones((), device="meta"), 4)
    mean.add_sum(torch.ones((), device="meta"), 4)
    with pytest.raises((RuntimeError, NotImplementedError)):
        mean.value()


def test_a_mean_goes_on_from_its_state() -> None:
    mean = RunningMean()
    mean.add(torch.tensor(1.0), 3)
    state = mean.state_dict()
    mean.add(torch.tensor(7.0), 1)  # the state does not follow
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)

    again = RunningMean()
    again.load_state_dict(state)
    assert (again.value(), again.count) == (1.0, 3)
    again.add(torch.tensor(5.0), 1)
    assert again.value() == 2.0
    assert state["sum"].item() == 3.0  # nor does it change by being loaded
