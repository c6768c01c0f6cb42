"""Whole programs on the embedded sample: rows in their short form, killing and resuming, what a run leaves behind."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from classification.task_incremental.main import get_config, main
from classification.vdfd.data import SplitImages
from common.training.checkpoint import read_newest_checkpoint
from common.training.errors import RunStopped, UserError
from tests.helpers import REPOSITORY, assert_same_run, wait_for_saves

pytestmark = pytest.mark.smoke

FOLDER = REPOSITORY / "classification" / "task_incremental"
TINY = [
    "--dataset", "Sample", "--first_split_size", "2", "--other_split_size", "2", "--max_tasks", "2",
    "--images_per_class", "24", "--widths", "4", "8", "8", "16", "--blocks", "1", "1", "1", "1", "--batch_size", "8",
    "--schedule", "1", "2", "--model_lr", "1e-3", "--head_lr", "5e-3", "--epsilons", "1e-3", "--gpuid", "-1",
    "--importance_batch", "16",
]  # fmt: skip


def arguments(folder: Path, *more: str) -> list[str]:
    return [*TINY, "--output_dir", str(folder), *more]


def final_state(folder: Path) -> dict:
    state, problems = read_newest_checkpoint(folder)
    assert not problems
    return state


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Path:
    """A run that nothing interrupted, saving as often as the ones that are killed."""
    folder = tmp_path_factory.mktemp("unbroken")
    main(arguments(folder))
    return folder


def test_kill_9_at_three_random_moments_and_resume(unbroken, tmp_path):
    """Every step writes a checkpoint, so that some of the kills fall into a write."""
    seed = random.SystemRandom().randrange(10**6)
    moments, folder = random.Random(seed), tmp_path / "killed"
    command = [sys.executable, "-u", "main.py", *arguments(folder, "--checkpoint_interval", "0")]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    for _ in range(3):
        process = subprocess.Popen(
            command, cwd=FOLDER, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        wait_for_saves(process, folder, moments.randint(1, 9))
        time.sleep(moments.random() * 0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    finished = subprocess.run(command, cwd=FOLDER, env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, f"seed {seed}: {finished.stderr}"
    assert_same_run(unbroken, folder)


def test_a_time_budget_stops_at_a_checkpoint_and_the_same_command_goes_on(unbroken, tmp_path):
    folder, stops = tmp_path / "budget", 0
    while True:
        try:
            main(arguments(folder, "--time_budget", "0"))
            break
        except RunStopped as stopped:
            stops += 1
            assert "time budget" in str(stopped)
            assert json.loads((folder / "record.json").read_text())["status"] == "stopped"
            assert stops < 50
    assert stops >= 24  # one step at a time
    assert_same_run(unbroken, folder)


def test_a_damaged_newest_checkpoint_falls_back_and_says_so(unbroken, tmp_path, capsys):
    folder = tmp_path / "damaged"
    with pytest.raises(RunStopped):
        main(arguments(folder, "--time_budget", "0"))
    with pytest.raises(RunStopped):
        main(arguments(folder, "--time_budget", "0"))
    newest = folder / "checkpoint.pt"
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    capsys.readouterr()
    main(arguments(folder))
    assert "falling back" in capsys.readouterr().out
    assert_same_run(unbroken, folder)


def test_a_finished_run_is_skipped_and_another_configuration_refused(unbroken, capsys):
    before = (unbroken / "checkpoint.pt").stat().st_mtime_ns
    summary = main(arguments(unbroken))
    assert "finished already" in capsys.readouterr().out
    assert summary["acc"] == json.loads((unbroken / "record.json").read_text())["metrics"]["acc"]
    assert (unbroken / "checkpoint.pt").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="batch_size"):
        main(arguments(unbroken, "--batch_size", "4"))


def test_the_record_says_what_was_run(unbroken):
    record = json.loads((unbroken / "record.json").read_text())
    assert record["status"] == "finished" and record["method"] == "VDFD" and record["paper"] == "vdfd"
    assert set(record["labels"]) == {"desk-scale", "shortened", "sub-sampled"}
    assert record["data"]["name"] == "Sample" and record["data"]["train_images"] == 20 * 24
    assert len(record["metrics"]["accuracy_matrix"]) == 2
    assert record["metrics"]["acc"] == pytest.approx(sum(record["metrics"]["accuracy_matrix"][-1]) / 2)
    assert str(REPOSITORY.parent) not in json.dumps({key: record[key] for key in ("data", "hardware", "versions")})


def test_loading_path_does_not_change_the_protocol(unbroken, tmp_path):
    """The same rows through torch's DataLoader: other augmentation draws, same steps, same images in every test."""
    main(arguments(tmp_path, "--loader", "dataloader"))
    one, other = (json.loads((folder / "record.json").read_text()) for folder in (unbroken, tmp_path))
    assert other["steps"] == one["steps"] == 2 * 2 * 6  # tasks, epochs, batches of 8 out of 48 images
    assert {key: other["data"][key] for key in ("train_images", "test_images", "tasks")} == {
        key: one["data"][key] for key in ("train_images", "test_images", "tasks")
    }
    logged = [points_of(folder) for folder in (unbroken, tmp_path)]
    assert logged[0] == logged[1]
    for path in ("device", "dataloader"):
        config, _ = get_config(arguments(tmp_path, "--loader", path))
        data = SplitImages(config, torch.device("cpu"), remap_labels=True)
        batches = [target for _, target in data.test_loader(2)]
        assert [len(target) for target in batches] == [8] * 12 + [4]
        assert torch.cat(batches).bincount().tolist() == [50, 50]


