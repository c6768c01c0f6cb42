"""Our segmentation steps and the literal ones of the benchmark are the same mathematics."""

from __future__ import annotations

import pytest
import torch

from benchmarks.literal_segmentation import literal_label_map
from benchmarks.segmentation import (
    BenchmarkOptions,
    build_penalties,
    build_steps,
    literal_positions,
    our_labels,
    random_images,
)
from segmentation.rcil.network import BranchMix

pytestmark = pytest.mark.unit

SMALL = BenchmarkOptions(backbone="resnet14", width=8, crop=64, batch=3, old_steps=2)


def test_both_label_maps_agree():
    raw = torch.arange(256).byte().view(16, 16)
    assert torch.equal(our_labels(raw, "cpu").int(), literal_label_map(raw, literal_positions(), 0).int())


@pytest.mark.parametrize("plain_norms", [False, True])
@pytest.mark.parametrize("method", ["PLOP", "RCIL"])
def test_both_steps_agree(method, plain_norms):
    learner, literal = build_steps(SMALL, method, plain_norms)
    images, raw = random_images(SMALL)
    mixes = ([part for part in one.network.modules() if isinstance(part, BranchMix)] for one in (learner, literal))
    for ours, theirs in zip(*mixes, strict=True):
        ours.drawn = theirs.drawn = torch.rand(ours.channels)
    before = learner.network.cls[1].weight.clone()
    expected = literal(images, raw, literal_positions())
    terms = learner.step(images, our_labels(raw, "cpu"))
    assert {name: terms[name].item() for name in expected} == pytest.approx(expected, rel=1e-4)
    assert terms["pod"] > 0 and terms["ce"] > 0 and not torch.equal(learner.network.cls[1].weight, before)
    gradients = {name: value.grad for name, value in literal.network.named_parameters() if value.requires_grad}
    for name, value in learner.network.named_parameters():
        if name in gradients:
            assert (value.grad - gradients[name]).norm() <= 1e-3 * gradients[name].norm() + 1e-5, name
    for key, value in literal.network.state_dict().items():
        torch.testing.assert_close(learner.network.state_dict()[key], value, rtol=1e-3, atol=1e-5)


def test_both_penalties_agree():
    ours, literal, network = build_penalties(SMALL)
    torch.testing.assert_close(ours(), literal(), rtol=1e-5, atol=1e-6)
