"""The class-incremental program: flags, scripts, what runs leave, resume, and the released quirks as switches."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from classification.class_incremental.main import build_protocol, get_config, main
from classification.class_incremental.options import ClassIncrementalOptions, SelfSupervisedOptions
from classification.vdfd.data import SplitImages
from common.data.transforms import TRANSFORMS, BatchTransform
from common.training.checkpoint import read_newest_checkpoint
from common.training.errors import RunStopped, UserError
from common.training.options import as_dict
from common.training.seeding import seed_everything
from tests.helpers import REPOSITORY

pytestmark = pytest.mark.smoke

FOLDER = REPOSITORY / "classification" / "class_incremental"
TINY = """
    --dataset Sample --force_out_dim 20 --first_split_size 2 --other_split_size 2 --max_tasks 3 --images_per_class 16
    --widths 4 8 8 16 --blocks 1 1 1 1 --batch_size 8 --schedule 1 2 --model_lr 1e-3 --head_lr 5e-3 --epsilons 1e-3
    --temp 1 --gpuid -1 --importance_batch 16
""".split()
SSL = ["--agent_type", "vdfd_ssl_la"]
SHARED = {
    "agent_name": "VDFDLA", "schedule": [50, 100], "batch_size": 16, "model_name": "resnet18", "model_lr": 1e-4,
    "hypermodel_lr": 1e-4, "hypermodel_weight_decay": 5e-4, "epsilons": 1e-3, "temp": 1.0, "singular": 1, "gamma": 0.5,
}  # fmt: skip
ROWS = {
    ("scripts", "cifar100-10x10"): ("vdfd_la", "CIFAR100", 100, 10, 7e-4, 1e-3, [50.0]),
    ("scripts", "tinyimagenet-10x20"): ("vdfd_la", "TinyImageNet", 200, 20, 7e-4, 3e-3, [100.0]),
    ("scripts_ssl", "cifar100-10x10"): ("vdfd_ssl_la", "CIFAR100", 100, 10, 5e-4, 5e-3, [50.0]),
    ("scripts_ssl", "tinyimagenet-10x20"): ("vdfd_ssl_la", "TinyImageNet", 200, 20, 5e-4, 2e-3, [90.0]),
}


def run_tiny(folder, *more: str):
    return main([*TINY, "--output_dir", str(folder), *more])


def learner_state(folder) -> dict:
    return read_newest_checkpoint(folder)[0]["parts"]["learner"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    run_tiny(folder)
    return folder


def test_defaults_are_the_originals():
    config, _ = get_config([])
    assert (config.force_out_dim, config.first_split_size, config.other_split_size) == (100, 50, 10)
    assert config.no_class_remap and config.incremental_class and config.schedule == [1] and config.workers == 16
    assert (config.gamma, config.temp, config.singular, config.epsilons) == (0.5, 0.1, 1, 0.01)
    switched, _ = get_config(["--no_class_remap", "--incremental_class"])  # store_true in the original: cannot turn off
    assert switched.no_class_remap and switched.incremental_class


def test_the_program_with_rotation_labels_trains_with_them_by_default():
    config, changed = get_config([], SelfSupervisedOptions)
    assert (config.agent_type, config.agent_name, config.gpuid, changed) == ("vdfd_ssl_la", "VDFDLA", [1], {})
    assert build_protocol(config).setting([50, 10]).copies == 4
    plain, _ = get_config([])
    differing = [name for name, value in as_dict(plain).items() if value != as_dict(config)[name]]
    assert differing == ["gpuid", "agent_type"]


def test_the_alias_of_the_program_with_rotation_labels_has_its_defaults():
    result = subprocess.run(
        [sys.executable, "main_classinc_ssl.py", "--help"],
        cwd=FOLDER,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "default: vdfd_ssl_la" in " ".join(result.stdout.split())


def test_an_agent_without_temperature_refuses_one():
    flags = ["--agent_type", "vdfd_ssl", "--agent_name", "VDFD"]
    assert get_config(flags)[0].temp == get_config([*flags, "--temp", "1"])[0].temp == 1.0
    with pytest.raises(UserError, match="--temp 0.5"):
        get_config([*flags, "--temp", "0.5"])


@pytest.mark.parametrize(
    "flags", [["--resume_first"], ["--force_out_dim", "0"], ["--tempe", "1"], ["--temp", "0"]], ids=" ".join
)
def test_flags_that_cannot_work_are_refused(flags):
    with pytest.raises(UserError, match=flags[0]):
        get_config(flags)


@pytest.mark.parametrize(("scripts", "row"), ROWS)
def test_values_of_a_row(scripts, row):
    result = subprocess.run(
        ["sh", f"{scripts}/vdfd.sh", row],
        cwd=FOLDER,
        env={**os.environ, "PYTHON": "echo"},
        capture_output=True,
        text=True,
        check=True,
    )
    _, program, *flags = result.stdout.split()
    assert program == ("main_classinc_ssl.py" if scripts == "scripts_ssl" else "main_classinc.py")
    config, changed = get_config(flags, SelfSupervisedOptions if scripts == "scripts_ssl" else ClassIncrementalOptions)
    assert as_dict(config) == as_dict(get_config(flags)[0])  # a row names everything in which the defaults differ
    agent, dataset, outputs, split, decay, head_lr, reg_coef = ROWS[scripts, row]
    expected = SHARED | {
        "agent_type": agent, "dataset": dataset, "force_out_dim": outputs, "first_split_size": split,
        "other_split_size": split, "model_weight_decay": decay, "head_lr": head_lr, "reg_coef": reg_coef,
    }  # fmt: skip
    assert {name: getattr(config, name) for name in expected} == expected and changed == {}


def test_mnist_is_padded_to_32_pixels_in_this_setting():
    spec = build_protocol(get_config([])[0]).transforms["MNIST"]
    assert (spec.mean, spec.std, spec.size, spec.flip) == ((0.1,), (0.2752,), 32, False)
    assert spec.border == 2 and spec.border + spec.pad == 4  # 28 pixels; crops of the image padded by 4
    assert TRANSFORMS["MNIST"].size == 28


def test_a_network_that_does_not_take_the_images_is_refused_in_one_line(tmp_path):
    with pytest.raises(UserError, match="32x32 images with 1 channels") as refused:
        run_tiny(tmp_path, "--dataset", "MNIST", "--smoke")
    assert "\n" not in str(refused.value)


def test_a_head_that_is_too_small_is_refused(tmp_path):
    with pytest.raises(UserError, match="force_out_dim 10"):
        run_tiny(tmp_path, "--force_out_dim", "10")


@pytest.mark.parametrize("flags", [[], SSL], ids=["plain", "ssl"])
def test_one_step_at_a_time_ends_where_the_unbroken_run_ends(flags, tmp_path):
    run_tiny(tmp_path / "whole", *flags)
    for _ in range(200):
        try:
            run_tiny(tmp_path / "parts", *flags, "--time_budget", "0")
            break
        except RunStopped:
            continue
    one, other = learner_state(tmp_path / "whole"), learner_state(tmp_path / "parts")
    assert all(torch.equal(one["model"][key], other["model"][key]) for key in one["model"])
    assert all(torch.equal(one["hypermodel"][key], other["hypermodel"][key]) for key in one["hypermodel"])
    texts = [(tmp_path / name / "series.jsonl").read_text() for name in ("whole", "parts")]
    assert texts[0] == texts[1]


def test_rows_of_other_tasks_do_not_move(whole, tmp_path):
    """The labels trick: classes of earlier tasks, and of later ones, get no gradient, no decay and fresh moments."""
    run_tiny(tmp_path / "one", "--max_tasks", "1")
    run_tiny(tmp_path / "seen", "--agent_type", "vdfd", "--agent_name", "VDFD")
    heads = {path.name: head_rows(path) for path in (whole, tmp_path / "one", tmp_path / "seen")}
    after_one, after_three = heads["one"], heads[whole.name]
    assert torch.equal(after_one[:2], after_three[:2])  # learned in the first of three tasks of two classes
    assert torch.equal(after_one[6:], after_three[6:])  # never learned
    assert not torch.equal(after_one[2:6], after_three[2:6])
    assert not torch.equal(after_one[:2], heads["seen"][:2])  # a cross-entropy over all seen classes moves them


def head_rows(folder) -> torch.Tensor:
    """Final classifier rows of a run."""
    return learner_state(folder)["model"]["last.All.weight"]


def test_the_record_counts_over_all_seen_classes(whole):
    record = json.loads((whole / "record.json").read_text())
    metrics = record["metrics"]
    assert len(metrics["avg_history"]) == 3 and metrics["test_images"] == [100, 100, 100]
    assert metrics["avg"] == pytest.approx(sum(metrics["accuracy_matrix"][-1]) / 3)


@pytest.mark.parametrize("flags", [[], ["--rand_split"], ["--rand_split_order"]], ids=" ".join)
def test_a_label_is_its_class_place_among_the_learned_ones(flags, tmp_path):
    """D16: whatever the order, the task's labels are the columns that the task may use."""
    config, _ = get_config([*TINY, *flags])
    seed_everything(3)
    data = SplitImages(config, torch.device("cpu"), remap_labels=False)
    learned = [label for task in data.describe()["tasks"] for label in task]
    assert (learned == sorted(learned)) == (not flags)
    setting = build_protocol(config).setting(data.sizes)
    for task in (1, 2, 3):
        columns = setting.view(task).loss_columns
        images, target = next(iter(data.test_loader(task)))
        assert set(target.tolist()) <= set(range(columns.start, columns.stop))
        own = BatchTransform(data.spec, train=False)(data.test_set.images)
        for image, column in zip(images, target, strict=True):
            (place,) = (own == image).flatten(1).all(dim=1).nonzero()[:, 0][:1]
            assert data.test_set.labels[place] == learned[column]