def points_of(folder: Path) -> list[tuple]:
    """Where and under which names a run has written its series."""
    points = [json.loads(line) for line in (folder / "series.jsonl").read_text().splitlines()]
    return [(point["name"], point["step"], point["task"], point["epoch"]) for point in points]


@pytest.mark.parametrize(
    "flags",
    [
        ["--precision", "bf16"],
        ["--fast"],
        ["--train_aug"],
        ["--reset_model_opt"],
        ["--rand_split"],
        ["--singular", "2"],
        ["--reg_coef", "100"],
        ["--compat", "paper"],
        ["--reg_tasks", "last", "--gcn", "residual"],
        ["--precision_rows", "free"],
        ["--model_optimizer", "SGD"],
        ["--head_weight_decay", "0.1"],
        ["--seed", "1"],
    ],
    ids=" ".join,
)
def test_a_flag_changes_the_run(flags, unbroken, tmp_path):
    main(arguments(tmp_path / "other", *flags))
    one, other = (final_state(folder)["parts"]["learner"]["model"] for folder in (unbroken, tmp_path / "other"))
    assert any(not torch.equal(one[key], other[key]) for key in one)


def test_regularised_heads_change_nothing_unless_the_optimiser_keeps_them(equal_draws, tmp_path):
    """O12: old heads are frozen, and old outputs do not depend on the new one."""
    for kept in ([], ["--reset_model_opt"]):
        folders = [tmp_path / "-".join([*kept, name]) for name in ("without", "with")]
        main(arguments(folders[0], *kept))
        main(arguments(folders[1], *kept, "--with_head"))
        one, other = (final_state(folder)["parts"]["learner"]["model"] for folder in folders)
        largest = max(float((one[key] - other[key]).abs().max()) for key in one)
        assert (largest > 1e-4) if kept else (largest < 1e-5)


@pytest.mark.parametrize("flags", [["--importance_batch", "1000"], ["--validation_interval", "0"]], ids=" ".join)
def test_a_flag_that_must_not_change_the_run(flags, unbroken, tmp_path):
    main(arguments(tmp_path / "other", *flags))
    one, other = (final_state(folder)["parts"]["learner"]["model"] for folder in (unbroken, tmp_path / "other"))
    for key in one:
        torch.testing.assert_close(one[key], other[key], rtol=1e-3, atol=1e-5)


