"""Every recorded fixture of CuDFKD and CMI, one test each; and proof that a wrong coefficient would be noticed."""

from __future__ import annotations

import pytest

from common.losses import inversion
from curriculum_dfkd import curriculum, learner, objectives
from curriculum_dfkd.synthesis import cmi, deepinversion, generative
from repro.parity import PASSED, load_adapters, replay, select_entries
from repro.registry import read_registry
from repro.self_test import self_test
from tests.helpers import REPOSITORY

pytestmark = pytest.mark.parity

SUBPROJECTS = [subproject for subproject in read_registry(REPOSITORY) if subproject.paper == "cudfkd"]
ENTRIES = {entry.id: entry for entry in select_entries(SUBPROJECTS, REPOSITORY)}


@pytest.fixture(scope="module")
def adapters():
    return load_adapters(SUBPROJECTS, ENTRIES.values())


def test_all_recordings_are_there():
    assert len(ENTRIES) == 93


@pytest.mark.parametrize("name", ENTRIES)
def test_fixture(name, adapters):
    outcome = replay(ENTRIES[name], adapters)
    assert outcome.status == PASSED, f"{outcome.reasons} {outcome.trace}"


MUTATIONS = {
    "statistics": (inversion, "batch_norm_distance", ["cudfkd.step.dfq", "cudfkd.step.cudfkd_synth"]),
    "balance": (generative, "negative_class_entropy", ["cudfkd.step.dafl", "cudfkd.step.cudfkd_synth_noadv"]),
    "activation": (generative, "activation_loss", ["cudfkd.step.cudfkd_synth_js"]),
    "decision": (generative, "sample_kl", ["cudfkd.step.cudfkd_synth", "cudfkd.step.cmi"]),
    "competition": (deepinversion, "clamped_jensen_shannon", ["cudfkd.step.deepinv"]),
    "student's KL": (curriculum, "temperature_kl", ["cudfkd.step.cudfkd_kd_kl", "cudfkd.curriculum.kd_kl_a"]),
    "vanilla KL": (objectives, "temperature_kl", ["cudfkd.step.vanilla_kd"]),
    "CMI's statistics": (cmi, "batch_norm_distance", ["cudfkd.step.cmi_nobank"]),
    "threshold": (curriculum.Pace, "at", ["cudfkd.step.cudfkd_kd_l1", "cudfkd.curriculum.lambda"]),
}


@pytest.mark.parametrize("what", MUTATIONS)
def test_one_percent_in_one_coefficient_is_noticed(what, adapters, monkeypatch):
    place, name, ids = MUTATIONS[what]
    original = getattr(place, name)
    monkeypatch.setattr(place, name, lambda *arguments, **keywords: original(*arguments, **keywords) * 1.01)
    for id in ids:
        assert replay(ENTRIES[id], adapters).status != PASSED, id


def test_a_forgotten_update_is_noticed(adapters, monkeypatch):
    original = learner.DataFreeDistillation.descend
    monkeypatch.setattr(learner.DataFreeDistillation, "descend", lambda loop, loss: original(loop, loss * 1.01))
    assert replay(ENTRIES["cudfkd.step.zskt"], adapters).status != PASSED


@pytest.mark.parametrize("name", ["step.cmi", "schedule.lr", "membank.policy", "init.vgg11"])
def test_disturbed_inputs_are_noticed(name, adapters):
    assert self_test(ENTRIES[f"cudfkd.{name}"], adapters).status == "sensitive"
