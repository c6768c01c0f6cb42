"""Whole programs on the embedded sample with tiny random backbones: short forms, resume, processes, evaluation."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from common.training.checkpoint import read_newest_checkpoint
from common.training.errors import RunStopped, UserError
from prompt_distill.backbones import PAIR_FOLDER
from prompt_distill.evaluate import main as evaluate
from prompt_distill.main import main
from repro.records import load_record
from tests.helpers import REPOSITORY, assert_same_run

pytestmark = pytest.mark.smoke

FOLDER = REPOSITORY / "prompt_distill"
CODA = ["--learner_name", "CODAPrompt", "--prompt_param", "6", "4", "0.0"]
DUAL = ["--learner_name", "DualPrompt", "--prompt_param", "2", "4", "4"]
L2P = ["--learner_name", "L2P", "--prompt_param", "8", "4", "-1"]
APT = ["--learner_name", "APT", "--prompt_param", "0.01"]
KDP = ["--KD_method", "KD_Token"]
TINY = [
    "--dataset", "Sample", "--first_split_size", "2", "--other_split_size", "2", "--max_task", "2", "--gpuid", "-1",
    "--t_model", "vit_random_teacher", "--s_model", "vit_random_student", "--images_per_class", "8",
    "--batch_size", "8", "--schedule", "1", "2",
]  # fmt: skip


def arguments(folder: Path, *more: str) -> list[str]:
    return [*TINY, "--output_dir", str(folder), *more]


def final_state(folder: Path) -> dict:
    state, problems = read_newest_checkpoint(folder)
    assert not problems
    return state


def weights(folder: Path, name: str = "student") -> dict[str, torch.Tensor]:
    return final_state(folder)["parts"]["learner"][name]


def differs(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return any(not torch.equal(one[key], other[key]) for key in one)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Path:
    """CODA-Prompt with CDL-Prompt, uninterrupted."""
    folder = tmp_path_factory.mktemp("unbroken")
    main(arguments(folder, *CODA))
    return folder


@pytest.mark.parametrize(
    "flags",
    [CODA, [*APT, *KDP, "--schedule", "1"], [*DUAL, "--KD_method", "none"]],
    ids=["joint", "sequential", "alone"],
)
def test_stopped_after_every_step_and_resumed(flags, tmp_path):
    main(arguments(tmp_path / "whole", *flags))
    stops = 0
    while True:
        try:
            main(arguments(tmp_path / "parts", *flags, "--time_budget", "0"))
            break
        except RunStopped:
            stops += 1
            assert json.loads((tmp_path / "parts" / "record.json").read_text())["status"] == "stopped"
            assert stops < 30
    assert stops >= 7
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_kill_9_in_the_middle_and_resume(unbroken, tmp_path):
    folder = tmp_path / "killed"
    command = [sys.executable, "-m", "prompt_distill.main", *arguments(folder, *CODA, "--checkpoint_interval", "0")]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (folder / "checkpoint.previous.pt").exists():
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    main(arguments(folder, *CODA))
    assert_same_run(unbroken, folder)


def test_a_finished_run_is_skipped_and_another_configuration_refused(unbroken, capsys):
    main(arguments(unbroken, *CODA))
    assert "finished already" in capsys.readouterr().out
    taken = yaml.safe_load((unbroken / "results-time" / "global.yaml").read_text())["mean"]
    assert taken == [json.loads((unbroken / "record.json").read_text())["wall_seconds"]]
    with pytest.raises(UserError, match="kd_alpha"):
        main(arguments(unbroken, *CODA, "--kd_alpha", "0.4"))


def test_a_run_goes_on_with_its_own_backbones_only(tmp_path):
    words = arguments(tmp_path / "run", *L2P, "--KD_method", "none", "--s_model", "vit_pair_student")
    with pytest.raises(RunStopped):
        main([*words, "--time_budget", "0"])
    path = tmp_path / "vit_pair_student.safetensors"
    state = load_file(PAIR_FOLDER / path.name)
    save_file({**state, "norm.bias": state["norm.bias"] + 1}, path)
    with pytest.raises(UserError, match="another backbone of the student") as refused:
        main([*words, "--weights", str(path)])
    assert "\n" not in str(refused.value)
    save_file(state, path)
    main([*words, "--weights", str(path)])  # the same weights elsewhere


def test_what_a_run_leaves(unbroken):
    record = load_record(unbroken).content  # as the audit desk reads it
    assert record["status"] == "finished" and record["method"] == "CODA-Prompt-CDL-Prompt"
    assert set(record["labels"]) == {"desk-scale", "shortened", "sub-sampled"}
    assert all("never trained" in line for line in record["data"]["backbones"])
    assert record["config"]["variant"] == "cdl_prompt_2024_07"
    history = yaml.safe_load((unbroken / "results-acc" / "global.yaml").read_text())
    assert history["mean"] == pytest.approx(record["metrics"]["acc_history"])
    assert len((unbroken / "temp" / "acc_s.csv").read_text().splitlines()) == 2
    assert yaml.safe_load((unbroken / "args.yaml").read_text())["KD_method"] == "CDL-Prompt"
    assert str(REPOSITORY.parent) not in json.dumps({key: record[key] for key in ("data", "hardware", "metrics")})


def test_kept_weights_give_the_recorded_accuracies(unbroken):
    rows = json.loads((unbroken / "record.json").read_text())["metrics"]["accuracy_matrix"]
    for task in (1, 2):
        results = evaluate([str(unbroken), "--task", str(task), "--gpuid", "-1"])
        assert [result["student"] for result in results] == rows[task - 1][:task]
    with pytest.raises(UserError, match="no weights after task 3"):
        evaluate([str(unbroken), "--task", "3"])


@pytest.mark.parametrize(
    "flags",
    [
        ["--kd_alpha", "0.9"],
        ["--Soft_T", "4"],
        ["--student_schedule", "schedule", "--schedule_type", "decay"],
        ["--class_order", "seeded"],
        ["--normalise"],
        ["--mapping_growth"],
        ["--optimizer", "SGD"],
        ["--weight_decay", "0.1"],
        ["--train_aug"],
        ["--precision", "bf16"],
        ["--seed", "7"],
        ["--validation"],
    ],
    ids=" ".join,
)
def test_a_flag_changes_the_run(flags, unbroken, tmp_path):
    main(arguments(tmp_path / "other", *CODA, *flags))
    learner, other = (final_state(folder)["parts"]["learner"] for folder in (unbroken, tmp_path / "other"))
    assert differs(learner["student"], other["student"]) or differs(learner["distillation"], other["distillation"])


def test_flags_of_other_methods_change_their_runs(tmp_path):
    """--key_loss and the virtual devices in L2P; the time of APT's merging."""
    for name, flags in {
        "l2p": [*L2P, "--KD_method", "KD"],
        "sum": [*L2P, "--KD_method", "KD", "--key_loss", "sum"],
        "apt": [*APT, *KDP],
        "early": [*APT, *KDP, "--merge_before_student"],
        "dual": DUAL,
        "dual2": [*DUAL, "--virtual_devices", "2"],
    }.items():
        main(arguments(tmp_path / name, *flags, "--schedule", "1"))
    for one, other in (("l2p", "sum"), ("apt", "early"), ("dual", "dual2")):
        assert differs(weights(tmp_path / one), weights(tmp_path / other)), other


