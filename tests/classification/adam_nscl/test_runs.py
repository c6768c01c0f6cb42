"""Adam-NSCL as a method of the task-incremental program: flags, refusals, whole runs in pieces, its script."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from classification.adam_nscl.learner import AdamNSCL
from classification.task_incremental.main import get_config, main
from common.backbones.registry import build_backbone
from common.training.errors import UserError
from tests.classification.runs import differs, learner_state, run_in_pieces
from tests.helpers import REPOSITORY, assert_same_run

FOLDER = REPOSITORY / "classification" / "task_incremental"
TINY = [
    "--agent_type", "svd_based", "--agent_name", "svd_based", "--dataset", "Sample", "--first_split_size", "2",
    "--other_split_size", "2", "--max_tasks", "3", "--images_per_class", "6", "--widths", "4", "6", "--blocks", "1",
    "1", "--batch_size", "4", "--schedule", "1", "2", "--model_lr", "1e-3", "--svd_lr", "5e-4", "--head_lr", "5e-3",
    "--bn_lr", "1e-3", "--reg_coef", "100", "--gpuid", "-1",
]  # fmt: skip
ROWS = {
    "cifar100-10": ("CIFAR100", "../../data", 10, 32, 1e-4, 10.0, "outputs/adamnscl/CIFAR100_10tasks"),
    "cifar100-20": ("CIFAR100", "../../data", 5, 16, 1e-4, 30.0, "outputs/adamnscl/CIFAR100_20tasks"),
    "tinyimagenet-25": (
        "TinyImageNet", "../../data/tiny-imagenet-200/", 8, 16, 5e-5, 10.0, "outputs/adamnscl/TinyImageNet_25tasks"
    ),
}  # fmt: skip
SHARED = {
    "agent_type": "svd_based", "agent_name": "svd_based", "schedule": [30, 60, 80], "reg_coef": [100.0],
    "head_lr": 1e-3, "svd_lr": 5e-5, "bn_lr": 5e-4, "model_weight_decay": 5e-5, "model_optimizer": "Adam",
    "model_type": "resnet", "model_name": "resnet18", "force_out_dim": 0, "repeat": 1, "gpuid": [0],
}  # fmt: skip


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nscl")
    main([*TINY, "--output_dir", str(folder)])
    return folder


def script(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    ours = ("OUT", "SEED", "GPUID", "DATAROOT", "SMOKE")
    settings = {key: value for key, value in os.environ.items() if key not in ours} | environment
    command = ["sh", "scripts/adamnscl.sh", *arguments]
    return subprocess.run(command, cwd=FOLDER, env=settings, capture_output=True, text=True)


@pytest.mark.audit
@pytest.mark.parametrize("row", ROWS)
def test_values_of_a_row(row):
    (line,) = script(row, PYTHON="echo").stdout.splitlines()
    flag_u, program, *flags = line.split()
    assert (flag_u, program) == ("-u", "main.py")
    config, changed = get_config(flags)
    columns = ("dataset", "dataroot", "first_split_size", "batch_size", "model_lr", "svd_thres", "output_dir")
    expected = SHARED | dict(zip(columns, ROWS[row], strict=True)) | {"other_split_size": ROWS[row][2]}
    assert {name: getattr(config, name) for name in expected} == expected
    assert config.cell == f"vdfd/ti-adamnscl-{row}" and changed == {}
    untouched = set(vars(config)) - set(expected) - {"cell"}
    defaults, _ = get_config([])
    assert {name: getattr(config, name) for name in untouched} == {name: getattr(defaults, name) for name in untouched}


@pytest.mark.audit
def test_all_rows_and_an_unknown_one():
    cells = [line.split()[line.split().index("--cell") + 1] for line in script(PYTHON="echo").stdout.splitlines()]
    assert cells == [f"vdfd/ti-adamnscl-{row}" for row in ROWS]
    refused = script("cifar10", PYTHON="echo")
    assert refused.returncode == 2 and refused.stdout == "" and refused.stderr.count("\n") == 1


@pytest.mark.unit
def test_published_size_of_the_network():
    """Heads with biases: 11,218,340 parameters for ten heads of ten classes."""
    model = build_backbone("resnet", "resnet18")
    model.set_heads({str(task): 10 for task in range(1, 11)}, bias=AdamNSCL.head_bias)
    assert sum(parameter.numel() for parameter in model.parameters()) == 11_218_340


@pytest.mark.unit
@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--model_optimizer", "SGD"], "--model_optimizer Adam"),
        (["--reset_model_opt"], "--reset_model_opt"),
        (["--svd_thres", "0.5"], "--svd_thres 0.5"),
        (["--agent_name", "AdamNSCL"], "--agent_type svd_based --agent_name svd_based"),
    ],
)
def test_flags_that_cannot_work_are_refused(flags, expected, tmp_path):
    with pytest.raises(UserError, match=expected) as refused:
        main([*TINY, "--output_dir", str(tmp_path), *flags])
    assert "\n" not in str(refused.value)


@pytest.mark.unit
def test_a_network_with_other_parts_is_refused(tmp_path):
    start = TINY.index("--widths")
    flags = [*TINY[:start], "--model_type", "alexnet", "--model_name", "AlexNet", "--gpuid", "-1"]
    with pytest.raises(UserError, match=r"also has conv1\.bias"):
        main([*flags, "--output_dir", str(tmp_path)])


@pytest.mark.smoke
def test_a_run_in_pieces_equals_the_whole(unbroken, tmp_path):
    """Interrupted at every step and in both passes after a task."""
    stops = run_in_pieces(main, [*TINY, "--output_dir", str(tmp_path)])
    assert stops == 3 * 2 * 3 + 2 * 2 * 3  # 3 tasks of 2 epochs of 3 steps; 2 passes of 3 batches after 2 tasks
    assert_same_run(unbroken, tmp_path)


@pytest.mark.smoke
def test_nothing_is_measured_after_the_last_task(unbroken):
    state = learner_state(unbroken)
    assert len(state["ewc_importance"]) == len(state["ewc_weights"]) == 2
    assert (unbroken / "log.txt").read_text().count("null spaces:") == 2


@pytest.mark.smoke
def test_convolutions_move_only_inside_the_null_space(unbroken, tmp_path):
    """From the end of task 2 on, the stem's movement is a product with the projection."""
    short = [*TINY, "--output_dir", str(tmp_path)]
    short[short.index("--max_tasks") + 1] = "2"
    main(short)
    before, after = (learner_state(folder)["model"]["conv1.weight"] for folder in (tmp_path, unbroken))
    projection = learner_state(unbroken)["projections"]["conv1.weight"]
    moved = (after - before).flatten(1)
    values, directions = torch.linalg.eigh(projection)
    outside = directions[:, values < 1e-4 * values.max()]
    assert outside.shape[1] > 0 and moved.norm() > 1e-4
    assert (moved @ outside).abs().max() < 1e-6


