"""Losses, feature distillation and pseudo-labels against formulas worked out literally."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from common.training.errors import UserError
from segmentation import losses
from segmentation.pckd import channel_distance, released_factors, spatial_distance
from segmentation.pod import PodOptions, gap_size, local_embedding, pod_loss, pod_options
from segmentation.pseudo import confidence_threshold, exact_median, pseudo_label, released_median
from tests.segmentation.building import small_config

pytestmark = pytest.mark.unit


def test_unbiased_cross_entropy_adds_old_classes_up():
    logits = torch.tensor([[0.5, 1.0, -1.0, 2.0]]).view(1, 4, 1, 1).expand(1, 4, 1, 4)
    labels = torch.tensor([[[0, 1, 3, 255]]])
    p = logits[0, :, 0, 0].softmax(0)
    expected = [-(p[:3].sum()).log(), -(p[:3].sum()).log(), -p[3].log(), 0.0]
    found = losses.unbiased_cross_entropy(logits, labels, old_classes=3)
    torch.testing.assert_close(found.flatten(), torch.tensor([float(value) for value in expected]))


def test_unbiased_distillation_gives_new_classes_to_the_background():
    old, new = torch.tensor([0.3, -0.2]), torch.tensor([0.1, 0.4, 1.5])
    q, p = old.softmax(0), new.softmax(0)
    expected = -(q[0] * (p[0] + p[2]).log() + q[1] * p[1].log()) / 2
    found = losses.unbiased_distillation(new.view(1, 3, 1, 1), old.view(1, 2, 1, 1))
    torch.testing.assert_close(found.flatten()[0], expected)


def test_entropy_is_a_mean_as_released_and_a_sum_as_printed():
    uniform = torch.full((1, 4, 1, 1), 0.25)
    assert losses.pixel_entropy(uniform).item() == pytest.approx(0.25, rel=1e-5)
    assert losses.pixel_entropy(uniform, "sum").item() == pytest.approx(1.0, rel=1e-5)


def test_binary_means_leave_ignored_pixels_out():
    logits, labels = torch.zeros(1, 2, 1, 2), torch.tensor([[[1, 255]]])
    values = losses.binary_cross_entropy(logits, labels)
    assert values.flatten().tolist() == pytest.approx([2 * math.log(2), 0.0])
    assert losses.over_labelled(values, labels, "mean").item() == pytest.approx(2 * math.log(2))


# --- feature distillation ---------------------------------------------------------------------------------------------


def literal_embedding(x, scales=(1, 2, 4)):
    parts = []
    for scale in scales:
        size = x.shape[3] // scale
        for i in range(scale):
            for j in range(scale):
                cell = x[:, :, i * size : (i + 1) * size, j * size : (j + 1) * size]
                if cell.numel():
                    parts += [cell.mean(3).flatten(1), cell.mean(2).flatten(1)]
    return torch.cat(parts, 1)


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (1, 2, 7, 7), (2, 2, 3, 3), (1, 2, 9, 6), (1, 2, 5, 9), (2, 1, 2, 2)])
def test_local_pooling_equals_the_loops_over_cells(shape):
    x = torch.randn(shape, dtype=torch.float64)
    expected = literal_embedding(x)
    torch.testing.assert_close(local_embedding(x), expected)
    found = gap_size(x, "local", PodOptions(), "frobenius")
    torch.testing.assert_close(found, expected.norm(dim=1))
    torch.testing.assert_close(gap_size(x, "local", PodOptions(), "l1"), expected.abs().sum(1))


def test_extra_channels_and_factors_of_the_last_map():
    torch.manual_seed(0)
    old = [torch.randn(2, 3, 4, 4), torch.randn(2, 2, 4, 4)]
    new = [torch.randn(2, 3, 4, 4), torch.randn(2, 4, 4, 4)]
    options = PodOptions(factor=0.01, last_factor=0.5)
    folded = new[1][:, :2].clone()
    folded[:, 0] += new[1][:, 2:].sum(1)
    distances = [
        (literal_embedding(a.square()) - literal_embedding(b.square())).norm(dim=1).mean()
        for a, b in ((old[0], new[0]), (old[1], folded))
    ]
    expected = math.sqrt(4 / 2) * (0.01 * distances[0] + 0.5 * distances[1]) / 2
    torch.testing.assert_close(pod_loss(old, new, options, 2, 4, 2), expected)


def test_equal_maps_have_no_distance_and_no_nan_gradient():
    old = torch.randn(2, 3, 8, 8)
    for loss in (
        lambda m: pod_loss([old], [m], PodOptions(), 2, 4, 2),
        lambda m: spatial_distance(m - old),
        lambda m: channel_distance(m - old),
    ):
        new = old.clone().requires_grad_()
        value = loss(new)
        value.backward()
        assert value.item() == 0 and torch.equal(new.grad, torch.zeros_like(new))


def literal_spatial(gap):
    pooled = [F.avg_pool2d(gap, k, 1, k // 2, count_include_pad=True) for k in (4, 8, 12, 16, 20, 24)]
    return sum(p.flatten(1).norm(dim=1).mean() for p in pooled) / 6


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (1, 2, 25, 13), (2, 2, 3, 5)])
def test_window_products_equal_average_pooling(shape):
    gap = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    expected = literal_spatial(gap)
    (reference,) = torch.autograd.grad(expected, gap)
    found = spatial_distance(gap)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, gap)[0], reference)


def test_channel_windows_equal_average_pooling():
    gap = torch.randn(2, 7, 3, 4, dtype=torch.float64)
    flat = gap.flatten(2).transpose(1, 2)
    expected = F.avg_pool1d(flat, 3, 1, 1).flatten(1).norm(dim=1).mean()
    torch.testing.assert_close(channel_distance(gap), expected)


def test_released_factors_by_data_set():
    assert released_factors("cityscapes_domain").channel_last == 0.0
    assert released_factors("camvid") == released_factors("voc")


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"switch": {"after": {"kind": "local"}}}, "switch.after.kind"),
        ({"strange": 1}, "strange"),
        ({"switch": {"after": {"extra_channels": "mean"}}}, "extra_channels"),
    ],
)
def test_unknown_pod_settings_are_named(given, named):
    with pytest.raises(UserError, match=named):
        pod_options(small_config(pod="local", pod_options=given))


# --- pseudo-labels ----------------------------------------------------------------------------------------------------


def test_released_median_adds_bin_numbers():
    # total 8, half 4: bin 0: 0 <= 4 <= 3 no, + 0; bin 1: 0 <= 4 <= 1 no, + 1; bin 2: 1 <= 4 <= 1 + 4 yes
    found = released_median(torch.tensor([3, 1, 4, 0]))
    assert found.item() == pytest.approx(2 / 4 + (4 - 1) / 4 / 4)


def test_released_median_divides_by_empty_bins():
    # half 1: at bin 2 the bin numbers 0 + 1 have reached it, and the bin is empty: 0 / 0
    assert math.isnan(released_median(torch.tensor([0, 0, 0, 2])).item())
    # half 2.5: the bin numbers jump over it, and the last bin is empty: minus something / 0
    assert released_median(torch.tensor([0, 0, 0, 5, 0])).item() == -math.inf
    assert released_median(torch.tensor([0, 0, 0, 0])).item() == 0


def test_exact_median_is_near_the_median():
    values = np.random.default_rng(0).beta(2, 5, size=10001)
    counts, _ = np.histogram(values, bins=100, range=(0, 1))
    assert exact_median(torch.from_numpy(counts)).item() == pytest.approx(float(np.median(values)), abs=0.01)


def test_nan_thresholds_make_nothing_valid():
    config = small_config(pseudo="entropy")
    old_logits = torch.randn(2, 3, 4, 4)
    labels = torch.zeros(2, 4, 4, dtype=torch.long)
    found = pseudo_label(labels, old_logits, config, torch.full((5,), float("nan")), 5)
    assert (found.labels == 255).all()
    assert pseudo_label(labels, old_logits, config, torch.ones(5), 5).labels.equal(old_logits.argmax(1))
    assert (labels == 0).all()


def test_adaptive_factor_is_the_valid_share_of_the_background():
    config = small_config(pseudo="entropy", classif_adaptive_factor=True)
    sure, unsure = torch.tensor([9.0, 0.0]), torch.tensor([0.1, 0.0])
    old_logits = torch.stack([sure, sure, unsure, unsure], dim=1).view(1, 2, 1, 4)
    labels = torch.tensor([[[0, 1, 0, 2]]])
    found = pseudo_label(labels, old_logits, config, torch.full((3,), 0.1), 3)
    assert found.factor.flatten().tolist() == pytest.approx([2 / 3], rel=1e-4)
    assert found.labels.flatten().tolist() == [0, 0, 255, 2]


@pytest.mark.parametrize("mode", ["entropi", "threshold_high"])
def test_unknown_modes_are_refused(mode):
    with pytest.raises(UserError, match=mode):
        confidence_threshold(mode)
