"""The other behaviour of the agents: odd habits of the release and their switches, the bank, resume."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from adversarial_dfkd.learner import AdversarialDistillation
from adversarial_dfkd.networks import TEACHERS
from adversarial_dfkd.replay import MemoryBank
from common.training.checkpoint import read_newest_checkpoint
from common.training.errors import RunStopped, UserError
from common.training.journal import read_series
from tests.adversarial_dfkd.building import tiny_loop, trained_weights

pytestmark = pytest.mark.unit

AGENTS = ("PREDFKDAgent", "PREDFKDMemAgent", "PREDFKDMemMetaAgent", "PREDFKDMetaAgent")


@pytest.mark.parametrize("switch, modes", [(False, [True, False]), (True, [True, True])])
def test_student_mode_at_an_epochs_first_generator_step(switch, modes, tmp_path):
    """D5: as tested (evaluation mode) in later epochs, unless asked otherwise."""
    found = []
    with tiny_loop(tmp_path, "PREDFKDMemAgent", iterations=1, train_mode_at_epoch_start=switch) as loop:
        step = loop.generator_step
        loop.generator_step = lambda: (found.append(loop.student.training), step())
        loop.fit()
    assert found == modes


def test_the_vae_step_keeps_the_tunings_gradient_unless_asked_not_to(tmp_path):
    """D6."""
    gradients = {}
    for clean in (False, True):
        with tiny_loop(tmp_path / str(clean), "PREDFKDAgent", clean_vae_gradient=clean) as loop:
            loop.iteration = 1
            with torch.no_grad():
                images = loop.generate()
                targets = loop.teacher(images)
            torch.manual_seed(9)
            loop.memory_step(images, targets)
            gradients[clean] = loop.replay.generator.l1[0].weight.grad.clone()
    assert not torch.allclose(gradients[False], gradients[True])


def test_the_inner_rate_follows_a_cosine_only_if_asked_to(tmp_path):
    """D3."""
    with tiny_loop(tmp_path / "constant", "PREDFKDMetaAgent") as loop:
        assert [loop.config.meta_at(epoch).rate for epoch in (0, 1)] == [0.1, 0.1]
    with tiny_loop(tmp_path / "cosine", "PREDFKDMetaAgent", inner_schedule="cosine") as loop:
        assert [loop.config.meta_at(epoch).rate for epoch in (0, 1)] == pytest.approx([0.1, 0.05])


def test_the_meta_term_is_computed_only_for_the_log(tmp_path):
    """Detached: in the last student step of an epoch, of 8."""
    seen = []
    with tiny_loop(tmp_path, "PREDFKDMetaAgent") as loop:
        step = loop.student_step

        def counted(images):
            report = step(images)
            seen.append("retention" in report.terms)
            return report

        loop.student_step = counted
        loop.fit()
    assert seen == [False, False, False, True] * 2


@pytest.mark.parametrize("often, written", [("never", 0), ("epoch", 2), ("iteration", 6), ("step", 42)])
def test_what_is_not_computed_in_every_step_is_written_all_the_same(often, written, tmp_path):
    """2 epochs of 3 iterations of 7 student steps, a point per 10: no VAE step and few last ones fall on these."""
    sizes = {"iterations": 3, "kd_iter": 7, "log_meta_loss": often}
    with tiny_loop(tmp_path, "PREDFKDMetaAgent", write_every=10, **sizes) as loop:
        loop.fit()
    steps: dict[str, list[int]] = {}
    for point in read_series(tmp_path / "series.jsonl"):
        steps.setdefault(point["name"], []).append(point["step"])
    assert {7 * iteration + 4 for iteration in range(6)} <= set(steps["train/vae"])
    assert len(steps["train/vae"]) == 8  # the tenth and the thirtieth step have a VAE step too
    assert len(steps.get("train/student_retention", [])) == written


def test_the_statistics_term_reaches_the_generator(tmp_path):
    losses = []
    for weight in (0.0, 1.0):
        with tiny_loop(tmp_path / str(weight), "PREDFKDMemAgent", bn=weight) as loop:
            losses.append(float(loop.generator_step()[0]))
    assert losses[1] > losses[0]


def test_the_statistics_term_needs_a_teacher_with_norm_layers(tmp_path):
    with tiny_loop(tmp_path, "PREDFKDMemAgent") as loop:
        config = dataclasses.replace(loop.config, bn=0.1)
        parts = loop.student, loop.generator, loop.replay, loop.noise, loop.test, loop.precision, loop.run
        with pytest.raises(UserError, match="this teacher has none"):
            AdversarialDistillation(config, TEACHERS["lenet5"](10), *parts)


def test_the_bank_overwrites_its_oldest_batch():
    bank = MemoryBank(2)
    assert bank.draw() is None
    for number in range(3):
        bank.push(torch.tensor(number))
    assert [int(batch) for batch in bank.batches] == [2, 1] and bank.position == 1


def equal(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one if key != "seconds")
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(equal(a, b) for a, b in zip(one, other, strict=True))
    return one == other


@pytest.mark.parametrize("agent", AGENTS)
def test_a_run_stopped_after_every_step_ends_with_the_same_bits(agent, tmp_path):
    """Weights, optimisers, bank, generators, series."""
    trained_weights(tmp_path / "whole", agent, meta_gradient="second_order" if "Meta" in agent else "detached")
    stops = 0
    while True:
        with tiny_loop(
            tmp_path / "parts", agent, time_budget=0.0,
            meta_gradient="second_order" if "Meta" in agent else "detached",
        ) as loop:  # fmt: skip
            loop.run.restore()
            try:
                loop.fit()
            except RunStopped:
                stops += 1
                continue
        break
    assert stops == 2 * 2 * (1 + 2)
    states = [read_newest_checkpoint(tmp_path / name)[0] for name in ("whole", "parts")]
    for part in ("parts", "generators", "step"):
        assert equal(states[0][part], states[1][part]), part
    assert (tmp_path / "whole" / "series.jsonl").read_text() == (tmp_path / "parts" / "series.jsonl").read_text()


def test_a_seed_fixes_a_run(tmp_path):
    first, second = (trained_weights(tmp_path / name, "PREDFKDMetaAgent") for name in ("a", "b"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = trained_weights(tmp_path / "c", "PREDFKDMetaAgent", seed=4)
    assert not torch.equal(first["student.fc.weight"], other["student.fc.weight"])