@pytest.mark.smoke
def test_the_schedule_goes_first(unbroken):
    """The rate of milestone epoch 1 holds from its first step on, and so at its end; in epoch 0 the base rate."""
    points = [json.loads(line) for line in (unbroken / "series.jsonl").read_text().splitlines()]
    rates = {(p["task"], p["epoch"]): p["value"] for p in points if p["name"] == "lr/backbone_end"}
    assert [rates[1, 0], rates[1, 1]] == pytest.approx([1e-3, 5e-4])  # model_lr
    assert [rates[2, 0], rates[2, 1]] == pytest.approx([5e-4, 2.5e-4])  # svd_lr


@pytest.mark.smoke
@pytest.mark.parametrize(
    "flags",
    [["--svd_lr", "1e-4"], ["--bn_lr", "1e-4"], ["--svd_thres", "1e6"], ["--reg_coef", "1"]],
    ids=" ".join,
)
def test_a_flag_changes_the_run(flags, unbroken, tmp_path):
    main([*TINY, "--output_dir", str(tmp_path), *flags])
    assert differs(unbroken, tmp_path)


@pytest.mark.smoke
def test_a_row_in_its_short_form(tmp_path):
    result = script("cifar100-20", SMOKE="1", OUT=str(tmp_path), PYTHON=sys.executable)
    assert result.returncode == 0, result.stderr
    (record,) = [json.loads(path.read_text()) for path in tmp_path.rglob("record.json")]
    assert record["cell"] == "vdfd/ti-adamnscl-cifar100-20" and record["method"] == "Adam-NSCL"
    assert "smoke" in record["labels"] and record["status"] == "finished"
