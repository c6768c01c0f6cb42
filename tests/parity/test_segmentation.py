"""Every recorded fixture of the segmentation codes, one test each; and proof that a wrong table would be noticed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import segmentation.data.label_maps as label_maps
import segmentation.metrics as metrics
import segmentation.parity.data as data_adapters
import segmentation.tasks as tasks
from repro.parity import PASSED, WAITING, load_adapters, open_recording, replay, select_entries
from repro.registry import read_registry
from repro.self_test import self_test
from tests.helpers import REPOSITORY

pytestmark = pytest.mark.parity

SUBPROJECTS = [subproject for subproject in read_registry(REPOSITORY) if subproject.paper == "seg"]
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


@pytest.mark.parametrize(
    "name",
    [
        "seg.data.transform_train",
        "seg.data.domain_split_0",
        "seg.metric.stream",
        "seg.sched.poly",
        "seg.vdfd.reg_loss_sum",
    ],
)
def test_disturbed_inputs_are_noticed(name, adapters):
    assert self_test(ENTRIES[name], adapters).status == "sensitive"


def test_a_wrong_label_is_noticed(adapters, monkeypatch):
    """These recordings have no inputs that the self-test could disturb; so the tables are."""
    monkeypatch.setitem(label_maps.CITYSCAPES_TRAIN_IDS, 33, 17)
    assert replay(ENTRIES["seg.data.labelmap_domain"], adapters).status != PASSED
    monkeypatch.setattr(label_maps, "IGNORE", 254)
    for name in ("labelmap_voc_0", "labelmap_voc_1", "labelmap_ade"):
        assert replay(ENTRIES[f"seg.data.{name}"], adapters).status != PASSED, name


def test_a_wrong_table_colour_or_average_is_noticed(adapters, monkeypatch):
    monkeypatch.setattr(data_adapters, "CITIES", tasks.CITIES[::-1])
    assert replay(ENTRIES["seg.data.domain_ids"], adapters).status != PASSED
    monkeypatch.setattr(data_adapters, "voc_colormap", lambda: np.zeros((256, 3), dtype=np.uint8))
    assert replay(ENTRIES["seg.data.colormap"], adapters).status != PASSED
    monkeypatch.setattr(metrics, "_first_later_class", lambda row: 2)
    for name in ("average_csv_voc", "average_csv_domain"):
        assert replay(ENTRIES[f"seg.metric.{name}"], adapters).status != PASSED, name


def test_an_adapter_sees_no_outputs():
    for entry in ENTRIES.values():
        fixture = open_recording(entry).fixture
        assert not any(key.startswith(("out.", "grad.", "after.")) for key in [*fixture.inputs, *fixture.params])
        assert not entry.id.startswith("seg.tasks.") or "path" not in fixture.args


def test_class_counts_that_a_recording_leaves_out_are_those_of_another(adapters):
    """pod.loss_voc names them; four times as many new classes halve the factor sqrt(C / C_n)."""
    adapter = adapters["seg.pod.loss_spatial"]
    fixture = open_recording(ENTRIES["seg.pod.loss_spatial"], adapter).fixture
    before = adapter.compute(fixture)["out.loss"]
    fixture.base.args["nb_new_classes"] *= 4
    torch.testing.assert_close(adapter.compute(fixture)["out.loss"], before / 2)


@pytest.mark.parametrize(("images", "batches"), [(2, 3), (1, 2)])
def test_batches_may_be_other_than_two_of_two(images, batches, adapters):
    """In recordings of a network without pooled branch, whose norm would need two images."""
    adapter = adapters["seg.pseudo.naive"]
    fixture = open_recording(ENTRIES["seg.pseudo.naive"], adapter).fixture
    for kind in ("logits_old", "labels"):
        recorded = fixture.inputs.pop(f"{kind}0")[:images], fixture.inputs.pop(f"{kind}1")[:images]
        fixture.inputs |= {f"{kind}{number}": recorded[number % 2] for number in range(batches)}
    returned = adapter.compute(fixture)
    labels = {f"out.criterion_labels{number}" for number in range(batches)}
    assert returned["out.loss_total"].shape == (batches,)
    assert {name for name in returned if "labels" in name} == labels
