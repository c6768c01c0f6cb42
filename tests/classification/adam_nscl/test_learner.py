"""What the recordings of Adam-NSCL leave open (they were made where the penalty vanishes), worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from classification.adam_nscl.learner import AdamNSCL

pytestmark = pytest.mark.unit


def test_penalty_by_hand():
    learner = AdamNSCL.__new__(AdamNSCL)
    weight, bias = nn.Parameter(torch.tensor([1.0, 2.0])), nn.Parameter(torch.tensor([0.5]))
    learner.batch_norms = {"bn.weight": weight, "bn.bias": bias}
    learner.ewc_importance, learner.ewc_weights = [], []
    assert learner.penalty() is None
    learner.ewc_importance = [torch.tensor([1.0, 10.0, 100.0]), torch.tensor([2.0, 0.0, 0.0])]
    learner.ewc_weights = [torch.tensor([0.0, 1.0, 0.5]), torch.tensor([4.0, 9.0, 9.0])]
    penalty = learner.penalty()
    assert penalty.item() == 1 * 1 + 10 * 1 + 0 + 2 * 9
    penalty.backward()
    assert weight.grad.tolist() == [2 * 1 * 1 + 2 * 2 * -3, 2 * 10 * 1]
    assert bias.grad.tolist() == [0.0]