@pytest.mark.parametrize("method", ["KD", "DKD", "FitNets", "ReviewKD", "KD_Token"])
def test_every_distillation_with_every_prompt_method(method, tmp_path):
    """Each distillation method with one prompt method here; APT and CODA with KD_Token, the rest above."""
    prompts = {"KD": DUAL, "DKD": L2P, "FitNets": APT, "ReviewKD": CODA, "KD_Token": CODA}[method]
    variant = ["--variant", "kd_token_2024_12"] if method == "KD_Token" else []
    summary = main(arguments(tmp_path, *prompts, "--KD_method", method, *variant, "--schedule", "1"))
    assert 0 <= summary["acc"] <= 100 and summary["runs"][0]["teacher_acc"] is not None


def test_repetitions_have_folders_and_seeds_of_their_own(tmp_path):
    summary = main(arguments(tmp_path, *L2P, "--KD_method", "none", "--repeat", "2"))
    seeds = [json.loads((tmp_path / f"repeat_{r}" / "record.json").read_text())["seed"] for r in (0, 1)]
    assert seeds == [10, 11] and len(summary["runs"]) == 2
    assert "std" in yaml.safe_load((tmp_path / "results-acc" / "global.yaml").read_text())


def test_the_time_budget_is_that_of_all_repetitions(tmp_path, monkeypatch):
    words = arguments(tmp_path, *L2P, "--KD_method", "none", "--repeat", "2", "--time_budget", "1000")
    begun = SimpleNamespace(monotonic=lambda: time.monotonic() - 2000)
    monkeypatch.setattr("prompt_distill.experiment.time", begun)
    with pytest.raises(RunStopped, match="time budget"):
        main(words)
    assert not (tmp_path / "repeat_1").exists()


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    with pytest.raises(UserError, match="loss term"):
        main(arguments(tmp_path, *CODA, "--lr", "1e30", "--optimizer", "SGD"))


