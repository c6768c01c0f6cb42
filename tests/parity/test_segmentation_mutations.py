"""Segmentation: a coefficient that is wrong by one per cent is noticed by the recordings."""

from __future__ import annotations

import dataclasses

import pytest

import common.backbones.abn as abn
import common.backbones.deeplab as deeplab
import segmentation.losses as losses
import segmentation.objective as objective
import segmentation.pckd as pckd
import segmentation.pod as pod
import segmentation.pseudo as pseudo
import segmentation.rcil.merging as merging
import segmentation.regularizers as regularizers
import segmentation.step as step
from repro.parity import PASSED, load_adapters, replay, select_entries
from repro.registry import read_registry
from tests.helpers import REPOSITORY

pytestmark = pytest.mark.parity

SUBPROJECTS = [subproject for subproject in read_registry(REPOSITORY) if subproject.paper == "seg"]
ENTRIES = {entry.id: entry for entry in select_entries(SUBPROJECTS, REPOSITORY)}

SCALED = {
    "unbiased cross-entropy": (losses, "unbiased_cross_entropy", ["seg.trainer.mib", "seg.step.mib_voc1"]),
    "unbiased distillation": (losses, "unbiased_distillation", ["seg.trainer.mib", "seg.step.mib_voc1"]),
    "distillation": (losses, "distillation", ["seg.trainer.temperature_old", "seg.step.lwf_voc1"]),
    "binary cross-entropy": (losses, "binary_cross_entropy", ["seg.loss.bce_ignore_mean", "seg.step.lwfmc_voc1"]),
    "iCaRL": (losses, "icarl_combined", ["seg.step.lwfmc_voc1"]),
    "excluded distillation": (losses, "excluded_distillation", ["seg.loss.exkd_gt", "seg.trainer.exkd_sum"]),
    "pixel entropy": (losses, "pixel_entropy", ["seg.plop.entropy", "seg.trainer.entropy_min"]),
    "thresholds": (pseudo, "released_median", ["seg.pseudo.entropy", "seg.pseudo.entropy_bins"]),
    "local POD": (objective, "pod_loss", ["seg.step.plop_voc1", "seg.step.plop_ade1"]),
    "size of a gap": (pod, "gap_size", ["seg.pod.loss_voc", "seg.pod.loss_l1", "seg.pod.loss_deeplab_mask"]),
    "windows": (pckd, "spatial_distance", ["seg.rcil.pckd_spatial.voc"]),
    "channel windows": (pckd, "channel_distance", ["seg.rcil.pckd_channel.ade"]),
    "shortcut": (deeplab, "shortcut", ["seg.module.residual.basic_train"]),
    "inverse of the activation": (abn, "_invert", ["seg.abn.inplace.elu.train", "seg.abn.inplace.double_backward"]),
}


@pytest.fixture(scope="module")
def adapters():
    return load_adapters(SUBPROJECTS, ENTRIES.values())


@pytest.mark.parametrize("what", SCALED)
def test_one_percent_in_one_term_is_noticed(what, adapters, monkeypatch):
    place, name, ids = SCALED[what]
    original = getattr(place, name)
    monkeypatch.setattr(place, name, lambda *arguments, **keywords: original(*arguments, **keywords) * 1.01)
    for id in ids:
        assert replay(ENTRIES[id], adapters).status != PASSED, id


def test_five_percent_in_the_penalty_are_noticed(adapters, monkeypatch):
    original = regularizers.ImportanceRegularizer.penalty
    monkeypatch.setattr(
        regularizers.ImportanceRegularizer, "penalty", lambda self, network: 1.05 * original(self, network)
    )
    assert replay(ENTRIES["seg.step.ewc_voc1"], adapters).status != PASSED


def test_one_percent_in_the_momentum_is_noticed(adapters, monkeypatch):
    monkeypatch.setattr(step, "MOMENTUM", 0.9 * 1.01)
    assert replay(ENTRIES["seg.trainer.mib"], adapters).status != PASSED


def test_a_merge_with_another_share_is_noticed(adapters, monkeypatch):
    original = merging._half_affine
    monkeypatch.setattr(
        merging, "_half_affine",
        lambda norm, sizes: tuple(tuple(1.01 * part for part in parts) for parts in original(norm, sizes)),
    )  # fmt: skip
    assert replay(ENTRIES["seg.rcil.merge.residual"], adapters).status != PASSED


def test_another_factor_of_the_windows_is_noticed(adapters, monkeypatch):
    original = objective.cube_factors

    def changed(config):
        factors = original(config)
        return dataclasses.replace(factors, spatial=1.05 * factors.spatial)

    monkeypatch.setattr(objective, "cube_factors", changed)
    assert replay(ENTRIES["seg.step.rcil_domain1"], adapters).status != PASSED
