"""One call seeds every generator; their states survive a checkpoint file."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
import torch

from common.training.seeding import GlobalGenerators, draw_seed, seed_everything, seed_generators

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def _leave_generators_and_flags_alone():
    generators = GlobalGenerators()
    state, cudnn = generators.state_dict(), torch.backends.cudnn
    flags = cudnn.deterministic, cudnn.benchmark
    yield
    generators.load_state_dict(state)
    cudnn.deterministic, cudnn.benchmark = flags


def draws() -> list[list[float]]:
    """From Python, NumPy, torch; an odd number of Gaussians, because two of the three draw them in pairs."""
    return [
        [random.random(), random.gauss(0, 1)],
        [float(np.random.rand()), *map(float, np.random.normal(size=3))],
        [*torch.rand(3).tolist(), *torch.randn(17).tolist()],
    ]


def through_a_file(state: dict) -> dict:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_every_generator_repeats_after_seeding() -> None:
    seed_everything(3)
    first, further = draws(), draws()
    seed_everything(3)
    assert draws() == first
    assert all(a != b for a, b in zip(first, further, strict=True))
    seed_everything(4)
    assert all(a != b for a, b in zip(first, draws(), strict=True))


@pytest.mark.parametrize("seed", [0, 2**32 + 5])
def test_any_seed_is_accepted(seed: int) -> None:
    seed_everything(seed)


def test_seeding_makes_cudnn_deterministic() -> None:
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = False, True
    seed_everything(0)
    assert torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.benchmark


def test_another_seed_inside_a_run_leaves_cudnn_alone() -> None:
    seed_everything(3)
    expected = draws()
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = False, True
    seed_generators(3)
    assert draws() == expected
    assert torch.backends.cudnn.benchmark and not torch.backends.cudnn.deterministic


def test_states_pass_through_a_checkpoint_exactly() -> None:
    seed_everything(1)
    draws()  # half of a pair of Gaussians is now in store
    generators = GlobalGenerators()
    state = through_a_file(generators.state_dict())
    expected = [draws(), draws()]
    seed_everything(2)
    generators.load_state_dict(state)
    assert [draws(), draws()] == expected
    generators.load_state_dict(state)  # loading does not use the state up
    assert draws() == expected[0]


def test_a_saved_state_does_not_follow_the_generators() -> None:
    seed_everything(1)
    generators = GlobalGenerators()
    state = generators.state_dict()
    expected = draws()
    generators.load_state_dict(state)
    assert draws() == expected


def test_the_runs_own_device_goes_on_whatever_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saved on device 1 of two, loaded on device 0 of one: stand-ins for CUDA's generators."""
    states, current = {0: torch.tensor([10]), 1: torch.tensor([11])}, [1]

    def place(device: int | None) -> int:
        return current[0] if device is None else device

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(states))
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device=None: states[place(device)])
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda new, device=None: states.update({place(device): new}))
    state = through_a_file(GlobalGenerators().state_dict())
    states.pop(1)
    current[0] = 0
    GlobalGenerators().load_state_dict(state)
    assert {device: int(value) for device, value in states.items()} == {0: 11}


def test_drawn_seeds_come_from_torch_and_differ() -> None:
    seed_everything(5)
    seeds = [draw_seed() for _ in range(50)]
    assert len(set(seeds)) == 50
    assert all(0 <= seed < 2**62 for seed in seeds)
    random.seed(9)
    np.random.seed(9)
    torch.manual_seed(5)
    assert [draw_seed() for _ in range(50)] == seeds
