"""Every recorded fixture of RFD, R-DFCIL and ABD; and proof that a wrong coefficient would be noticed."""

from __future__ import annotations

import pytest
import torch

import rfd.factors as factors_module
import rfd.inversion as inversion_module
import rfd.learning.fixed as fixed
import rfd.learning.methods as methods
import rfd.losses as losses
import rfd.parity.schedules as schedule_adapters
from repro.parity import PASSED, load_adapters, open_recording, replay, select_entries
from repro.registry import read_registry
from repro.self_test import self_test
from tests.helpers import REPOSITORY

pytestmark = pytest.mark.parity

SUBPROJECTS = [subproject for subproject in read_registry(REPOSITORY) if subproject.paper == "rfd"]
ENTRIES = {entry.id: entry for entry in select_entries(SUBPROJECTS, REPOSITORY)}


@pytest.fixture(scope="module")
def adapters():
    return load_adapters(SUBPROJECTS, ENTRIES.values())


@pytest.mark.parametrize("name", ENTRIES)
def test_fixture(name, adapters):
    outcome = replay(ENTRIES[name], adapters)
    assert outcome.status == PASSED, f"{outcome.reasons} {outcome.trace}"


def scaled(function):
    return lambda *arguments, **keywords: function(*arguments, **keywords) * 1.01


MUTATIONS = {
    "relation distillation": (methods, "relation_distillation_loss", ["rfd.step.train", "rfd.step.finetune"]),
    "feature distillation": (methods, "feature_distillation_loss", ["rfd.step.train", "rfd.step.sequence"]),
    "local cross-entropy": (methods, "local_cross_entropy", ["rfd.step.train", "rfd.abd_port.step.train"]),
    "balanced cross-entropy": (methods, "balanced_cross_entropy", ["rfd.step.finetune", "rfd.abd_port.step.train"]),
    "hard distillation": (methods, "hard_distillation_loss", ["rfd.rdfcil.step.train", "rfd.rdfcil.step.finetune"]),
    "soft targets": (fixed, "distillation_loss", ["rfd.abd.step.lwf", "rfd.abd.step.deepinv"]),
    "binary loss": (fixed, "multi_class_binary_loss", ["rfd.abd.step.lwf_mc"]),
    "weighted cross-entropy": (fixed, "weighted_cross_entropy", ["rfd.abd.step.abd", "rfd.abd.step.task1"]),
    "statistics": (inversion_module, "batch_norm_divergence", ["rfd.inv.train", "rfd.abd.inv.train"]),
    "class balance": (inversion_module, "class_balance_loss", ["rfd.inv.train"]),
    "correlation": (losses, "pearson_correlation", ["rfd.loss.dist", "rfd.loss.dist_inter", "rfd.loss.dist_intra"]),
    "learning rate": (schedule_adapters, "learning_rate", ["rfd.schedule.lr"]),
    "share of old classes": (factors_module, "_adaptive", ["rfd.schedule.loss_factors", "rfd.rdfcil.loss_factors"]),
}


@pytest.mark.parametrize("what", MUTATIONS)
def test_one_percent_in_one_coefficient_is_noticed(what, adapters, monkeypatch):
    place, name, ids = MUTATIONS[what]
    original = getattr(place, name)
    changed = scaled(original)
    if what == "share of old classes":

        def changed(n_new, n_old):
            return tuple(1.01 * value for value in original(n_new, n_old))

    monkeypatch.setattr(place, name, changed)
    for id in ids:
        assert replay(ENTRIES[id], adapters).status != PASSED, id


@pytest.mark.parametrize("name", ["rfd.step.finetune", "rfd.abd.step.lwf_mc", "rfd.loss.lfd", "rfd.data.default_order"])
def test_disturbed_inputs_are_noticed(name, adapters):
    assert self_test(ENTRIES[name], adapters).status == "sensitive"


def test_tests_inside_the_finetuning_phase_put_the_traced_backbone_into_training_mode(adapters):
    """The originals' trainer does so after every test; the recorded intervals never show it."""
    fixture = open_recording(ENTRIES["rfd.flow.trace"]).fixture
    fixture.args |= {"max_epochs": 4, "check_val_every_n_epoch": 1, "num_tasks": 3}
    rows = adapters["rfd.flow.trace"].compute(fixture)["out.train"]
    finetuning, backbone_trains = rows[:, 3].reshape(3, 4).tolist(), rows[:, 4].reshape(3, 4).tolist()
    assert finetuning == [[0, 0, 1, 1]] * 3
    assert backbone_trains == [[1, 1, 0, 1]] * 3


def test_shares_of_classes_survive_single_precision(adapters):
    fixture = open_recording(ENTRIES["rfd.data.split_sizes"]).fixture
    fixture.inputs["cases"] = torch.tensor([[100, 6, 0.7]])
    assert adapters["rfd.data.split_sizes"].compute(fixture)["out.sizes"][0, :7].tolist() == [70, 6, 6, 6, 6, 6, 0]


def test_an_adapter_sees_no_outputs(adapters):
    for id, entry in ENTRIES.items():
        fixture = open_recording(entry, adapters[id]).fixture
        for one in (fixture, fixture.base):
            if one is not None:
                assert not any(key.startswith(("out.", "grad.", "after.")) for key in [*one.inputs, *one.params])
                assert not any(key.startswith("factors.") or key == "summary_text" for key in one.args)
