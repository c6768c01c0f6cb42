"""Losses, rotations, the two settings, parameter groups, schedules, variants."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from classification.class_incremental.options import ClassIncrementalOptions
from classification.task_incremental.options import TaskIncrementalOptions
from classification.vdfd.losses import local_cross_entropy, own_head_logits
from classification.vdfd.optimization import LaggedMultiStep, make_optimizer, parameter_groups
from classification.vdfd.rotation import rotate_four_ways
from classification.vdfd.setting import ClassIncremental, TaskIncremental
from classification.vdfd.variant import CLASS_INCREMENTAL_CODE, TASK_INCREMENTAL_CODE, Variant, resolve_variant
from common.backbones.registry import build_backbone
from common.training.errors import UserError

pytestmark = pytest.mark.unit


def test_labels_outside_the_columns_get_no_gradient():
    logits = torch.randn(4, 9, requires_grad=True)
    local_cross_entropy(logits, torch.tensor([3, 4, 5, 3]), slice(3, 6), 0.5).backward()
    outside = torch.cat([logits.grad[:, :3], logits.grad[:, 6:]], dim=1)
    assert outside.abs().max() == 0 and logits.grad[:, 3:6].abs().min() > 0


def test_temperature_divides_the_logits():
    logits, target = torch.randn(4, 3), torch.tensor([0, 1, 2, 1])
    expected = F.cross_entropy(logits / 0.5, target)
    torch.testing.assert_close(local_cross_entropy(logits, target, slice(0, 3), 0.5), expected)


def test_one_task_per_batch_makes_both_losses_equal():
    heads, target = [torch.randn(5, 3), torch.randn(5, 2), torch.randn(5, 3)], torch.tensor([0, 1, 2, 1, 0])
    several = own_head_logits(heads, target + 5)
    torch.testing.assert_close(F.cross_entropy(several, target + 5), F.cross_entropy(heads[2], target))


def test_every_sample_is_scored_by_the_head_of_its_task():
    right, wrong = torch.eye(2)[[0, 1, 0, 1]], torch.eye(2)[[1, 0, 1, 0]]
    target = torch.tensor([0, 1, 0, 1]) + torch.tensor([2, 0, 0, 2])  # tasks 2, 1, 1, 2
    logits = own_head_logits([right, 9 * wrong], target)
    assert (logits.argmax(dim=1) == target).tolist() == [False, True, True, False]
    assert logits.isinf().sum(dim=1).tolist() == [2, 2, 2, 2]


def test_rotations_stand_next_to_their_image():
    images = torch.arange(8.0).reshape(2, 1, 2, 2)
    turned, labels = rotate_four_ways(images, torch.tensor([1, 0]))
    assert labels.tolist() == [4, 5, 6, 7, 0, 1, 2, 3]
    assert turned[1, 0].tolist() == [[1, 3], [0, 2]]  # a quarter turn of [[0, 1], [2, 3]], counter-clockwise
    assert torch.equal(turned[4], images[1])


def test_task_incremental_views():
    setting = TaskIncremental([3, 2], copies=4)
    assert setting.heads() == {"1": 12, "2": 8}
    assert setting.view(2).class_columns == slice(0, 8, 4)
    assert setting.evaluation(1, seen=2) == ("1", slice(0, 12, 4))


def test_class_incremental_views():
    setting = ClassIncremental([3, 2], outputs=10, copies=4)
    assert setting.heads() == {"All": 40}
    assert setting.view(2).loss_columns == slice(12, 20)
    assert setting.view(2).class_columns == slice(12, 20, 4)
    assert setting.evaluation(1, seen=2) == ("All", slice(0, 20, 4))


def test_only_the_current_head_is_optimised():
    model = build_backbone("resnet", "resnet18", widths=(4, 4), blocks=(1, 1))
    model.set_heads({"1": 2, "2": 2})
    groups = parameter_groups(model, "2", head_lr=1.0, model_lr=2.0, head_weight_decay=0.0, model_weight_decay=3.0)
    assert groups[0]["names"] == ["last.2.weight"] and groups[0]["lr"] == 1.0 and groups[0]["weight_decay"] == 0.0
    assert not any(name.startswith("last") for name in groups[1]["names"])
    assert len(groups[1]["names"]) == len(list(model.parameters())) - 2


@pytest.mark.parametrize("name", ["Adam", "amsgrad", "SGD", "RMSprop"])
def test_every_optimiser_moves_the_weights(name):
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = make_optimizer(name, [{"params": [weight], "lr": 0.1, "weight_decay": 0.0}])
    weight.grad = torch.ones(3)
    optimizer.step()
    assert (weight < 1).all()
    assert name != "amsgrad" or optimizer.defaults["amsgrad"]


def test_an_unknown_optimiser_is_refused():
    with pytest.raises(UserError, match="Adagrad"):
        make_optimizer("Adagrad", [])


def test_rates_drop_after_the_first_step_of_a_milestone_epoch():
    optimizer = make_optimizer("Adam", [{"params": [torch.nn.Parameter(torch.ones(1))], "lr": 0.8}])
    schedule = LaggedMultiStep(optimizer, [1, 2])
    seen = []
    for epoch in range(2):
        for _ in range(2):
            seen.append(schedule.rates()[0])
            schedule.step(epoch)
    assert seen == [0.8, 0.8, 0.8, 0.4]


def test_variants_default_to_the_code_of_the_setting():
    assert resolve_variant(TaskIncrementalOptions(), TASK_INCREMENTAL_CODE) == TASK_INCREMENTAL_CODE
    assert resolve_variant(ClassIncrementalOptions(), CLASS_INCREMENTAL_CODE) == CLASS_INCREMENTAL_CODE


def test_the_papers_variant_and_single_flags():
    paper = resolve_variant(ClassIncrementalOptions(compat="paper"), CLASS_INCREMENTAL_CODE)
    assert paper == Variant("sum", "one", "both", "unit", "residual")
    mixed = resolve_variant(ClassIncrementalOptions(compat="paper", quad_scale="tasks_squared"), CLASS_INCREMENTAL_CODE)
    assert mixed.quad_scale == "tasks_squared" and mixed.reg_tasks == "sum"