@pytest.mark.parametrize("flags", [["--rand_split"], ["--rand_split_order"], ["--rand_split", *SSL]], ids=" ".join)
def test_other_orders_of_the_classes_run(flags, tmp_path):
    metrics = run_tiny(tmp_path, *flags, "--seed", "3")["runs"][0]
    assert metrics["tasks_done"] == 3
    assert metrics["accuracy_matrix"][0][0] > 0  # two classes; labels that are no columns of theirs would score 0


@pytest.mark.parametrize(
    "flags",
    [
        SSL,
        ["--agent_type", "vdfd", "--agent_name", "VDFD"],
        ["--agent_type", "finetune", "--agent_name", "FineTuning"],
        ["--compat", "paper"],
        ["--reg_tasks", "sum"],
        ["--quad_scale", "one"],
        ["--gcn", "bottleneck"],
        ["--temp", "0.5"],
        ["--gamma", "0.1"],
        ["--singular", "2"],
    ],
    ids=" ".join,
)
def test_a_flag_changes_the_run(flags, whole, tmp_path):
    run_tiny(tmp_path, *flags)
    one, other = learner_state(whole)["model"], learner_state(tmp_path)["model"]
    assert any(one[key].shape != other[key].shape or not torch.equal(one[key], other[key]) for key in one)


