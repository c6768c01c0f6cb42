"""`repro parity --self-test` finds comparisons that could not fail."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from common.parity import Adapter, Fixture
from repro import parity, self_test
from repro.parity import FAILED, MISSING, PASSED
from repro.self_test import INSENSITIVE, KNOWN, SENSITIVE

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("toy_parity")]


def product(fixture: Fixture):
    return {"out.y": fixture.inputs["x"] * fixture.params["w"], "args.storage": 3}


def test_sensitive_fixtures_are_found_sensitive(recorder):
    assert self_test.self_test(recorder.add(), {"toy.product": Adapter(product)}).status == SENSITIVE


@pytest.mark.parametrize(
    ("compute", "expected"),
    [
        (
            lambda f, y: {"out.y": f.inputs["x"] * parity.open_recording(y).fixture.params["w"], "args.storage": 3},
            "weights",
        ),
        (
            lambda f, y: {"out.y": parity.open_recording(y).tensors["out.y"], "args.storage": 3},
            "inputs and its weights",
        ),
    ],
)
def test_adapters_that_do_not_use_what_they_get_are_found(recorder, monkeypatch, compute, expected):
    entry = recorder.add()
    adapters = {entry.id: Adapter(lambda fixture: compute(fixture, entry))}
    assert parity.replay(entry, adapters).status == PASSED
    outcome = self_test.self_test(entry, adapters)
    assert outcome.status == INSENSITIVE and expected in outcome.reasons[0]
    monkeypatch.setattr(self_test, "INSENSITIVE_KNOWN", {entry.id: "reason"})
    assert self_test.self_test(entry, adapters).status == KNOWN


def test_loose_tolerances_are_found(recorder):
    entry = recorder.add(rtol=0.03)
    assert self_test.self_test(entry, {entry.id: Adapter(product)}).status == INSENSITIVE


def test_a_crash_on_disturbed_input_counts_only_if_the_fixture_passes_undisturbed(recorder):
    entry = recorder.add()
    recorded = parity.open_recording(entry).fixture

    def picky(fixture):
        assert torch.equal(fixture.inputs["x"], recorded.inputs["x"]) and torch.equal(
            fixture.params["w"], recorded.params["w"]
        )
        return product(fixture)

    def broken(fixture):
        raise RuntimeError

    assert self_test.self_test(entry, {entry.id: Adapter(picky)}).status == SENSITIVE
    assert self_test.self_test(entry, {entry.id: Adapter(broken)}).status == FAILED
    assert self_test.self_test(entry, {}).status == MISSING


def test_integers_are_replaced_within_their_range(recorder):
    labels = np.arange(500) % 7
    entry = recorder.add(inputs={"in.t": labels}, outputs={"out.t": labels}, args={})
    seen = []

    def identity(fixture):
        seen.append(fixture.inputs["t"].numpy())
        return {"out.t": fixture.inputs["t"]}

    assert self_test.self_test(entry, {entry.id: Adapter(identity)}).status == SENSITIVE
    changed = [t for t in seen if not np.array_equal(t, labels)]
    assert changed
    for t in changed:
        assert (t != labels).sum() == 5 and t.min() >= 0 and t.max() <= 6 and t.dtype == labels.dtype
    entry = recorder.add(
        "toy.single",
        inputs={"in.t": np.array(255, dtype=np.uint8)},
        outputs={"out.t": np.array(255, np.uint8)},
        args={},
    )
    assert self_test.self_test(entry, {entry.id: Adapter(identity)}).status == SENSITIVE


def test_weights_made_by_a_rule_are_disturbed(recorder):
    linear = torch.nn.Linear(3, 2)
    Fixture("x", {"init": "sine"}, {}).fill(linear)
    entry = recorder.add(inputs={}, args={"init": "sine"}, outputs={"out.w": linear.weight.detach().numpy()})
    uses = Adapter(lambda fixture: {"out.w": fixture.fill(torch.nn.Linear(3, 2)).weight})
    ignores = Adapter(lambda fixture: {"out.w": linear.weight})
    assert self_test.self_test(entry, {entry.id: uses}).status == SENSITIVE
    assert self_test.self_test(entry, {entry.id: ignores}).status == INSENSITIVE


@pytest.mark.parametrize("args", [{"lr": 0.5}, {"nested": [{"lr": 0.5}]}, {"seed": 3}])
def test_fixtures_without_tensors_have_their_arguments_disturbed(recorder, args):
    entry = recorder.add(inputs={}, args=args, outputs={"out.y": np.array(2.0)})
    recorded = dict(args)
    uses = Adapter(lambda fixture: {"out.y": 2.0 if fixture.args == recorded else 2.1})
    ignores = Adapter(lambda fixture: {"out.y": 2.0})
    assert self_test.self_test(entry, {entry.id: uses}).status == SENSITIVE
    assert self_test.self_test(entry, {entry.id: ignores}).status == INSENSITIVE


def test_self_test_on_the_command_line(toy_repository, recorder, call):
    recorder.add()
    code, out, _ = call("parity", "--self-test")
    assert code == 0
    assert out.strip().splitlines()[-1] == "1 fixtures: 1 sensitive, 0 insensitive, 0 failed undisturbed"
    recorder.entries.clear()
    recorder.add(rtol=1.0)
    assert call("parity", "--self-test")[0] == 1