def test_without_reset_a_run_resumes_exactly_too(tmp_path):
    flags = ("--reset_model_opt", "--rand_split_order")
    main(arguments(tmp_path / "whole", *flags))
    stops = 0
    while stops < 50:
        try:
            main(arguments(tmp_path / "parts", *flags, "--time_budget", "0"))
            break
        except RunStopped:
            stops += 1
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_repetitions_and_coefficients_have_folders_of_their_own(tmp_path):
    flags = ["--repeat", "2", "--reg_coef", "1", "5", "--max_tasks", "1", "--schedule", "1"]
    summary = main(arguments(tmp_path, *flags))
    folders = sorted(str(path.parent.relative_to(tmp_path)) for path in tmp_path.rglob("record.json"))
    assert folders == [f"reg_{c}/repeat_{r}" for c in (1, 5) for r in (0, 1)]
    assert len(summary["runs"]) == 4 and json.loads((tmp_path / "summary.json").read_text()) == summary
    for coefficient in ("1", "5"):
        records = [tmp_path / f"reg_{coefficient}" / f"repeat_{r}" / "record.json" for r in (0, 1)]
        accuracies = [json.loads(path.read_text())["metrics"]["acc"] for path in records]
        assert summary["reg_coef"][coefficient]["acc"] == pytest.approx(sum(accuracies) / 2)
    first, second = (final_state(tmp_path / "reg_1" / f"repeat_{r}")["parts"]["learner"]["model"] for r in (0, 1))
    assert not torch.equal(first["conv1.weight"], second["conv1.weight"])


def test_mnists_short_form_shows_the_sample_in_grey(tmp_path):
    flags = ["--dataset", "MNIST", "--model_type", "mlp", "--model_name", "MLP", "--smoke", "--gpuid", "-1"]
    assert main([*flags, "--output_dir", str(tmp_path)])["runs"][0]["tasks_done"] == 2


def test_the_processes_of_test_loaders_do_not_add_up(tmp_path):
    """None is left of a test, however many tasks have been tested."""
    config, _ = get_config(arguments(tmp_path, "--loader", "dataloader", "--workers", "2"))
    data, before = SplitImages(config, torch.device("cpu"), remap_labels=True), set(multiprocessing.active_children())
    for task in (1, 2, 3):
        assert sum(len(target) for _, target in data.test_loader(task)) == 100
    assert set(multiprocessing.active_children()) <= before


def test_initial_weights_from_a_file(tmp_path):
    main(arguments(tmp_path / "first", "--max_tasks", "1"))
    weights = final_state(tmp_path / "first")["parts"]["learner"]["model"]
    torch.save(weights, tmp_path / "weights.pth")
    main(
        arguments(
            tmp_path / "second",
            "--max_tasks",
            "1",
            "--model_weights",
            str(tmp_path / "weights.pth"),
            "--model_lr",
            "0",
            "--head_lr",
            "0",
        )
    )
    loaded = final_state(tmp_path / "second")["parts"]["learner"]["model"]
    assert torch.equal(weights["conv1.weight"], loaded["conv1.weight"])
    weights.pop("conv1.weight")
    torch.save(weights, tmp_path / "partial.pth")
    with pytest.raises(UserError, match=r"missing: conv1\.weight"):
        main(arguments(tmp_path / "third", "--model_weights", str(tmp_path / "partial.pth")))


def test_missing_data_is_one_line_and_exit_code_2(tmp_path):
    command = [
        sys.executable, "main.py", "--dataset", "TinyImageNet", "--dataroot", str(tmp_path), "--output_dir",
        str(tmp_path / "out"),
    ]  # fmt: skip
    result = subprocess.run(
        command, cwd=FOLDER, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True
    )
    assert result.returncode == 2
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1 and "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "row", ["cifar100-10", "cifar100-20", "tinyimagenet-25", "fivedatasets-5", "subimagenet-10-resnet50"]
)
def test_a_row_in_its_short_form(row, tmp_path):
    """As a user would: `SMOKE=1 sh scripts/vdfd.sh ROW`; leaves a record labelled smoke."""
    environment = {**os.environ, "SMOKE": "1", "OUT": str(tmp_path), "PYTHON": sys.executable}
    result = subprocess.run(["sh", "scripts/vdfd.sh", row], cwd=FOLDER, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (record,) = [json.loads(path.read_text()) for path in tmp_path.rglob("record.json")]
    assert record["cell"] == f"vdfd/ti-{row}" and "smoke" in record["labels"] and record["status"] == "finished"
