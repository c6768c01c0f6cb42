"""Whole programs on the embedded sample: resume after every step, checkpoints of tasks, dumping, ablations, rows."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from common.training.checkpoint import read_checkpoint, read_newest_checkpoint
from common.training.errors import RunStopped, UserError
from common.training.journal import read_series
from common.training.precision import set_backend_flags
from rfd import run_dfcil
from rfd.data.protocol import published_order
from rfd.learning.fixed import Joint
from rfd.main import main
from rfd.networks import IncrementalNetwork
from tests.helpers import REPOSITORY, assert_same_run, wait_for_saves

pytestmark = pytest.mark.smoke

FOLDER = REPOSITORY / "rfd"
TINY = [
    "--seed", "0", "--trainer.gpus", "0", "--trainer.max_epochs", "3", "--trainer.check_val_every_n_epoch", "1",
    "--model.milestones", "[1]", "--model.finetuning_epochs", "1", "--model.num_inv_iters", "2", "--model.blocks", "2",
    "--model.width", "2", "--model.gen_width", "4", "--model.gen_latent", "8", "--data.dataset", "sample",
    "--data.num_classes", "4", "--data.images_per_class", "8", "--data.test_images_per_class", "2",
    "--data.num_tasks", "2", "--data.batch_size", "8", "--trainer.log_every_n_steps", "1",
]  # fmt: skip


def arguments(folder: Path, *more: str) -> list[str]:
    return [*TINY, "--output_dir", str(folder), *more]


def final_state(folder: Path) -> dict:
    state, problems = read_newest_checkpoint(folder)
    assert not problems
    return state


def step_by_step(program, flags: list[str]) -> int:
    """Run a program one step per call; returns how often it stopped."""
    for stops in range(80):
        try:
            program([*flags, "--time_budget", "0"])
            return stops
        except RunStopped as stopped:
            assert "time budget" in str(stopped)
    raise AssertionError("it never ended")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """An RFD run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    main(arguments(folder))
    return folder


def weights_of(folder: Path) -> dict:
    return final_state(folder)["parts"]["learner"]["network"]


def differ(one: dict, other: dict) -> bool:
    return one.keys() != other.keys() or any(not torch.equal(one[key], other[key]) for key in one)


# --- resume -----------------------------------------------------------------------------------------------------------


def test_rfd_resumes_exactly_after_every_step(whole, tmp_path):
    stops = step_by_step(main, arguments(tmp_path))
    assert stops == 2 * 2 + 2 + 2 * 3  # no batch of the first task's idle finetuning epoch, two generator steps
    assert_same_run(whole, tmp_path)


