"""Every recorded fixture of CDL-Prompt, one test each; and proof that a wrong coefficient would be noticed."""

from __future__ import annotations

import pytest

import prompt_distill.distillation as distillation_module
import prompt_distill.learner as learner_module
import prompt_distill.network as network_module
import prompt_distill.parity.protocol as protocol_adapters
import prompt_distill.prompts.apt as apt_module
import prompt_distill.prompts.coda as coda_module
import prompt_distill.prompts.pools as pools_module
import prompt_distill.second_head as second_head_module
import prompt_distill.task_state as task_state_module
from prompt_distill.network import Output
from prompt_distill.vit import Prefix
from repro.parity import PASSED, load_adapters, open_recording, replay, select_entries
from repro.registry import read_registry
from repro.self_test import KNOWN, SENSITIVE, self_test
from tests.helpers import REPOSITORY

pytestmark = pytest.mark.parity

SUBPROJECTS = [subproject for subproject in read_registry(REPOSITORY) if subproject.paper == "prompt_distill"]
ENTRIES = {entry.id: entry for entry in select_entries(SUBPROJECTS, REPOSITORY)}


@pytest.fixture(scope="module")
def adapters():
    return load_adapters(SUBPROJECTS, ENTRIES.values())


def test_all_75_fixtures_are_here():
    assert len(ENTRIES) == 75


@pytest.mark.parametrize("name", ENTRIES)
def test_fixture(name, adapters):
    outcome = replay(ENTRIES[name], adapters)
    assert outcome.status == PASSED, f"{outcome.reasons} {outcome.trace}"


def scaled(value, factor: float = 1.01):
    """1 % more of whatever a function returns."""
    if isinstance(value, Prefix):
        return Prefix(value.keys * factor, value.values)
    if isinstance(value, list):
        return [each * factor for each in value]
    return value * factor


MUTATIONS = {
    "cross-entropy": (learner_module, "current_cross_entropy", ["step.kd.apt", "step.cdl_prompt.l2p"]),
    "distillation": (
        distillation_module,
        "distillation_loss",
        ["step.kd.coda_task2", "step.d_cdl.dual", "step.fitnets.coda"],
    ),
    "decoupled": (distillation_module, "decoupled_distillation_loss", ["step.dkd.coda_task2"]),
    "fused maps": (distillation_module, "hierarchical_loss", ["step.reviewkd.coda"]),
    "fitnets": (distillation_module.FitNets, "feature_loss", ["step.fitnets.coda", "loss.fitnets"]),
    "mapping": (second_head_module.CDLPrompt, "mapped_from", ["step.cdl_prompt.coda", "module.prompt_mapping"]),
    "mean of both heads": (second_head_module.CDLPrompt, "predict", ["step.cdl_prompt.dual", "loop.cdl_prompt_coda"]),
    "components": (coda_module.ComponentPools, "prefix", ["module.coda.train_task2", "step.d_cdl.coda"]),
    "penalty": (coda_module, "orthogonality_penalty", ["module.coda.train_task2_ortho"]),
    "own keys": (pools_module, "own_keys_distance", ["module.l2p.train_key_mean", "step.d_cdl.l2p"]),
    "all pairs": (pools_module, "all_pairs_distance", ["module.l2p.train_key_sum", "step.cdl_prompt.l2p"]),
    "merging": (apt_module, "merged", ["loop.d_cdl_apt"]),
    "head": (network_module, "classify", ["step.d_cdl.apt", "step.kd.apt"]),
    "rates": (task_state_module, "epoch_rates", ["loop.kd_coda"]),
    "rates alone": (protocol_adapters, "epoch_rates", ["optim.cosine_k20"]),
}


@pytest.mark.parametrize("what", MUTATIONS)
def test_one_percent_in_one_coefficient_is_noticed(what, adapters, monkeypatch):
    place, name, ids = MUTATIONS[what]
    original = getattr(place, name)
    monkeypatch.setattr(place, name, lambda *arguments, **keywords: scaled(original(*arguments, **keywords)))
    for id in ids:
        assert replay(ENTRIES[f"prompt_distill.{id}"], adapters).status != PASSED, id


def test_when_dualprompts_prefixes_are_read_is_noticed(adapters, monkeypatch):
    """D24: after the teacher's update on one device, before it on several."""
    monkeypatch.setattr(pools_module.DualPrompt, "follows_update", False)
    assert replay(ENTRIES["prompt_distill.step.cdl_prompt.dual"], adapters).status != PASSED
    assert replay(ENTRIES["prompt_distill.step.cdl_prompt.coda"], adapters).status == PASSED


def test_the_time_of_apts_merging_is_noticed(adapters, monkeypatch):
    """D9: a teacher that has merged before it distils is another teacher."""
    original = learner_module.PromptLearner.infer_teacher

    def live(learner, images, query) -> Output:
        learner.teacher.prompt.finish_task()
        return original(learner, images, query)

    monkeypatch.setattr(learner_module.PromptLearner, "infer_teacher", live)
    assert replay(ENTRIES["prompt_distill.loop.d_cdl_apt"], adapters).status != PASSED


@pytest.mark.parametrize(
    "name", ["step.cdl_prompt.dual_task2", "step.d_cdl.apt_task2", "data.split_file_counts", "module.dual.eval"]
)
def test_disturbed_inputs_are_noticed(name, adapters):
    expected = KNOWN if name == "module.dual.eval" else SENSITIVE
    assert self_test(ENTRIES[f"prompt_distill.{name}"], adapters).status == expected


def test_an_adapter_sees_no_outputs():
    for entry in ENTRIES.values():
        fixture = open_recording(entry).fixture
        assert not any(key.startswith(("out.", "grad.", "after.")) for key in [*fixture.inputs, *fixture.params])
        assert "grad_elements" not in fixture.args