def test_two_processes_do_what_two_virtual_devices_do(tmp_path):
    """Through torchrun, on the CPU; stopped once on the way. SGD, because Adam blows up rounding of tiny gradients."""
    flags = [*L2P, "--optimizer", "SGD", "--lr", "0.1"]
    main(arguments(tmp_path / "one", *flags, "--virtual_devices", "2"))
    start = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        "-m",
        "prompt_distill.main",
    ]
    words = arguments(tmp_path / "two", *flags, "--gpuid", "-1", "-1")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for budget in (["--time_budget", "0"], []):
        subprocess.run([*start, *words, *budget], cwd=REPOSITORY, env=environment, capture_output=True, timeout=300)
    for name in ("student", "teacher"):
        for key, value in weights(tmp_path / "one", name).items():
            torch.testing.assert_close(weights(tmp_path / "two", name)[key], value, rtol=1e-4, atol=1e-5)
    records = [json.loads((tmp_path / name / "record.json").read_text()) for name in ("one", "two")]
    assert records[0]["metrics"]["accuracy_matrix"] == records[1]["metrics"]["accuracy_matrix"]
    assert "resumed" in (tmp_path / "two" / "log.txt").read_text()
    words = [*words, "--resume", "never"]  # the first process moves the older run, and with it the other's folder
    again = subprocess.run([*start, *words], cwd=REPOSITORY, env=environment, capture_output=True, timeout=300)
    assert again.returncode == 0, again.stderr.decode()[-2000:]
    assert json.loads((tmp_path / "two" / "record.json").read_text())["metrics"] == records[1]["metrics"]


def test_a_script_in_its_short_form(tmp_path):
    """As a user would: `SMOKE=1 sh experiments/boards-imagenet-r.sh ROW`, in under a minute, with a labelled record."""
    environment = {**os.environ, "SMOKE": "1", "OUT": str(tmp_path), "PYTHON": sys.executable}
    words = ["sh", "experiments/boards-imagenet-r.sh", "base-small-apt-fitnets"]
    result = subprocess.run(words, cwd=FOLDER, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr

    (record,) = [json.loads(path.read_text()) for path in tmp_path.rglob("record.json")]
    assert record["cell"] == "prompt_distill/imagenet-r-base-small-apt-fitnets" and "smoke" in record["labels"]


def test_without_weights_it_says_so(tmp_path):
    with pytest.raises(UserError, match="expected a file, or a folder with vit_base_patch16_224"):
        models = ["--t_model", "vit_base_patch16_224", "--s_model", "vit_tiny_patch16_224"]
        main([*TINY, *models, "--weights", str(tmp_path), "--output_dir", str(tmp_path)])