@pytest.mark.parametrize("method", ["rdfcil", "abd", "joint", "rfd --fast", "abd --fast"])
def test_the_other_methods_resume_exactly_too(method, tmp_path):
    flags = ("--model.method", *method.split(), "--keep_checkpoints", "none", "--data.batch_size", "16")
    main(arguments(tmp_path / "whole", *flags))
    stops = step_by_step(main, arguments(tmp_path / "parts", *flags))
    assert stops >= 6
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_kill_9_at_a_random_moment_and_resume(whole, tmp_path):
    seed = random.SystemRandom().randrange(10**6)
    moments = random.Random(seed)
    command = [sys.executable, "-u", "main.py", *arguments(tmp_path, "--checkpoint_interval", "0")]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=FOLDER, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wait_for_saves(process, tmp_path, moments.randint(1, 6))
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = subprocess.run(command, cwd=FOLDER, env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, f"seed {seed}: {finished.stderr}"
    assert not differ(weights_of(whole), weights_of(tmp_path))


def test_a_finished_run_is_skipped_and_another_configuration_refused(whole, capsys):
    before = (whole / "checkpoint.pt").stat().st_mtime_ns
    assert main(arguments(whole)) == json.loads((whole / "record.json").read_text())["metrics"]
    assert "finished already" in capsys.readouterr().out
    assert (whole / "checkpoint.pt").stat().st_mtime_ns == before
    with pytest.raises(UserError, match=r"--model\.base_lr"):
        main(arguments(whole, "--model.base_lr", "0.2"))


def test_where_data_and_device_are_may_change_on_resume(whole):
    main(arguments(whole, "--data.root", "/nowhere", "--data.num_workers", "1", "--model.dump_images", "1"))


def test_one_run_has_one_name_and_other_orders_have_another_seed(tmp_path):
    flags = [*TINY[2:], "--seed_everything", "1", "--keep_checkpoints", "none"]
    order = ["--data.class_order", str(published_order(4, 1))]
    records = []
    for folder, more in (("config", order), ("repetition", [*order, "--seed", "1"]), ("other", [])):
        main([*flags, *more, "--output_dir", str(tmp_path / folder)])
        records.append(json.loads((tmp_path / folder / "record.json").read_text()))
    assert records[0]["run_id"] == records[1]["run_id"]
    assert [record["seed"] for record in records] == [1, 1, -2]
    assert not differ(weights_of(tmp_path / "config"), weights_of(tmp_path / "repetition"))


# --- files of a task --------------------------------------------------------------------------------------------------


def test_last_and_best_checkpoints_mean_what_they_say(whole):
    points = [p for p in read_series(whole / "series.jsonl") if p["name"] == "val/accuracy"]
    for task in (0, 1):
        accuracies = [point["value"] for point in points if point["task"] == task + 1]
        assert len(accuracies) == 3 and max(accuracies) > 0
        last, best = (read_checkpoint(whole / f"task_{task}" / f"{name}.ckpt") for name in ("last", "best"))
        assert last["accuracy"] == accuracies[-1] and last["learner"]["epoch"] == 3
        assert best["accuracy"] == max(accuracies)
        assert best["learner"]["epoch"] == accuracies.index(max(accuracies)) + 1
    assert not (whole / "task_0" / "inversion.ckpt").exists() and (whole / "task_1" / "inversion.ckpt").exists()


def test_a_later_task_can_be_started_from_a_checkpoint(whole, tmp_path):
    flags = ("--data.current_task", "0", "--trainer.resume_from_checkpoint", str(whole / "task_0" / "last.ckpt"))
    metrics = main(arguments(tmp_path, *flags))
    assert metrics == json.loads((whole / "record.json").read_text())["metrics"]
    assert not differ(weights_of(whole), weights_of(tmp_path))
    middle = ("--data.current_task", "1", "--trainer.resume_from_checkpoint", str(whole / "task_1" / "best.ckpt"))
    main(arguments(tmp_path / "middle", *middle))
    assert not differ(weights_of(whole), weights_of(tmp_path / "middle"))


def test_a_checkpoint_of_another_task_or_method_is_refused(whole, tmp_path):
    file = str(whole / "task_1" / "last.ckpt")
    with pytest.raises(UserError, match="current_task"):
        main(arguments(tmp_path / "a", "--data.current_task", "0", "--trainer.resume_from_checkpoint", file))
    flags = ("--data.current_task", "1", "--trainer.resume_from_checkpoint", file, "--model.method", "rdfcil")
    with pytest.raises(UserError, match="RFD"):
        main(arguments(tmp_path / "b", *flags))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--seed", "1"], "class order"),
        (["--data.num_tasks", "4"], "begin and end at classes 0 2 4, those of this run at 0 1 2 3 4"),
        (["--model.width", "3"], "do not fit this network"),
        (["--model.gen_width", "5"], "do not fit this network"),
        (["--model.head", "linear"], "do not fit this network"),
    ],
)
def test_a_checkpoint_of_another_order_split_or_network_is_refused_in_one_line(flags, expected, whole, tmp_path):
    file = str(whole / "task_1" / "best.ckpt")
    start = ("--data.current_task", "1", "--trainer.resume_from_checkpoint", file)
    with pytest.raises(UserError, match=expected) as refused:
        main(arguments(tmp_path, *start, *flags))
    assert "\n" not in str(refused.value) and file in str(refused.value)


def test_a_saved_generator_replaces_the_first_training(whole, tmp_path):
    flags = ("--model.inv_resume_from", str(whole / "task_1" / "inversion.ckpt"))
    main(arguments(tmp_path, *flags))
    series = list(read_series(tmp_path / "series.jsonl"))
    assert not any(point["name"].startswith("train/generator") for point in series)
    states = [final_state(folder)["parts"]["learner"]["inversion"]["generator"] for folder in (whole, tmp_path)]
    assert torch.equal(states[0]["l1.0.weight"], states[1]["l1.0.weight"])


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--model.inv_resume_from", "nowhere.ckpt"], "nowhere.ckpt"),
        (["--model.inv_resume_from", "task_0/last.ckpt"], "holds no generator"),
        (["--model.inv_resume_from", "task_1/inversion.ckpt", "--model.gen_width", "6"], "do not fit"),
        (["--model.gen_width", "1"], "gen_width"),
    ],
)
def test_a_generator_that_cannot_be_is_refused_before_the_first_task(flags, expected, whole, tmp_path, monkeypatch):
    monkeypatch.chdir(whole)
    with pytest.raises(UserError, match=expected) as refused:
        main(arguments(tmp_path, *flags))
    assert "\n" not in str(refused.value) and "=== task 1" not in (tmp_path / "log.txt").read_text()


# --- what flags do ----------------------------------------------------------------------------------------------------