def test_regularised_heads_move_the_rows_of_old_classes(equal_draws, tmp_path):
    """One head for all classes is in the optimiser as a whole; without the penalty its old rows rest."""
    run_tiny(tmp_path / "without")
    run_tiny(tmp_path / "with", "--with_head")
    one, other = head_rows(tmp_path / "without"), head_rows(tmp_path / "with")
    assert (one[:4] - other[:4]).abs().max() > 1e-4 and torch.equal(one[6:], other[6:])


def test_initial_weights_from_a_file(whole, tmp_path):
    weights = learner_state(whole)["model"]
    torch.save(weights, tmp_path / "weights.pth")
    still = ["--max_tasks", "1", "--model_lr", "0", "--head_lr", "0"]
    run_tiny(tmp_path / "loaded", *still, "--model_weights", str(tmp_path / "weights.pth"))
    loaded = learner_state(tmp_path / "loaded")["model"]
    names = [name for name in weights if "running" not in name and "num_batches" not in name]
    assert all(torch.equal(weights[name], loaded[name]) for name in names)


def test_as_released_only_the_last_stored_task_is_regularised(whole, tmp_path):
    """In the third task the released code ignores the first one: its stored factors have no influence."""
    from classification.vdfd.experiment import build_learner, build_model
    from common.training.run import Run

    config, _ = get_config([*TINY, "--output_dir", str(tmp_path)])
    for reg_tasks, expected in (("last", [2]), ("sum", [1, 2])):
        from dataclasses import replace

        chosen = replace(config, reg_tasks=reg_tasks, output_dir=str(tmp_path / reg_tasks))
        with Run(chosen, method="VDFD", paper="vdfd", device=torch.device("cpu"), seed=0, quiet=True) as run:
            protocol = build_protocol(chosen)
            data = SplitImages(chosen, run.device, remap_labels=False)
            setting = protocol.setting(data.sizes)
            learner = build_learner(chosen, protocol, build_model(chosen, setting, run), setting, data, run, 10.0)
            learner.load_state_dict(learner_state(whole))
            learner.memory.tasks = learner.memory.tasks[:2]
            learner.start_task(3)
            (stored,) = learner.regularised
            wanted = torch.stack([learner.memory.tasks[number - 1].gw_star for number in expected])
            assert torch.equal(stored.gw_star, wanted)


@pytest.mark.parametrize(("scripts", "row"), ROWS)
def test_a_row_in_its_short_form(scripts, row, tmp_path):
    environment = {**os.environ, "SMOKE": "1", "OUT": str(tmp_path), "PYTHON": sys.executable}
    result = subprocess.run(
        ["sh", f"{scripts}/vdfd.sh", row], cwd=FOLDER, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    (record,) = [json.loads(path.read_text()) for path in tmp_path.rglob("record.json")]
    assert record["cell"].startswith(f"vdfd/ci-{row}") and "smoke" in record["labels"]
