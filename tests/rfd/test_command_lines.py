"""Dotted keys, YAML files and their precedence; the original ABD's flags; what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from common.data.images import ImageSet
from common.training.errors import UserError
from rfd import main, run_dfcil
from rfd.data.protocol import imagenet_order, published_order
from rfd.main import build_recipe, choose_order
from rfd.options import _IGNORED, device_numbers, precision_of
from rfd.program import make_parser, parse, read_config_file
from rfd.run_dfcil import get_config
from tests.helpers import REPOSITORY

pytestmark = pytest.mark.unit

CONFIGS = REPOSITORY / "rfd" / "config"
ORIGINAL_MODEL = {
    "base_lr": 0.1, "momentum": 0.9, "weight_decay": 0.0005, "lr_factor": 0.1, "milestones": [80, 120],
    "finetuning_epochs": 40, "finetuning_lr": 0.005, "lambda_ce": 0.5, "lambda_hkd": 0.15, "lambda_rkd": 0.5,
    "lambda_distkd_old": 0.5, "lambda_distkd_new": 0.5, "num_inv_iters": 5000, "inv_lr": 0.001, "inv_tau": 1000.0,
    "inv_alpha_pr": 0.001, "inv_alpha_rf": 50.0, "inv_resume_from": None,
}  # fmt: skip
ORIGINAL_DATA = {
    "dataset": "cifar100", "batch_size": 128, "num_workers": 4, "val_splits": 0, "val_seed": 42, "num_tasks": 5,
    "current_task": 0, "class_order": [], "init_task_splits": 0, "task_seed": 42, "test_mode": "seen",
    "memory_algo": "herding", "memory_size": 0, "dynamic_memory": False,
}  # fmt: skip
ORIGINAL_TRAINER = {
    "max_epochs": 200, "check_val_every_n_epoch": 40, "gpus": -1, "resume_from_checkpoint": None, "deterministic": True,
    "benchmark": True, "num_sanity_val_steps": 0, "replace_sampler_ddp": False, "checkpoint_callback": False,
    "log_every_n_steps": 50, "precision": 32, "gradient_clip_val": 0, "accumulate_grad_batches": 1,
}  # fmt: skip
# config: seed, tasks, batch, epochs, finetuning, milestones, weight decay, test every, generator steps, lambdas
ROWS = {
    "cifar10": (0, 6, 128, 200, 40, [80, 120], 5e-4, 40, 5000, (0.15, 0.15, 0.05)),
    "cifar100": (1, 10, 128, 200, 40, [80, 120], 5e-4, 40, 5000, (0.15, 0.15, 0.05)),
    "tiny-imagenet200": (0, 5, 256, 200, 40, [80, 120], 2e-4, 40, 5000, (0.15, 0.15, 0.05)),
    "imagenet100": (1, 10, 64, 120, 30, [30, 60], 1e-4, 30, 10000, (0.15, 0.15, 0.15)),
    "imagenet-r": (0, 10, 64, 120, 30, [30, 60], 1e-4, 30, 10000, (0.15, 0.15, 0.15)),
    "rdfcil/cifar100": (1, 10, 128, 200, 40, [80, 120], 5e-4, 40, 5000, (0.15, 0.5)),
    "rdfcil/tiny-imagenet200": (1, 10, 128, 200, 40, [80, 120], 2e-4, 40, 5000, (0.15, 0.5)),
    "rdfcil/imagenet100": (1, 10, 64, 120, 30, [30, 60], 1e-4, 30, 10000, (0.15, 0.5)),
    "abd_port/cifar100": (1, 10, 128, 200, 0, [80, 120], 5e-4, 40, 5000, (0.1,)),
    "abd_port/tiny-imagenet200": (1, 10, 128, 200, 0, [80, 120], 2e-4, 40, 5000, (0.1,)),
    "abd_port/imagenet100": (1, 10, 64, 120, 0, [80, 120], 1e-4, 30, 5000, (0.1,)),
}


def test_defaults_are_the_originals():
    config, changed = parse([])
    for group, expected in (("model", ORIGINAL_MODEL), ("data", ORIGINAL_DATA), ("trainer", ORIGINAL_TRAINER)):
        assert {name: getattr(getattr(config, group), name) for name in expected} == expected
    assert build_recipe(config).lambdas.kd == 0.5 and changed == {}
    assert build_recipe(parse(["--model.method", "abd_port"])[0]).lambdas.kd == 0.1


@pytest.mark.parametrize("name", ROWS)
def test_values_of_a_released_config(name):
    config = read_config_file(CONFIGS / f"{name}.yaml")
    seed, tasks, batch, epochs, finetuning, milestones, decay, check, steps, lambdas = ROWS[name]
    model, data, trainer = config.model, config.data, config.trainer
    assert (config.seed_everything, data.num_tasks, data.batch_size, data.current_task) == (seed, tasks, batch, 0)
    assert (trainer.max_epochs, trainer.check_val_every_n_epoch, trainer.resume_from_checkpoint) == (
        epochs,
        check,
        None,
    )
    assert (model.finetuning_epochs, model.milestones, model.weight_decay, model.num_inv_iters) == (
        finetuning, milestones, decay, steps,
    )  # fmt: skip
    weights = build_recipe(config).lambdas
    found = {"rfd": (weights.distkd_old, weights.distkd_new, weights.kd), "rdfcil": (weights.hkd, weights.rkd)}
    assert found.get(model.method, (weights.kd,)) == lambdas
    assert data.dataset == name.rpartition("/")[2] and data.init_task_splits == 0


def test_a_file_with_every_key_of_the_originals_trainer_is_taken(tmp_path):
    content = yaml.safe_load((CONFIGS / "cifar100.yaml").read_text())
    content["trainer"] |= _IGNORED
    assert len(content["trainer"]) == 58
    (tmp_path / "full.yaml").write_text(yaml.safe_dump(content))
    assert read_config_file(tmp_path / "full.yaml") == read_config_file(CONFIGS / "cifar100.yaml")


def test_arguments_apply_in_their_order(tmp_path):
    file = tmp_path / "one.yaml"
    file.write_text("model:\n  base_lr: 0.2\n")
    assert parse(["--config", str(file), "--model.base_lr", "0.05"])[0].model.base_lr == 0.05
    assert parse(["--model.base_lr", "0.05", "--config", str(file)])[0].model.base_lr == 0.2
    second = tmp_path / "two.yaml"
    second.write_text("model:\n  momentum: 0.5\n")
    both = parse(["--config", str(file), "--config", str(second)])[0].model
    assert (both.base_lr, both.momentum) == (0.2, 0.5)


def test_the_text_none_is_read_as_null_with_a_warning(tmp_path, capsys):
    file = tmp_path / "released.yaml"
    file.write_text("trainer:\n  resume_from_checkpoint: none\n")
    assert read_config_file(file).trainer.resume_from_checkpoint is None
    assert "trainer.resume_from_checkpoint" in capsys.readouterr().err


def test_print_config_prints_everything_and_ends(capsys):
    with pytest.raises(SystemExit) as ended:
        parse(["--config", str(CONFIGS / "cifar100.yaml"), "--model.base_lr", "0.05", "--print_config"])
    printed = yaml.safe_load(capsys.readouterr().out)
    assert ended.value.code == 0 and printed["model"]["base_lr"] == 0.05 and printed["data"]["num_tasks"] == 10
    assert set(_IGNORED) < set(printed["trainer"])


def test_what_follows_the_marker_is_told_apart():
    _, changed = parse(["--model.base_lr", "0.1", "--overrides", "--model.base_lr", "0.3", "--data.root", "/tmp"])
    assert changed == {"model.base_lr": [0.1, 0.3]}  # where the data lie changes nothing


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--model.nothing", "1"], "model.nothing"),
        (["--model.base_lr", "fast"], "base_lr"),
        (["--trainer.min_epochs", "3"], "min_epochs"),
        (["--trainer.num_sanity_val_steps", "2"], "num_sanity_val_steps"),
        (["--trainer.accumulate_grad_batches", "2"], "accumulate_grad_batches"),
        (["--trainer.max_epochs", "30"], "finetuning_epochs"),
        (["--trainer.precision", "64"], "precision"),
        (["--data.current_task", "3"], "resume_from_checkpoint"),
        (["--data.memory_size", "2000"], "memory_size"),
        (["--data.val_splits", "0.1"], "val_splits"),
        (["--model.lambda_kd", "-1"], "lambda_kd"),
        (["--model.method", "bic"], "method"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--data.batch_size", "0"], "batch_size"),
        (["--seed", "-2"], "seed"),
        (["--data.num_workers", "-1"], "num_workers"),
        (["--model.gen_latent", "0"], "gen_latent"),
        (["--model.method", "lwf", "--model.head", "linear"], "model.head"),
        (["--model.method", "abd", "--model.inv_resume_from", "inversion.ckpt"], "inv_resume_from"),
        (["--model.method", "rdfcil", "--model.wrd_inter", "0"], "wrd_inter"),
        (["--model.method", "base", "--model.inv_tau", "1"], "inv_tau"),
        (["--model.method", "lwf", "--model.noise", "cpu"], "model.noise"),
        (["--trainer.precision", "16", "--trainer.gradient_clip_val", "1"], "gradient_clip_val"),
        (["--opt_level", "O1", "--trainer.gradient_clip_val", "1"], "gradient_clip_val"),
        (["--opt_level", "O1", "--trainer.precision", "bf16"], "opt_level O1"),
        (["--model.mu", "2"], "model.mu"),
        (["--model.method", "abd", "--model.temp", "3"], "model.temp"),
        (["--model.method", "abd_port", "--model.lightning_val_quirk", "true"], "lightning_val_quirk"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(flags, expected):
    with pytest.raises(UserError, match=expected) as refused:
        precision_of(parse(flags)[0])
    assert "\n" not in str(refused.value)


def test_devices():
    assert [device_numbers(value) for value in (1, -1, 0, [2], "3")] == [[0], [0], [-1], [2], [3]]
    for several in (2, [0, 1], "0,1"):
        with pytest.raises(UserError, match="one device"):
            device_numbers(several)


def test_half_precision_is_labelled_under_every_name():
    data = SimpleNamespace(train_set=SimpleNamespace(copy="original"), split=SimpleNamespace(num_classes=100))
    for flags, expected in (([], []), (["--opt_level", "O0"], []), (["--opt_level", "O1"], ["fast"])):
        assert main.labels_of(parse(flags)[0], {}, data) == expected
        row = ["--dataset", "CIFAR100", "--model_type", "resnet", "--model_name", "resnet32", *flags]
        assert run_dfcil.labels_of(get_config(row)[0], {}, data) == expected
    assert precision_of(parse(["--trainer.precision", "16"])[0]) == "fp16"


def test_the_order_of_a_repetition():
    config = read_config_file(CONFIGS / "cifar100.yaml")
    assert choose_order(config, 100) == published_order(100, 1)
    again = parse(["--config", str(CONFIGS / "cifar100.yaml"), "--seed", "2"])[0]
    assert choose_order(again, 100) == published_order(100, 2)
    large = parse(["--config", str(CONFIGS / "imagenet100.yaml"), "--seed", "2"])[0]
    assert choose_order(large, 100) == imagenet_order(100)
    with pytest.raises(UserError, match="class_order"):
        choose_order(config, 20)


@pytest.mark.parametrize("name", ROWS)
def test_which_configs_are_a_repetition(name):
    config = read_config_file(CONFIGS / f"{name}.yaml")
    is_pair = name.partition("/")[0] not in ("rdfcil", "abd_port") or name.endswith("imagenet100")
    named = main.with_repetition(config)
    assert named.seed == (ROWS[name][0] if is_pair else None)  # R-DFCIL and the port: seed 1 with order 0
    assert main.prepare(config, {}).is_repetition == is_pair
    assert choose_order(config, len(config.data.class_order)) == config.data.class_order
    if is_pair:
        assert choose_order(named, len(config.data.class_order)) == config.data.class_order
    assert main.prepare(parse(["--config", str(CONFIGS / f"{name}.yaml"), "--seed", "2"])[0], {}).is_repetition


def test_every_group_has_help():
    text = make_parser().format_help()
    assert "--model.lambda_distkd_old" in text and "--trainer.max_epochs" in text and "--keep_checkpoints" in text


# --- run_dfcil.py -----------------------------------------------------------------------------------------------------

ABD_DEFAULTS = {
    "gpuid": [0], "log_dir": "outputs/out",
    "model_type": "mlp", "model_name": "MLP", "gen_model_type": "mlp", "gen_model_name": "MLP",
    "learner_type": "default", "learner_name": "NormalNN", "dataroot": "data", "dataset": "MNIST",
    "load_model_dir": None, "workers": 8, "validation": False, "repeat": 1, "overwrite": 0, "optimizer": "SGD",
    "train_aug": False, "lr": 0.01, "momentum": 0, "weight_decay": 0, "schedule": [2], "schedule_type": "decay",
    "batch_size": 64, "power_iters": 10, "deep_inv_params": [-1], "first_split_size": 2, "other_split_size": 2,
    "rand_split": False, "DW": False, "oracle_flag": False, "max_task": -1, "memory": 0, "temp": 2.0, "mu": 1.0,
    "beta": 0.5,
}  # fmt: skip
OFFERED = ["--dataset", "Sample", "--model_type", "resnet", "--model_name", "resnet32"]


def test_defaults_of_the_original_abd():
    from rfd.run_dfcil import AbdOptions

    assert {name: getattr(AbdOptions(), name) for name in ABD_DEFAULTS} == ABD_DEFAULTS


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], "MNIST"),
        (["--dataset", "Sample"], "model_type"),
        ([*OFFERED, "--memory", "2000"], "memory"),
        ([*OFFERED, "--optimizer", "Adam"], "optimizer"),
        ([*OFFERED, "--learner_type", "kd", "--learner_name", "BIC"], "BIC"),
        ([*OFFERED, "--learner_type", "datafree", "--learner_name", "AlwaysBeDreaming"], "CIFAR_GEN"),
        ([*OFFERED, "--oracle_flag", "--learner_type", "kd", "--learner_name", "LWF"], "oracle_flag"),
        ([*OFFERED, "--validation"], "validation"),
        ([*OFFERED, "--batch_size", "0"], "batch_size"),
        ([*OFFERED, "--schedule", "0", "5"], "schedule"),
    ],
)
def test_abd_flags_that_are_not_offered(flags, expected):
    with pytest.raises(UserError, match=expected) as refused:
        get_config(flags)
    assert "\n" not in str(refused.value)


def test_log_dir_and_overwrite_are_the_originals_names(tmp_path: Path):
    config, _ = get_config([*OFFERED, "--log_dir", str(tmp_path), "--overwrite", "1"])
    assert config.output_dir == str(tmp_path) and config.resume == "never"
    assert get_config(OFFERED)[0].output_dir == "outputs/out"
    assert get_config([*OFFERED, "--output_dir", "elsewhere"])[0].output_dir == "elsewhere"


def test_imagenet50_is_complete_where_imagenet100_is():
    images = ImageSet("imagenet100", "train", torch.zeros(100, 3, 1, 1), torch.arange(100), list(map(str, range(100))))
    data = SimpleNamespace(train_set=run_dfcil.imagenet50(images))
    assert (len(data.train_set), data.train_set.note) == (50, "50 of 100 classes")
    assert run_dfcil.labels_of(get_config([*OFFERED, "--dataset", "ImageNet"])[0], {}, data) == []
    part = dataclasses.replace(images, copy="sub-sampled", note="100 of 129395 images")
    assert run_dfcil.imagenet50(part).copy == "sub-sampled"


def test_repetitions_share_one_time_budget(tmp_path, monkeypatch):
    begins = []

    def recording(config, changed, experiment, folder, begin):
        begins.append(begin)
        return dict.fromkeys(run_dfcil.HEADLINE, 0.0)

    monkeypatch.setattr(run_dfcil, "run_experiment", recording)
    run_dfcil.main([*OFFERED, "--repeat", "3", "--output_dir", str(tmp_path)])
    assert len(begins) == 3 and len(set(begins)) == 1 and begins[0] is not None
