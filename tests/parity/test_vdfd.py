"""Every recorded fixture of VDFD, one test each; and proof that a wrong coefficient would be noticed."""

from __future__ import annotations

import pytest
import torch

import classification.vdfd.learner as learner_module
import classification.vdfd.vdfd_learner as vdfd_module
from classification.vdfd import optimization
from common.continual import gradients, hypermodel, memory
from repro.parity import PASSED, WAITING, load_adapters, replay, select_entries
from repro.registry import read_registry
from repro.self_test import self_test
from tests.helpers import REPOSITORY

pytestmark = pytest.mark.parity

SUBPROJECTS = [subproject for subproject in read_registry(REPOSITORY) if subproject.paper == "vdfd"]
ENTRIES = {entry.id: entry for entry in select_entries(SUBPROJECTS, REPOSITORY)}


@pytest.fixture(scope="module")
def adapters():
    return load_adapters(SUBPROJECTS, ENTRIES.values())


@pytest.mark.parametrize("name", ENTRIES)
def test_fixture(name, adapters):
    outcome = replay(ENTRIES[name], adapters)
    if outcome.status == WAITING:
        pytest.skip(f"no counterpart yet: {outcome.reasons[0]}")
    assert outcome.status == PASSED, f"{outcome.reasons} {outcome.trace}"


def scaled(function, factor: float = 1.01):
    return lambda *arguments, **keywords: function(*arguments, **keywords) * factor


MUTATIONS = {
    "regulariser": (
        vdfd_module,
        "quadratic_regulariser",
        ["vdfd.reg.task_t3", "vdfd.step.task_task3", "vdfd.step.class_task3"],
    ),
    "functional": (memory, "functional", ["vdfd.reg.class_t3", "vdfd.traj.task"]),
    "cross-entropy": (learner_module, "local_cross_entropy", ["vdfd.step.task_task1", "vdfd.traj.class_ssl"]),
    "row means": (gradients, "_conv_row_gradients", ["vdfd.importance.task", "vdfd.after_task.class"]),
    "affinity": (vdfd_module, "class_affinity", ["vdfd.reg.task_t1"]),
    "learning rate": (optimization, "parameter_groups", ["vdfd.optim.task_groups"]),
    "decay": (optimization.LaggedMultiStep, "step", ["vdfd.sched.task_multistep", "vdfd.sched.class_multistep"]),
    "hypermodel": (hypermodel.GraphLayer, "forward", ["vdfd.gcn.task_forward", "vdfd.gcn.class_forward"]),
}


@pytest.mark.parametrize("what", MUTATIONS)
def test_one_percent_in_one_coefficient_is_noticed(what, adapters, monkeypatch):
    place, name, ids = MUTATIONS[what]
    original = getattr(place, name)
    if what == "decay":

        def changed(schedule, epoch):
            original(schedule, epoch)
            for group in schedule.optimizer.param_groups:
                group["lr"] *= 1.01

    elif what == "learning rate":

        def changed(*arguments, **keywords):
            groups = original(*arguments, **keywords)
            groups[1]["weight_decay"] *= 1.01
            return groups

        import classification.parity.training as adapters_of_training

        monkeypatch.setattr(adapters_of_training, name, changed)
    else:
        changed = scaled(original)
    monkeypatch.setattr(place, name, changed)
    for id in ids:
        assert replay(ENTRIES[id], adapters).status != PASSED, id


@pytest.mark.parametrize(
    "name", ["vdfd.reg.task_t3", "vdfd.importance.class", "vdfd.step.class_ssl_task2", "vdfd.split.random"]
)
def test_disturbed_inputs_are_noticed(name, adapters):
    assert self_test(ENTRIES[name], adapters).status == "sensitive"


def test_an_adapter_sees_no_outputs():
    from repro.parity import open_recording

    for entry in ENTRIES.values():
        fixture = open_recording(entry).fixture
        assert not any(key.startswith(("out.", "grad.", "after.")) for key in [*fixture.inputs, *fixture.params])
        assert "storage" not in fixture.args and "n_params" not in fixture.args


def test_the_regulariser_is_the_literal_formula(adapters):
    """The collapsed form against the one that widens every tensor, in float64, gradients included."""
    from benchmarks.literal_vdfd import literal_regulariser
    from classification.parity.building import FixedData, built_learner, stored_tasks
    from repro.parity import open_recording

    fixture = open_recording(ENTRIES["vdfd.reg.task_t3"]).fixture
    with built_learner(fixture, FixedData({})) as learner:
        learner.memory.tasks = stored_tasks(fixture, learner.memory.names)
        learner.prototypes = [learner.stored_prototypes(position) for position in range(3)]
        learner.set_constants()
        ours = learner.penalty()
        ours.backward()
        gradients = {name: p.grad.clone() for name, p in learner.model.named_parameters() if p.grad is not None}
        learner.model.zero_grad()
        literal = literal_regulariser(
            learner.model, learner.hypermodel, learner.memory.tasks, learner.memory.names, learner.config.epsilons
        )
        literal.backward()
        torch.testing.assert_close(ours, literal, rtol=1e-4, atol=1e-4)
        for name, gradient in gradients.items():
            torch.testing.assert_close(
                gradient, dict(learner.model.named_parameters())[name].grad, rtol=1e-3, atol=1e-4
            )


def test_the_small_swin_has_the_classes_that_its_other_recording_names(adapters):
    from repro.parity import open_recording

    adapter = adapters["vdfd.swin.importance"]
    fixture = open_recording(ENTRIES["vdfd.swin.importance"], adapter).fixture
    fixture.base.args["classes"] = 5
    assert len(adapter.compute(fixture)["out.norm.weight"]) == 5
