"""Values worked out by hand: factors, schedules, losses, metrics, splits."""

from __future__ import annotations

import math

import pytest
import torch

from common.training.errors import UserError
from rfd.data.protocol import class_split, positions, published_order, task_sizes
from rfd.evaluation import Evaluation, History, confusion_matrix, mean_and_spread
from rfd.factors import (
    Lambdas,
    class_weights,
    count_labels,
    finetuning_factors,
    is_finetuning,
    learning_rate,
    rfd_factors,
)
from rfd.inversion_losses import batch_norm_divergence, class_balance_loss, smoothing_kernel, smoothness_loss
from rfd.losses import multi_class_binary_loss, pearson_correlation, relation_distillation_loss
from rfd.relation import angle_relation_loss, angles

pytestmark = pytest.mark.unit

CIFAR = Lambdas(ce=0.5, distkd_old=0.15, distkd_new=0.15, kd=0.05)
SCHEDULE = {"base_lr": 0.1, "lr_factor": 0.1, "milestones": [80, 120], "epochs": 200, "finetuning_epochs": 40,
            "finetuning_lr": 0.005}  # fmt: skip


def test_factors_of_the_second_and_the_last_of_ten_tasks():
    assert rfd_factors(CIFAR, 10, 10) == pytest.approx(
        {"ce": 0.69343, "distkd_old": 0.38774, "distkd_new": 0.38774, "sm": 0.12925}, abs=5e-6
    )
    assert rfd_factors(CIFAR, 10, 90) == pytest.approx(
        {"ce": 0.23114, "distkd_old": 3.48970, "distkd_new": 3.48970, "sm": 0.38774}, abs=5e-6
    )


def test_finetuning_drops_one_term_and_keeps_the_relations():
    factors = rfd_factors(CIFAR, 10, 10)
    tuned = finetuning_factors(factors, CIFAR, "sm")
    assert tuned == {"ce": 0.5, "distkd_old": factors["distkd_old"], "distkd_new": factors["distkd_new"]}
    assert finetuning_factors({"ce": 1.0}, CIFAR, "sm") == {"ce": 1.0}


def test_learning_rates_of_the_cifar_config():
    rates = [learning_rate(epoch, **SCHEDULE) for epoch in (0, 79, 80, 119, 120, 159, 160, 199)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001, 0.005, 0.005])
    assert not is_finetuning(200, 200, 40) and not is_finetuning(199, 200, 0)


def test_class_weights_and_counts():
    counts = count_labels(torch.tensor([2, 0, 2, 2]), 4)
    assert counts.tolist() == [1, 0, 3, 0]
    assert class_weights(counts).tolist() == pytest.approx([3, 3, 1, 3])


def test_a_correlation_is_one_for_affine_rows():
    x = torch.randn(3, 7)
    torch.testing.assert_close(pearson_correlation(x, 2 * x + 5), torch.ones(3))
    torch.testing.assert_close(pearson_correlation(x, -x), -torch.ones(3))


def test_relation_distillation_has_both_terms_and_each_alone():
    student, teacher = torch.randn(5, 4), torch.randn(5, 4)
    both = relation_distillation_loss(student, teacher)
    parts = [relation_distillation_loss(student, teacher, inter=a, intra=1 - a) for a in (0, 1)]
    torch.testing.assert_close(both, parts[0] + parts[1])
    assert relation_distillation_loss(teacher, teacher).item() == pytest.approx(0, abs=1e-4)
    assert relation_distillation_loss(student, teacher, inter=0, intra=0).item() == 0


def test_angles_of_a_right_triangle():
    cosines = angles(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]]))
    assert cosines[0, 1, 2].item() == pytest.approx(0) and cosines[0, 1, 1].item() == pytest.approx(1)
    assert cosines[1, 0, 2].item() == pytest.approx(1 / math.sqrt(5)) and cosines[1, 1, 0].item() == 0
    assert angle_relation_loss(torch.eye(3), 4 * torch.eye(3)).item() == pytest.approx(0, abs=1e-6)


def test_binary_loss_takes_the_teachers_columns():
    logits = torch.zeros(1, 3)
    alone = multi_class_binary_loss(logits, torch.tensor([2]), None)
    assert alone.item() == pytest.approx(3 * math.log(2))
    logits = torch.tensor([[2.0, 0.0]])
    teacher = torch.tensor([[2.0]])
    p = torch.sigmoid(torch.tensor(2.0))
    entropy = -(p * p.log() + (1 - p) * (1 - p).log())
    torch.testing.assert_close(multi_class_binary_loss(logits, torch.tensor([1]), teacher), entropy + math.log(2))


