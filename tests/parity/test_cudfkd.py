"""Every recorded fixture of CuDFKD and CMI, one test each; and proof that a wrong coefficient would be noticed."""

from __future__ import annotations

import random

import pytest
import torch

from common.losses import inversion
from curriculum_dfkd import curriculum, learner, objectives
from curriculum_dfkd.synthesis import cmi, deepinversion, generative
from repro.parity import PASSED, load_adapters, open_recording, replay, select_entries
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


# --- recordings of other shapes and arguments than those here ---------------------------------------------------------


@pytest.fixture
def recorded(adapters):
    """Fixture by the rest of its id, to be changed, and what its adapter makes of it."""

    def opened(name):
        entry = ENTRIES[f"cudfkd.{name}"]
        return open_recording(entry, adapters[entry.id]).fixture, adapters[entry.id].compute

    return opened


def drawn_jitter(seed, height, width):
    rng = random.Random(seed)
    rows, columns = rng.randint(-(height // 8), height // 8), rng.randint(-(width // 8), width // 8)
    return [rows, columns, int(rng.random() > 0.5)]


def test_jitter_of_images_that_are_not_square(recorded):
    fixture, compute = recorded("util.jitter_flip")
    seeds, images = [7, 8, 9, 10, 11], torch.rand(2, 3, 24, 40)
    jitters = torch.tensor([drawn_jitter(seed, 24, 40) for seed in seeds])
    fixture.args["seeds"], fixture.inputs = seeds, {"x": images, "jitter": jitters}
    outputs = compute(fixture)
    for number, (rows, columns, flip) in enumerate(jitters.tolist()):
        wanted = torch.roll(images, (rows, columns), (2, 3))
        assert torch.equal(outputs[f"out.x_{number}"], wanted.flip(3) if flip else wanted)


def test_inversion_of_images_of_another_size(recorded):
    fixture, compute = recorded("step.deepinv")
    fixture.args |= {"batch": 3, "iterations": 1, "python_random_seed": 9}
    jitter = torch.tensor([drawn_jitter(9, 24, 24)])
    fixture.inputs = {"x0": torch.randn(3, 3, 24, 24), "targets": torch.tensor([0, 2, 4]), "jitter": jitter}
    outputs = compute(fixture)
    assert outputs["out.synthetic"].shape == (3, 3, 24, 24) and outputs["out.pool_u8_first"].shape == (24, 24, 3)


def test_threshold_and_normalisation_may_belong_to_different_data_sets(recorded):
    fixture, compute = recorded("step.cudfkd_kd_l1")
    before = compute(fixture)
    fixture.args["dataset"] = "cifar100"
    after = compute(fixture)
    assert torch.equal(before["out.images_0"], after["out.images_0"])
    assert after["out.lambda_0"] == pytest.approx(2 + 2e-5 * 30000) != before["out.lambda_0"]


def test_a_bank_filled_by_no_multiple_of_the_batch(recorded):
    fixture, compute = recorded("step.cmi")
    whole = compute(fixture)
    fixture.args["bank_filled"], fixture.inputs["bank"] = 7, fixture.inputs["bank"][:7]
    fixture.inputs["bank_index"] = fixture.inputs["bank_index"].clamp(max=6)
    assert (compute(fixture)["out.ptr"], whole["out.ptr"]) == (11, 0)


def test_batches_of_generator_and_student_may_differ(recorded):
    fixture, compute = recorded("step.dfad")
    fixture.inputs["z_kd"] = torch.randn(2, 3, 12)
    outputs = compute(fixture)
    assert (len(outputs["out.t_logits_synth_0"]), len(outputs["out.t_logits_0"])) == (5, 3)
