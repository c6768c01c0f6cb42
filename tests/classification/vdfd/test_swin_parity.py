"""The recorded Swin fixtures, and proof that one percent in one coefficient would be noticed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from classification.vdfd import optimization
from common.backbones import swin_vdfd
from common.continual import memory, summary
from repro.parity import PASSED, load_adapters, replay, select_entries
from repro.registry import read_registry
from repro.self_test import SENSITIVE, self_test
from tests.helpers import REPOSITORY

pytestmark = pytest.mark.parity

SUBPROJECTS = [subproject for subproject in read_registry(REPOSITORY) if subproject.paper == "vdfd"]
ENTRIES = {e.id: e for e in select_entries(SUBPROJECTS, REPOSITORY) if ".swin" in e.id}
SMALL = [name for name in ENTRIES if name != "vdfd.swin.tiny_forward"]


def scaled(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *arguments, **keywords: function(*arguments, **keywords) * 1.01


@pytest.fixture(scope="module")
def adapters():
    return load_adapters(SUBPROJECTS, ENTRIES.values())


def test_there_are_six():
    assert len(ENTRIES) == 6


@pytest.mark.parametrize("name", ENTRIES)
def test_fixture(name, adapters):
    outcome = replay(ENTRIES[name], adapters)
    assert outcome.status == PASSED, f"{outcome.reasons} {outcome.trace}"


@pytest.mark.parametrize("name", SMALL)
def test_disturbed_inputs_and_weights_are_noticed(name, adapters):
    assert self_test(ENTRIES[name], adapters).status == SENSITIVE


@pytest.mark.parametrize(
    ("place", "name", "noticed"),
    [
        (memory, "matrix_functional", "vdfd.swin.reg"),
        (memory, "functional", "vdfd.swin.reg"),
        (summary.Summary, "of", "vdfd.swin.importance"),
        (optimization.WarmupCosine, "_rate", "vdfd.sched.swin_cosine"),
        (swin_vdfd.WindowAttention, "forward", "vdfd.swin.small_forward"),
        (swin_vdfd.PatchMerging, "forward", "vdfd.swin.small_forward"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_one_percent_in_one_coefficient_is_noticed(place, name, noticed, adapters, monkeypatch):
    monkeypatch.setattr(place, name, scaled(getattr(place, name)))
    assert replay(ENTRIES[noticed], adapters).status != PASSED


def test_a_mask_too_weak_is_noticed(adapters, monkeypatch):
    monkeypatch.setattr(swin_vdfd, "SEPARATED", 0.0)
    # the recorded rule keeps the masks that the network computed
    assert replay(ENTRIES["vdfd.swin.small_forward"], adapters).status != PASSED


def test_starts_drawn_in_one_call_are_noticed(adapters, monkeypatch):
    import torch

    import classification.parity.swin as swin_adapters

    def drawn_at_once(matrix, rank):
        return torch.randn(len(matrix), min(matrix.shape[-2:]), rank)

    monkeypatch.setattr(swin_adapters, "draw_start", drawn_at_once)
    assert replay(ENTRIES["vdfd.swin.svd"], adapters).status != PASSED
