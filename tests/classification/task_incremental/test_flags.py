"""The program's flags against the original's table, and what it refuses."""

from __future__ import annotations

import pytest

from classification.class_incremental import main as class_incremental
from classification.task_incremental import main_swin as swin
from classification.task_incremental.main import get_config, summarise
from classification.vdfd.experiment import sum_up
from common.metrics.continual import AccuracyMatrix
from common.training.errors import UserError

pytestmark = pytest.mark.unit

ORIGINAL_DEFAULTS = {
    "gpuid": [0],
    "model_type": "resnet",
    "model_name": "resnet18",
    "hypermodel_type": "gcn",
    "hypermodel_name": "GCN",
    "force_out_dim": 0,
    "model_optimizer": "Adam",
    "hypermodel_optimizer": "Adam",
    "dataroot": "../data",
    "dataset": "CIFAR100",
    "first_split_size": 10,
    "other_split_size": 10,
    "no_class_remap": False,
    "train_aug": True,
    "rand_split": False,
    "rand_split_order": False,
    "workers": 0,
    "batch_size": 32,
    "model_lr": 1e-5,
    "head_lr": 1e-3,
    "hypermodel_lr": 5e-4,
    "momentum": 0.9,
    "model_weight_decay": 5e-5,
    "head_weight_decay": 0,
    "hypermodel_weight_decay": 5e-5,
    "schedule": [5],
    "print_freq": 10,
    "model_weights": None,
    "reg_coef": [10],
    "eval_on_train_set": False,
    "with_head": False,
    "reset_model_opt": True,
    "repeat": 1,
    "epsilons": 0.01,
    "seed": 0,
}


def test_defaults_are_the_originals():
    config, changed = get_config([])
    assert {name: getattr(config, name) for name in ORIGINAL_DEFAULTS} == ORIGINAL_DEFAULTS
    assert changed == {}


def test_the_method_is_the_released_one_by_default():
    config, _ = get_config([])  # deviation: the original's default names a module that was never released
    assert (config.agent_type, config.agent_name) == ("vdfd", "VDFD")


def test_switches_that_turn_things_off():
    config, _ = get_config(["--train_aug", "--reset_model_opt"])
    assert not config.train_aug and not config.reset_model_opt


def test_gamma_and_temperature_are_no_flags_here():
    for flag in ("--gamma", "--temp"):
        with pytest.raises(UserError, match=flag):
            get_config([flag, "1"])


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--force_out_dim", "100"], "class-incremental"),
        (["--no_class_remap"], "no_class_remap"),
        (["--model_optimizer", "Adagrad"], "model_optimizer"),
        (["--schedule"], "schedule"),
        (["--gpu", "1"], "--gpu"),
    ],
)
def test_flags_that_cannot_work_are_refused(flags, expected):
    with pytest.raises(UserError, match=expected) as refused:
        get_config(flags)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("flag", "values"),
    [
        ("--max_tasks", ["0"]),
        ("--max_tasks", ["-1"]),
        ("--singular", ["0"]),
        ("--repeat", ["0"]),
        ("--schedule", ["0"]),
        ("--schedule", ["-1"]),
        ("--schedule", ["-1", "5"]),
        ("--momentum", ["-1"]),
        ("--model_lr", ["-1e-3"]),
        ("--epsilons", ["nan"]),
        ("--workers", ["-1"]),
        ("--batch_size", ["0"]),
        ("--images_per_class", ["0"]),
        ("--reg_coef", ["10", "10.0"]),
    ],
)
@pytest.mark.parametrize("program", [get_config, swin.get_config, class_incremental.get_config])
def test_numbers_that_no_run_could_use_are_refused(program, flag, values):
    with pytest.raises(UserError, match=flag) as refused:
        program([flag, *values])
    assert "\n" not in str(refused.value)


def test_each_coefficient_has_a_mean_of_its_own(tmp_path, capsys):
    repetitions = {5.0: [{"acc": 10.0}, {"acc": 30.0}], 0.5: [{"acc": 1.0}, {"acc": 1.0}]}
    total = sum_up(repetitions, ("acc",), tmp_path)
    assert "acc" not in total and len(total["runs"]) == 4
    assert {key: (one["acc"], one["acc_std"]) for key, one in total["reg_coef"].items()} == {
        "5": (20.0, 10.0),
        "0.5": (1.0, 0.0),
    }
    assert capsys.readouterr().out.splitlines() == ["reg_coef 5: ACC 20.00 +- 10.00", "reg_coef 0.5: ACC 1.00 +- 0.00"]
    single = sum_up({5.0: repetitions[5.0]}, ("acc",), tmp_path)
    assert (single["acc"], single["acc_std"]) == (20.0, 10.0)


def test_summary_by_hand():
    matrix = AccuracyMatrix([[90.0], [80.0, 70.0], [60.0, 65.0, 85.0]])
    metrics = summarise(matrix, [10, 10, 10])
    assert metrics["acc"] == pytest.approx(70.0)
    assert metrics["bwt"] == pytest.approx((-30 - 5) / 2)
    assert metrics["accuracy_matrix"][0] == [90.0, None, None]
    assert metrics["tasks_done"] == 3


def test_summary_of_a_run_that_has_no_task_yet():
    assert summarise(AccuracyMatrix(), [])["acc"] is None
