"""Evidence for claims about released code: recorded numbers of the originals, with parts of the input disturbed."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from repro import parity
from repro.registry import read_registry
from tests.helpers import REPOSITORY

pytestmark = pytest.mark.parity

STORED = 3


def disturbed(name: str, value: Tensor, task: int) -> Tensor:
    """A stored summary times 1.1: those of one task stand in tensors of their own, or in a row of common ones."""
    if name.startswith(f"reg{task}."):
        return value * 1.1
    if name.startswith("reg."):
        assert len(value) == STORED
        return torch.cat([value[:task], value[task : task + 1] * 1.1, value[task + 1 :]])
    return value


def stays_equal_when_disturbed(id: str, task: int) -> bool:
    """Whether our counterpart still gives the recorded numbers after a stored task's summaries were changed by 10 %."""
    subprojects = read_registry(REPOSITORY)
    (entry,) = [one for one in parity.select_entries(subprojects, REPOSITORY, id) if one.id == id]
    adapters = parity.load_adapters(subprojects, [entry])
    recording = parity.open_recording(entry, adapters[id])
    fixture = recording.fixture
    inputs = {name: disturbed(name, value, task) for name, value in fixture.inputs.items()}
    assert any(not inputs[name].equal(value) for name, value in fixture.inputs.items())
    assert parity.compare(entry, recording, adapters[id]).passed
    return parity.compare(entry, recording, adapters[id], dataclasses.replace(fixture, inputs=inputs)).passed


def test_the_class_incremental_regulariser_sees_the_last_stored_task_only():
    seen = [not stays_equal_when_disturbed("vdfd.reg.class_t3", task) for task in range(STORED)]
    assert seen == [False, False, True]


def test_the_task_incremental_regulariser_sees_every_stored_task():
    seen = [not stays_equal_when_disturbed("vdfd.reg.task_t3", task) for task in range(STORED)]
    assert seen == [True, True, True]
