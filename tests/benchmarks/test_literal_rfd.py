"""Our steps and the literal ones of the benchmark are the same mathematics."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from benchmarks.literal_rfd import literal_generator_step
from benchmarks.rfd import (
    EPOCHS,
    FINETUNING_EPOCHS,
    BenchmarkOptions,
    build_learner,
    literal_step,
    number_format,
)
from rfd.parity.building import temporary_run

pytestmark = pytest.mark.unit

SMALL = BenchmarkOptions(batch=6, blocks=2, width=4, gen_width=8, classes=3)
WEIGHTS = torch.tensor([1.0, 2.0, 1.5, 1.0, 3.0, 1.0])


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("epoch", [0, EPOCHS - FINETUNING_EPOCHS])
def test_both_steps_give_the_same_weights(epoch, fast):
    with temporary_run() as (run, precision):
        learner = build_learner(dataclasses.replace(SMALL, fast=fast), run, precision)
        learner.epoch, learner.weights = epoch, WEIGHTS
        learner.begin_epoch()
        literal = literal_step(learner)
        for group in literal.optimizer.param_groups:
            group["lr"] = learner.learning_rate()
        before = copy.deepcopy(learner.network.state_dict())
        images, target = torch.randn(6, 3, 32, 32), torch.tensor([3, 4, 5, 3, 4, 5])
        noise = learner.inversion.draw_noise(6)
        expected = literal(images, target, noise)
        terms = learner.train_step(images, target, learner.inversion.sample(noise))
        assert {name: value.item() for name, value in terms.items()} == pytest.approx(expected, rel=1e-4)
        assert learner.counts.tolist() == [literal.counts.get(label, 0) for label in range(6)]
        for key, value in learner.network.state_dict().items():
            torch.testing.assert_close(value, literal.network.state_dict()[key], rtol=1e-4, atol=1e-5)
        moved = [key for key, value in learner.network.state_dict().items() if not torch.equal(value, before[key])]
        assert moved and any(key.startswith("backbone") for key in moved) == (epoch == 0)


@pytest.mark.parametrize("fast", [False, True])
def test_both_generator_steps_have_the_same_loss(fast):
    with temporary_run() as (run, precision):
        learner = build_learner(dataclasses.replace(SMALL, fast=fast), run, precision)
        inversion, other = learner.inversion, literal_step(learner)
        optimizer = torch.optim.Adam(other.generator.parameters(), lr=0.001)
        noise = inversion.draw_noise(6)
        for _ in range(2):
            expected = literal_generator_step(other.generator, other.teacher, optimizer, noise)
            assert inversion.train_step(noise)["total"].item() == pytest.approx(expected, rel=1e-4)


def test_lower_precision_is_never_called_identical():
    assert number_format(SMALL) == "float32"
    told = number_format(dataclasses.replace(SMALL, fast=True, precision="bf16"))
    assert "ours in bf16" in told and "not identical mathematics" in told
