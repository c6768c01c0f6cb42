"""The recorded Adam-NSCL fixtures, and proof that one percent in one coefficient would be noticed."""

from __future__ import annotations

import pytest

import classification.adam_nscl.learner as learner_module
import classification.adam_nscl.projection as projection_module
import classification.parity.nscl as nscl_adapters
from classification.adam_nscl.learner import AdamNSCL
from classification.adam_nscl.optimizer import ProjectedAdam
from repro.parity import PASSED, load_adapters, replay, select_entries
from repro.registry import read_registry
from repro.self_test import SENSITIVE, self_test
from tests.helpers import REPOSITORY

pytestmark = pytest.mark.parity

SUBPROJECTS = [subproject for subproject in read_registry(REPOSITORY) if subproject.paper == "vdfd"]
ENTRIES = {e.id: e for e in select_entries(SUBPROJECTS, REPOSITORY) if e.id.startswith("vdfd.nscl.")}


@pytest.fixture(scope="module")
def adapters():
    return load_adapters(SUBPROJECTS, ENTRIES.values())


@pytest.mark.parametrize("name", ENTRIES)
def test_fixture(name, adapters):
    outcome = replay(ENTRIES[name], adapters)
    assert outcome.status == PASSED, f"{outcome.reasons} {outcome.trace}"


@pytest.mark.parametrize("name", ENTRIES)
def test_disturbed_inputs_and_weights_are_noticed(name, adapters):
    assert self_test(ENTRIES[name], adapters).status == SENSITIVE


@pytest.mark.parametrize(
    ("place", "name", "noticed"),
    [
        (projection_module, "mean_patches", "vdfd.nscl.after_task"),
        (AdamNSCL, "measure_batch_norm_importance", "vdfd.nscl.after_task"),
        (nscl_adapters, "projection_onto", "vdfd.nscl.projection"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_one_percent_in_one_coefficient_is_noticed(place, name, noticed, adapters, monkeypatch):
    original = getattr(place, name)
    monkeypatch.setattr(place, name, lambda *arguments: original(*arguments) * 1.01)
    assert replay(ENTRIES[noticed], adapters).status != PASSED


def test_updates_one_percent_too_long_are_noticed(adapters, monkeypatch):
    original = ProjectedAdam._updates
    monkeypatch.setattr(ProjectedAdam, "_updates", lambda *arguments: [1.01 * u for u in original(*arguments)])
    assert replay(ENTRIES["vdfd.nscl.optimizer"], adapters).status != PASSED


def test_a_plain_update_in_place_of_a_projected_one_is_noticed(adapters, monkeypatch):
    original = learner_module.ProjectedAdam
    monkeypatch.setattr(learner_module, "ProjectedAdam", lambda groups, projections: original(groups, {}))
    assert replay(ENTRIES["vdfd.nscl.step"], adapters).status != PASSED
