"""Our steps and the literal ones of the benchmark are the same mathematics."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from benchmarks.literal_rfd import LiteralStep, literal_generator_step
from benchmarks.rfd import BenchmarkOptions, build_learner
from rfd.parity.building import temporary_run

pytestmark = pytest.mark.unit

SMALL = BenchmarkOptions(batch=6, blocks=2, width=4, gen_width=8, classes=3)


@pytest.mark.parametrize("fast", [False, True])
def test_both_representation_steps_give_the_same_weights(fast):
    with temporary_run() as (run, precision):
        learner = build_learner(dataclasses.replace(SMALL, fast=fast), run, precision)
        literal_network = copy.deepcopy(learner.network)
        images, target = torch.randn(6, 3, 32, 32), torch.tensor([3, 4, 5, 3, 4, 5])
        noise = learner.inversion.draw_noise(6)
        literal = LiteralStep(literal_network, learner.teacher, learner.inversion.generator, learner.factors())
        expected = literal(images, target, noise)
        terms = learner.train_step(images, target, learner.inversion.sample(noise))
        assert {name: value.item() for name, value in terms.items()} == pytest.approx(expected, rel=1e-4)
        assert learner.counts.tolist() == [literal.counts.get(label, 0) for label in range(6)]
        for key, value in learner.network.state_dict().items():
            torch.testing.assert_close(value, literal_network.state_dict()[key], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("fast", [False, True])
def test_both_generator_steps_have_the_same_loss(fast):
    with temporary_run() as (run, precision):
        inversion = build_learner(dataclasses.replace(SMALL, fast=fast), run, precision).inversion
        other = copy.deepcopy(inversion.generator)
        other.merges_doubling = False
        optimizer = torch.optim.Adam(other.parameters(), lr=0.001)
        noise = inversion.draw_noise(6)
        for _ in range(2):
            expected = literal_generator_step(other, inversion.classifier, optimizer, noise)
            assert inversion.train_step(noise)["total"].item() == pytest.approx(expected, rel=1e-4)