def test_dumping_images_changes_no_weight(whole, tmp_path):
    main(arguments(tmp_path, "--model.dump_images", "1"))
    assert_same_run(whole, tmp_path)
    names = {path.name.split("_")[1] for path in (tmp_path / "images" / "task_1").iterdir()}
    assert names == {"real.png", "synthetic.png"} and len(list((tmp_path / "images" / "task_0").iterdir())) == 4
    assert not (whole / "images").exists()


@pytest.mark.parametrize(
    ("weight", "term"), [("lambda_kd", "sm"), ("lambda_distkd_new", "distkd_new"), ("lambda_distkd_old", "distkd_old")]
)
def test_a_weight_of_zero_drops_the_term_and_its_passes(weight, term, whole, tmp_path):
    main(arguments(tmp_path, f"--model.{weight}", "0", "--keep_checkpoints", "none"))
    names = [{point["name"] for point in read_series(folder / "series.jsonl")} for folder in (whole, tmp_path)]
    assert f"train/{term}" in names[0] and f"train/{term}" not in names[1]
    passes = [weights_of(folder)["backbone.stage_4.bn_b.num_batches_tracked"].item() for folder in (whole, tmp_path)]
    saved = 4 if term != "distkd_new" else 0  # one training-mode pass less in each of four representation steps
    assert passes[0] - passes[1] == saved


def test_abd_port_without_its_distillation_does_not_ask_the_old_network(tmp_path, monkeypatch):
    forward, asked = IncrementalNetwork.forward, Counter()

    def counting(network: IncrementalNetwork, images: torch.Tensor) -> torch.Tensor:
        asked[name] += not network.training
        return forward(network, images)

    monkeypatch.setattr(IncrementalNetwork, "forward", counting)
    for name in ("0.1", "0"):
        flags = ("--model.method", "abd_port", "--model.lambda_kd", name, "--keep_checkpoints", "none")
        main(arguments(tmp_path / name, *flags))
    assert asked["0.1"] - asked["0"] == 6  # the steps of the second task
    assert "train/fkd" not in {point["name"] for point in read_series(tmp_path / "0" / "series.jsonl")}


def test_the_trainers_quirk_makes_unused_passes_count(tmp_path):
    flags = ("--model.finetuning_epochs", "2", "--keep_checkpoints", "none")
    main(arguments(tmp_path / "plain", *flags))
    main(arguments(tmp_path / "quirk", *flags, "--model.lightning_val_quirk", "true"))
    plain, quirk = (weights_of(tmp_path / name) for name in ("plain", "quirk"))
    # two steps in training mode: real and synthetic images, and the hybrid pass from the second stage on
    for name, updates in (("bn_1", 2), ("stage_1.blocks.0.bn_a", 2), ("stage_2.blocks.0.bn_a", 3), ("stage_4.bn_b", 3)):
        key = f"backbone.{name}.num_batches_tracked"
        assert quirk[key] - plain[key] == 2 * updates, name


