"""The machinery of `repro parity`, with fixtures and adapters made on the spot."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from common.parity import Adapter, Fixture
from common.training.errors import UserError
from repro import parity
from repro.comparison import compare_tensors
from repro.parity import FAILED, MISSING, PASSED, WAITING
from repro.recorded import MalformedFixture, read_manifest

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("toy_parity")]

REAL_FIXTURES = Path(parity.__file__).parent / "fixtures"


def replay(entry, compute, derive=None):
    return parity.replay(entry, {entry.id: Adapter(compute, derive)})


def product(fixture: Fixture):
    return {"out.y": fixture.inputs["x"] * fixture.params["w"], "args.storage": 3}


# --- what is compared ------------------------------------------------------------------------------------------------


def test_a_faithful_adapter_passes(recorder):
    outcome = replay(recorder.add(), product)
    assert (outcome.status, outcome.compared, outcome.max_abs) == (PASSED, 2, 0.0)


def test_one_percent_off_fails_and_is_measured(recorder):
    outcome = replay(recorder.add(), lambda f: {**product(f), "out.y": 1.01 * f.inputs["x"] * f.params["w"]})
    assert outcome.status == FAILED
    assert math.isclose(outcome.max_rel, 0.01, rel_tol=1e-3)
    assert "out.y: 6 of 6 numbers differ" in outcome.reasons[0]


def test_one_wrong_element_is_enough(recorder):
    def compute(fixture):
        outputs = product(fixture)
        outputs["out.y"][3] *= 1.01
        return outputs

    assert "1 of 6 numbers" in replay(recorder.add(), compute).reasons[0]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"out.y": torch.zeros(2, 3)}, "shape (2, 3), recorded (6,)"),
        ({"out.y": torch.full((6,), math.nan)}, "6 of 6"),
        ({"out.y": torch.full((6,), math.inf)}, "6 of 6"),
        ({"out.z": torch.zeros(1)}, "out.z: returned, but not recorded"),
        ({"args.storage": 4}, "args.storage: 4, recorded 3"),
        ({"args.storage": "3"}, "args.storage"),
        ({"args.storage": True}, "args.storage"),
        ({"args.other": 1}, "args.other: returned, but not recorded"),
    ],
)
def test_deviations_are_named(recorder, change, expected):
    outcome = replay(recorder.add(), lambda fixture: {**product(fixture), **change})
    assert outcome.status == FAILED
    assert any(expected in reason for reason in outcome.reasons)


@pytest.mark.parametrize("name", ["out.y", "args.storage"])
def test_a_missing_output_or_answer_fails(recorder, name):
    outcome = replay(recorder.add(), lambda f: {key: value for key, value in product(f).items() if key != name})
    assert outcome.status == FAILED and outcome.reasons == (f"{name}: not returned",)


def test_an_adapter_that_raises_fails_in_one_line_with_a_traceback(recorder):
    def compute(fixture):
        raise RuntimeError("sizes\ndisagree")

    outcome = replay(recorder.add(), compute)
    assert (outcome.status, outcome.reasons) == (FAILED, ("RuntimeError: sizes disagree",))
    assert "Traceback" in outcome.trace


def test_tolerance_is_absolute_plus_relative():
    recorded = {"x": torch.tensor([100.0, 0.0], dtype=torch.float64)}
    ours = {"x": torch.tensor([100.89, 0.09], dtype=torch.float64)}
    assert compare_tensors(ours, recorded, rtol=0.008, atol=0.1).passed
    assert not compare_tensors(ours, recorded, rtol=0.007, atol=0.1).passed
    assert not compare_tensors(ours, recorded, rtol=0.008, atol=0.08).passed


def test_integers_and_truth_values_must_be_equal_whatever_the_tolerance():
    for a, b in ((torch.tensor([7]), torch.tensor([8])), (torch.tensor([True]), torch.tensor([False]))):
        assert not compare_tensors({"x": a}, {"x": b}, rtol=1.0, atol=10.0).passed
        assert compare_tensors({"x": b}, {"x": b}, rtol=0.0, atol=0.0).passed
    large = torch.tensor([2**60])
    assert not compare_tensors({"x": large + 1}, {"x": large}, rtol=1.0, atol=1.0).passed
    assert not compare_tensors({"x": torch.tensor([7.5])}, {"x": torch.tensor([7])}, rtol=1.0, atol=1.0).passed


def test_nan_and_infinity_agree_only_with_themselves():
    special = torch.tensor([math.nan, math.inf, -math.inf])
    assert compare_tensors({"x": special}, {"x": special.clone()}, 1e-3, 1e-3).passed
    assert not compare_tensors({"x": -special}, {"x": special}, 1e-3, 1e-3).passed
    assert not compare_tensors({"x": torch.zeros(3)}, {"x": special}, 1e-3, 1e-3).passed


def test_derived_outputs_are_compared_on_both_sides(recorder):
    entry = recorder.add(outputs={"out.y": np.array([-1.0, 2.0], dtype=np.float32)}, args={})
    flipped = lambda fixture: {"out.y": torch.tensor([1.0, -2.0])}  # noqa: E731
    outer = lambda outputs: {"out.outer": torch.outer(outputs["out.y"], outputs["out.y"])}  # noqa: E731
    assert replay(entry, flipped).status == FAILED
    assert replay(entry, flipped, outer).status == PASSED
    assert replay(entry, lambda fixture: {"out.y": torch.tensor([1.0, -2.1])}, outer).status == FAILED
    assert replay(entry, flipped, lambda outputs: {}).status == FAILED, "comparing nothing proves nothing"


def test_recorded_arguments_allow_rounding_and_any_sequence(recorder):
    entry = recorder.add(args={"rate": [0.1, {"a": "b"}]}, outputs={})
    assert replay(entry, lambda fixture: {"args.rate": (0.1 + 1e-12, {"a": "b"})}).status == PASSED
    assert replay(entry, lambda fixture: {"args.rate": torch.tensor([0.1])}).status == FAILED
    assert replay(entry, lambda fixture: {"args.rate": (0.1001, {"a": "b"})}).status == FAILED
    assert replay(entry, lambda fixture: {"args.rate": (0.1, {"a": "c"})}).status == FAILED


# --- what an adapter sees --------------------------------------------------------------------------------------------


def test_adapters_never_see_outputs_or_answers(recorder):
    seen = []

    def compute(fixture):
        seen.append(fixture)
        return product(fixture)

    groups = [{"names": ["a", "b"], "lr": 0.1}, {"names": ["c"], "lr": 0.2}]
    outcome = replay(recorder.add(args={"storage": 3, "groups": groups, "batch": 4}), compute)
    (fixture,) = seen
    assert set(fixture.inputs) == {"x"} and set(fixture.params) == {"w"}
    assert fixture.args == {"batch": 4, "groups": [{"lr": 0.1}, {"lr": 0.2}]}
    assert "out.y" not in repr(fixture) and "'a'" not in repr(fixture)
    assert outcome.reasons == ("args.groups: not returned",)


def test_an_adapter_cannot_spoil_the_recording(recorder):
    def compute(fixture):
        outputs = product(fixture)
        fixture.inputs["x"].zero_()
        fixture.args["more"] = 1
        return outputs

    entry = recorder.add()
    recording = parity.open_recording(entry)
    for _ in range(2):
        assert parity.compare(entry, recording, Adapter(compute)).passed


def test_runs_are_deterministic_and_leave_torch_as_it_was(recorder):
    drawn = []

    def compute(fixture):
        drawn.append((torch.rand(1).item(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()))
        return product(fixture)

    before = (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.get_rng_state())
    entry = recorder.add()
    replay(entry, compute)
    torch.rand(1)
    state = torch.get_rng_state()
    replay(entry, compute)
    assert drawn[0] == drawn[1] and drawn[0][1:] == (1, True)
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before[:2]
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"inputs": ["in.x", "param.w", "out.y"]}, "out.y"),
        ({"outputs": []}, "out.y"),
        ({"outputs": ["out.y", "out.absent"]}, "out.absent"),
        ({"inputs": ["in.x", "param.w", "in.absent"]}, "in.absent"),
        ({"file": "absent.npz"}, "absent.npz"),
    ],
)
def test_contradictory_recordings_fail(recorder, changes, expected):
    outcome = replay(recorder.add(entry=changes), product)
    assert outcome.status == FAILED and expected in outcome.reasons[0]


@pytest.mark.parametrize(("needs_base", "expected"), [(True, "toy.other, which toy.product builds on"), (False, "")])
def test_another_recording_may_be_missing_only_where_it_is_not_needed(recorder, needs_base, expected):
    entry = recorder.add()
    adapter = Adapter(lambda fixture: product(fixture) if fixture.base is None else {}, None, "toy.other", needs_base)
    outcome = parity.replay(entry, {entry.id: adapter})
    assert outcome.status == (FAILED if needs_base else PASSED)
    assert expected in " ".join(outcome.reasons)


def test_pickled_content_is_not_loaded(recorder):
    entry = recorder.add(inputs={"in.x": np.array([{"a": 1}], dtype=object)})
    with pytest.raises(MalformedFixture, match="cannot be read"):
        parity.open_recording(entry)


@pytest.mark.parametrize("manifest", sorted(REAL_FIXTURES.glob("*/manifest.json")), ids=lambda path: path.parent.name)
def test_real_recordings_are_sound_and_give_no_answer_away(manifest, monkeypatch):
    monkeypatch.undo()  # the real table of answers
    entries = read_manifest(manifest.parent)
    assert entries
    for entry in entries:
        recording = parity.open_recording(entry)
        assert set(recording.tensors) == set(entry.outputs)
        seen = recording.fixture
        assert {f"in.{name}" for name in seen.inputs} | {f"param.{name}" for name in seen.params} == set(entry.inputs)
        hidden = {name.removeprefix("args.") for name in recording.args}
        assert set(entry.args) == hidden | set(seen.args)
        assert hidden & set(seen.args) <= {"groups"}
        assert "names" not in json.dumps(seen.args) and "keys" not in seen.args


# --- missing counterparts, selection, command line -------------------------------------------------------------------


def test_missing_counterparts_fail_unless_they_wait_for_a_later_issue(recorder):
    later = recorder.add("toy.later.one")
    assert parity.replay(recorder.add("toy.now"), {}).status == MISSING
    assert parity.replay(later, {}).status == WAITING
    assert replay(later, product).status == PASSED
    assert replay(later, lambda fixture: {}).status == FAILED, "an adapter is compared, also where none is demanded"


def test_command_line_ends_with_the_summary(toy_repository, recorder, call):
    recorder.add()
    recorder.add("toy.later.one")
    code, out, _ = call("parity", "toy")
    assert code == 0
    assert out.strip().splitlines()[-1] == "2 fixtures: 1 passed, 0 failed, 1 without counterpart (next issue)"
    recorder.add("toy.more")
    code, out, _ = call("parity")
    assert code == 1
    assert out.strip().splitlines()[-1] == (
        "3 fixtures: 1 passed, 0 failed, 1 without counterpart, 1 without counterpart (next issue)"
    )


def test_command_line_fails_on_a_wrong_number_and_explains_it(toy_repository, recorder, call):
    recorder.add(outputs={"out.y": np.ones(6, dtype=np.float32)})
    code, out, _ = call("parity", "--verbose")
    assert code == 1 and "FAIL" in out and "out.y: 6 of 6 numbers differ" in out
    content = json.loads(call("parity", "--format", "json")[1])
    assert not content["passed"] and content["fixtures"][0]["status"] == FAILED


def test_verbose_shows_the_traceback(toy_repository, recorder, call):
    recorder.add(inputs={"in.other": np.ones(2)})
    assert "Traceback" not in call("parity")[1]
    assert "Traceback" in call("parity", "--verbose")[1]


def test_other_fixture_folders(toy_repository, recorder, new_recorder, call, tmp_path):
    recorder.add(outputs={"out.y": np.ones(6, dtype=np.float32)})
    other = new_recorder(tmp_path / "elsewhere" / "toy")
    other.add()
    assert call("parity")[0] == 1
    assert call("parity", "--fixtures", tmp_path / "elsewhere" / "toy")[0] == 0
    assert call("parity", "toy.pro", "--fixtures", tmp_path / "elsewhere")[0] == 0
    assert call("parity", "toy.*duct", "--fixtures", tmp_path / "elsewhere")[0] == 0


@pytest.mark.parametrize("words", [("toy.absent",), ("--fixtures", "absent"), ("--format", "pdf")])
def test_bad_input_is_one_line(toy_repository, recorder, call, words):
    recorder.add()
    code, _, err = call("parity", *words)
    assert code == 2 and err.startswith("error: ") and len(err.strip().splitlines()) == 1


def test_a_registered_module_that_does_not_exist_is_named(repository, recorder):
    from repro.registry import read_registry

    entry = recorder.add()
    with pytest.raises(UserError, match="toy_adapters"):
        parity.load_adapters(read_registry(repository.root), [entry])


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        ([1], "'1' is no entry"),
        (["toy.product"], "is no entry"),
        ({"inputs": None}, "inputs is 'None'; wrong type"),
        ({"rtol": None}, "rtol is 'None'; wrong type"),
        ({"file": None}, "file is 'None'; wrong type"),
        ({"id": 5}, "entry 5: id is '5'; wrong type"),
    ],
)
def test_a_manifest_of_another_form_is_named(recorder, manifest, expected):
    entry = recorder.add() and recorder.entries[0]
    content = [{**entry, **manifest}] if isinstance(manifest, dict) else manifest
    (recorder.folder / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=expected):
        read_manifest(recorder.folder)
