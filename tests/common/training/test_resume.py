"""A run that was killed and went on equals the one that was not: weights, counters, series, to the last bit."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from common.training.journal import SERIES
from common.training.seeding import GlobalGenerators, seed_everything
from tests.common.training.toy import NEVER, Killed, ToyTraining, open_run

pytestmark = pytest.mark.unit
STEPS = 25


@pytest.fixture(autouse=True)
def _leave_generators_alone():
    generators = GlobalGenerators()
    state = generators.state_dict()
    yield
    generators.load_state_dict(state)


def train(folder: Path, kill_at: int | None = None, save_every: int = 0) -> ToyTraining:
    """Start or go on, as a program would.

    Args:
        kill_at: step after which the process "dies".
        save_every: steps between two checkpoints; 0: `tick` saves after every step.
    """
    seed_everything(0)
    with open_run(folder, checkpoint_interval=NEVER if save_every else 0.0) as run:
        training = ToyTraining(run)  # draws weights from the generators, which `restore` must then put back
        run.restore()
        while run.step < STEPS:
            training.step()
            run.tick()
            if save_every and run.step % save_every == 0:
                run.log_value("val/accuracy", float(training.images), task=1, epoch=run.step // save_every)
                run.save()
            if run.step == kill_at:
                raise Killed
    return training


def assert_equal(training: ToyTraining, reference: ToyTraining) -> None:
    ours, theirs = training.model.state_dict(), reference.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    for parameter, other in zip(training.model.parameters(), reference.model.parameters(), strict=True):
        for name, value in reference.optimizer.state[other].items():
            assert torch.equal(training.optimizer.state[parameter][name], value)
    assert training.images == reference.images == 6 * STEPS


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("save_every", [0, 7])
def test_kills_at_random_steps_change_nothing(tmp_path: Path, seed: int, save_every: int) -> None:
    reference = train(tmp_path / "unbroken", save_every=save_every)
    after_end = [torch.rand(3), float(np.random.normal()), random.gauss(0, 1)]
    for step in sorted(random.Random(seed).sample(range(1, STEPS), 3)):
        with pytest.raises(Killed):
            train(tmp_path / "broken", step, save_every)
    training = train(tmp_path / "broken", save_every=save_every)

    assert_equal(training, reference)
    assert torch.equal(torch.rand(3), after_end[0])  # and the generators stand where they stood
    assert [float(np.random.normal()), random.gauss(0, 1)] == after_end[1:]
    series = [(tmp_path / name / SERIES).read_text(encoding="utf-8").splitlines() for name in ("unbroken", "broken")]
    assert series[0] == series[1]
    assert len(series[0]) == 2 * STEPS + (STEPS // save_every if save_every else 0)


def test_the_comparison_can_fail(tmp_path: Path) -> None:
    """Without the generators' states the same kill shows."""
    reference = train(tmp_path / "unbroken")
    with pytest.raises(Killed):
        train(tmp_path / "broken", 20)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(GlobalGenerators, "load_state_dict", lambda self, state: None)
        training = train(tmp_path / "broken")
    with pytest.raises(AssertionError):
        assert_equal(training, reference)


def test_a_finished_repetition_leaves_the_generators_where_it_did(tmp_path: Path) -> None:
    train(tmp_path)
    expected = torch.rand(3)
    seed_everything(1)
    with open_run(tmp_path, checkpoint_interval=0.0) as run:
        run.restore_generators()
    assert torch.equal(torch.rand(3), expected)