@pytest.mark.parametrize(
    "flags",
    [
        ["--seed", "1"], ["--model.noise", "cpu"], ["--model.head", "linear"], ["--model.wrd_inter", "0"],
        ["--model.lightning_val_quirk", "true"], ["--trainer.gradient_clip_val", "0.01"],
        ["--data.augmentation", "abd"],
        ["--trainer.precision", "bf16"], ["--fast"], ["--model.inv_tau", "1"], ["--data.test_mode", "current"],
        ["--model.method", "abd_port"], ["--model.method", "deepinv"], ["--model.method", "lwf_synthetic"],
        ["--model.method", "lwf_mc"], ["--model.method", "base"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_flag_does_something(flags, whole, tmp_path):
    more = ["--trainer.check_val_every_n_epoch", "1"]
    if "lightning_val_quirk" in flags[0]:
        more = ["--model.finetuning_epochs", "2"]  # the quirk begins after a test inside the phase
        main(arguments(tmp_path / "plain", *more, "--keep_checkpoints", "none"))
    main(arguments(tmp_path / "other", *flags, *more, "--keep_checkpoints", "none"))
    if flags == ["--model.noise", "cpu"]:  # on the CPU both draw from the same generator
        assert not differ(weights_of(whole), weights_of(tmp_path / "other"))
    elif "test_mode" in flags[0]:
        names = {point["name"] for point in read_series(tmp_path / "other" / "series.jsonl")}
        assert "val/accuracy" not in names and "val/accuracy_new" in names
    else:
        reference = tmp_path / "plain" if (tmp_path / "plain").exists() else whole
        assert differ(weights_of(reference), weights_of(tmp_path / "other"))


def test_the_trainers_keys_for_cudnn_do_what_they_say(whole, tmp_path):
    try:
        for value in (False, True):
            main(arguments(whole, "--trainer.deterministic", str(value).lower()))  # finished: it only sets the flags
            assert torch.backends.cudnn.deterministic == value and not torch.backends.cudnn.benchmark
        main(arguments(tmp_path, "--fast", "--trainer.benchmark", "false", "--keep_checkpoints", "none"))
        assert not torch.backends.cudnn.benchmark and not torch.backends.cudnn.deterministic
    finally:
        set_backend_flags(False)


def test_the_logged_accuracy_is_real(whole):
    record = json.loads((whole / "record.json").read_text())
    series = list(read_series(whole / "series.jsonl"))
    (last,) = [point["value"] for point in series if point["name"] == "test/last" and point["task"] == 2]
    tested = [point["value"] for point in series if point["name"] == "val/accuracy" and point["task"] == 2]
    assert record["metrics"]["last"] == last == tested[-1]
    text = (whole / "log.txt").read_text()
    assert f"Accuracy (all | new | old): {last:.2f} |" in text
    assert set(record["labels"]) == {"desk-scale", "shortened", "sub-sampled"} and record["method"] == "RFD"
    assert str(REPOSITORY.parent) not in json.dumps({key: record[key] for key in ("data", "hardware", "versions")})


# --- the original ABD's program and the scripts ----------------------------------------------------------------------


def test_the_oracle_starts_afresh_on_the_images_of_all_classes_seen(tmp_path, monkeypatch):
    start_task, seen = Joint.start_task, []

    def recording(learner: Joint, task: int) -> None:
        start_task(learner, task)
        counters = [value for name, value in learner.network.state_dict().items() if name.endswith("batches_tracked")]
        seen.append((task, learner.loader.dataset_size, sum(map(int, counters))))

    monkeypatch.setattr(Joint, "start_task", recording)
    main(arguments(tmp_path, "--model.method", "joint", "--keep_checkpoints", "none"))
    assert seen == [(1, 16, 0), (2, 32, 0)]


ABD = [
    "--gpuid", "-1", "--dataset", "Sample", "--train_aug", "--rand_split", "--model_type", "resnet", "--model_name",
    "resnet18", "--gen_model_type", "generator", "--gen_model_name", "CIFAR_GEN", "--learner_type", "datafree",
    "--learner_name", "AlwaysBeDreaming", "--lr", "0.1", "--momentum", "0.9", "--mu", "0.1",
    "--deep_inv_params", "1e-3", "5e1", "1e-3", "1e3", "1", "--smoke",
]  # fmt: skip


def test_repetitions_of_the_original_protocol(tmp_path):
    flags = [*ABD, "--output_dir", str(tmp_path)]
    first = run_dfcil.main(flags)
    assert len(first["runs"]) == 1 and first["global_std"] == 0
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["method"] == "ABD" and record["metrics"]["tasks_done"] == 2 and record["seed"] == 0
    assert record["config"]["first_split_size"] == 2


def test_the_seed_of_a_task_leaves_the_flags_of_fast_alone(tmp_path):
    try:
        method = ["--learner_type", "default", "--learner_name", "NormalNN"]
        run_dfcil.main([*ABD, *method, "--fast", "--output_dir", str(tmp_path)])
        numerics = json.loads((tmp_path / "record.json").read_text())["numerics"]
        assert numerics["cudnn_benchmark"] and not numerics["cudnn_deterministic"]
    finally:
        set_backend_flags(False)


@pytest.mark.parametrize(
    ("script", "row"),
    [("rfd.sh", "imagenet-r-10"), ("abd.sh", "cifar100-10-abd")],
)
def test_a_row_in_its_short_form(script, row, tmp_path):
    """As a user would: `SMOKE=1 sh scripts/... ROW`, in under a minute, with a record labelled smoke."""
    environment = {**os.environ, "SMOKE": "1", "OUT": str(tmp_path), "PYTHON": sys.executable, "GPUID": "-1"}

    result = subprocess.run(
        ["sh", f"scripts/{script}", row], cwd=FOLDER, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr

    (record,) = [json.loads(path.read_text()) for path in tmp_path.rglob("record.json")]
    assert record["cell"].startswith("rfd/") and "smoke" in record["labels"] and record["status"] == "finished"


def test_missing_data_is_one_line_and_exit_code_2(tmp_path):
    command = [sys.executable, "main.py", "--config", "config/imagenet100.yaml", "--data.root", str(tmp_path),
               "--output_dir", str(tmp_path / "out")]  # fmt: skip
    result = subprocess.run(
        command, cwd=FOLDER, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True
    )
    assert result.returncode == 2
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1 and "Traceback" not in result.stderr