def test_generator_losses_at_their_optimum():
    assert class_balance_loss(10 * torch.eye(4)).item() == pytest.approx(0, abs=1e-6)
    assert class_balance_loss(torch.tensor([[9.0, -9.0]])).item() == pytest.approx(1, abs=1e-5)
    kernel = smoothing_kernel()
    assert kernel.sum().item() == pytest.approx(3) and kernel[0, 0, 0, 2] / kernel[0, 0, 2, 2] == pytest.approx(
        math.exp(-1)
    )
    assert smoothness_loss(torch.full((1, 3, 8, 8), 2.0), kernel).item() == pytest.approx(0, abs=1e-10)
    x = torch.randn(16, 3, 4, 4)
    mean, variance = x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3), correction=0)
    assert batch_norm_divergence(x, mean, variance).item() == pytest.approx(0, abs=1e-6)
    shifted = batch_norm_divergence(x, mean + variance.sqrt(), variance)
    assert shifted.item() == pytest.approx(0.5, rel=1e-4)


def test_a_class_without_probability_gives_nan_as_in_the_original():
    assert class_balance_loss(torch.tensor([[1e4, -1e4]])).isnan()


def test_accuracies_from_a_confusion_matrix():
    target, prediction = torch.tensor([0, 0, 1, 2, 2, 2]), torch.tensor([0, 1, 1, 2, 2, 0])
    found = Evaluation(confusion_matrix(prediction, target, 3), (0, 2, 3))
    assert found.confusion.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 2]]
    assert (found.all, found.old, found.new) == pytest.approx((400 / 6, 200 / 3, 200 / 3))
    assert found.per_task == pytest.approx([200 / 3, 200 / 3])
    assert Evaluation(torch.eye(2, dtype=torch.int64), (0, 2)).old == 0


def test_metrics_of_three_tasks_by_hand():
    history = History()
    for rows in ([[9, 1]], [[6, 4], [7, 3]], [[5, 5], [2, 8], [8, 2]]):
        confusion = torch.zeros(len(rows), len(rows), dtype=torch.int64)
        for task, (right, wrong) in enumerate(rows):
            confusion[task, task] = right
            confusion[task, task - 1] += wrong
        if len(rows) == 1:
            confusion = torch.tensor([[9, 1], [0, 0]])
            history.add(Evaluation(confusion, (0, 2)))
            continue
        history.add(Evaluation(confusion, tuple(range(len(rows) + 1))))
    metrics = history.metrics()
    assert metrics["last"] == pytest.approx(50.0) and metrics["average"] == pytest.approx((90 + 65 + 50) / 3)
    assert metrics["forgetting"] == pytest.approx(((90 - 50) + (70 - 20)) / 2)
    assert metrics["global"] == metrics["acc"] == pytest.approx(50.0)
    assert metrics["accuracy_matrix"][1] == [60.0, 70.0, None]


def test_spread_is_the_populations():
    assert mean_and_spread([1.0, 3.0]) == (2.0, 1.0)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((100, 10, 0), [10] * 10),
        ((10, 6, 0), [5, 1, 1, 1, 1, 1]),
        ((100, 6, 0.5), [50] + [10] * 5),
        ((100, 26, 0.5), [50] + [2] * 25),
        ((100, 5, 20), [20] * 5),
        ((11, 3, 0), [3, 4, 4]),
    ],
)
def test_task_sizes(arguments, expected):
    assert task_sizes(*arguments) == expected


@pytest.mark.parametrize("arguments", [(100, 1, 0), (100, 10, 15), (4, 9, 0), (10, 3, 10), (10, 3, 2.5)])
def test_impossible_tasks_are_refused_in_one_line(arguments):
    with pytest.raises(UserError) as refused:
        task_sizes(*arguments)
    assert "\n" not in str(refused.value)


def test_labels_are_mapped_for_an_order_that_is_its_own_inverse():
    order = [1, 0, 3, 2]
    assert positions(order).tolist() == [1, 0, 3, 2]
    assert positions([2, 0, 1]).tolist() == [1, 2, 0]
    assert class_split(order, [2, 2]).classes(2) == [3, 2]


def test_published_orders_differ_and_do_not_touch_the_global_generator():
    import random

    random.seed(5)
    before = random.getstate()
    assert published_order(100, 0) != published_order(100, 1)
    assert random.getstate() == before
