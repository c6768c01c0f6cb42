"""scripts/vdfd.sh hands main.py exactly the values of the original's script."""

from __future__ import annotations

import os
import subprocess

import pytest

from classification.task_incremental.main import get_config
from tests.helpers import REPOSITORY

pytestmark = pytest.mark.audit

FOLDER = REPOSITORY / "classification" / "task_incremental"

SHARED = {
    "agent_type": "vdfd", "agent_name": "VDFD", "hypermodel_type": "gcn", "hypermodel_name": "GCN", "gpuid": [0],
    "repeat": 1, "model_optimizer": "Adam", "force_out_dim": 0, "model_type": "resnet", "epsilons": 1e-3,
}  # fmt: skip
COLUMNS = (
    "dataset", "dataroot", "model_name", "first_split_size", "other_split_size", "schedule", "batch_size", "model_lr",
    "head_lr", "hypermodel_lr", "model_weight_decay", "hypermodel_weight_decay", "reg_coef", "output_dir",
)  # fmt: skip
ROWS = {
    "cifar100-10": (
        "CIFAR100", "../../data", "resnet18", 10, 10, [30, 60, 80], 32, 1e-4, 5e-3, 7e-4, 5e-4, 5e-4, [10.0],
        "outputs/CIFAR100_10tasks",
    ),
    "cifar100-20": (
        "CIFAR100", "../../data", "resnet18", 5, 5, [30, 60, 80], 32, 1e-4, 5e-3, 7e-4, 5e-4, 5e-4, [5.0],
        "outputs/CIFAR100_20tasks",
    ),
    "tinyimagenet-25": (
        "TinyImageNet", "../../data/tiny-imagenet-200/", "resnet18", 8, 8, [30, 60, 80], 16, 5e-5, 5e-3, 5e-4, 1e-5,
        5e-5, [100.0], "outputs/TinyImageNet_25tasks",
    ),
    "fivedatasets-5": (
        "FiveDatasets", "../../data/fivedatasets", "resnet18", 10, 10, [15, 30], 16, 1e-4, 5e-3, 5e-4, 1e-4, 5e-5,
        [80.0], "outputs/5datasets",
    ),
    "subimagenet-10-resnet50": (
        "SubImageNet", "../../data/SubImageNet/", "resnet50", 10, 10, [30, 60, 80], 16, 1e-4, 5e-3, 1e-4, 1e-5, 1e-5,
        [200.0], "outputs/SubImageNet_10tasks/resnet50",
    ),
}  # fmt: skip
SWIN = {
    "agent_type": "vdfd_swin", "agent_name": "VDFDSwin", "hypermodel_type": "gcn", "hypermodel_name": "GCN",
    "dataset": "SubImageNet", "dataroot": "../../data/SubImageNet/", "gpuid": "0", "repeat": "1",
    "model_optimizer": "Adam", "model_weight_decay": "5e-5", "hypermodel_weight_decay": "1e-5", "force_out_dim": "0",
    "first_split_size": "10", "other_split_size": "10", "schedule": "90", "warmup_epochs": "5", "batch_size": "16",
    "model_type": "swin", "model_name": "SwinTransformer", "model_lr": "1e-4", "min_lr": "1e-6", "warmup_lr": "1e-7",
    "head_lr": "1e-4", "hypermodel_lr": "1e-4", "reg_coef": "2000", "epsilons": "1e-3",
    "output_dir": "outputs/SubImageNet_10tasks/swin-t",
}  # fmt: skip


# supplement, Table 1
SSL_ROWS = {
    "cifar100-10": ("CIFAR100", 10, 1e-4, 5e-4, 5e-4, 32, [5.0], [30, 60, 80]),
    "cifar100-20": ("CIFAR100", 5, 1e-4, 7e-4, 5e-4, 32, [5.0], [30, 60, 80]),
    "tinyimagenet-25": ("TinyImageNet", 8, 5e-5, 5e-4, 1e-5, 16, [200.0], [30, 60, 80]),
    "fivedatasets-5": ("FiveDatasets", 10, 5e-4, 5e-4, 5e-5, 16, [80.0], [15, 20, 30]),
    "subimagenet-10-resnet50": ("SubImageNet", 10, 1e-4, 1e-4, 1e-5, 16, [150.0], [30, 60, 80]),
}
SSL_COLUMNS = (
    "dataset", "first_split_size", "model_lr", "hypermodel_lr", "model_weight_decay", "batch_size", "reg_coef",
    "schedule",
)  # fmt: skip


def commands(*arguments: str, script: str = "scripts/vdfd.sh", **environment: str) -> list[list[str]]:
    """The commands that a script would run: `echo` stands in for Python."""
    settings = {
        key: value for key, value in os.environ.items() if key not in ("OUT", "SEED", "GPUID", "DATAROOT", "SMOKE")
    }
    result = subprocess.run(
        ["sh", script, *arguments], cwd=FOLDER, env=settings | {"PYTHON": "echo"} | environment,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [line.split() for line in result.stdout.splitlines()]


@pytest.mark.parametrize("row", ROWS)
def test_values_of_a_row(row):
    ((flag_u, program, *flags),) = commands(row)
    assert (flag_u, program) == ("-u", "main.py")
    config, changed = get_config(flags)
    expected = SHARED | dict(zip(COLUMNS, ROWS[row], strict=True))
    assert {name: getattr(config, name) for name in expected} == expected
    assert config.cell == f"vdfd/ti-{row}" and changed == {}
    untouched = set(vars(config)) - set(expected) - {"cell"}
    defaults, _ = get_config([])
    assert {name: getattr(config, name) for name in untouched} == {name: getattr(defaults, name) for name in untouched}


@pytest.mark.parametrize("row", SSL_ROWS)
def test_values_of_a_reconstructed_row(row):
    ((_, program, *flags),) = commands(row, script="scripts_ssl/vdfd.sh")
    config, changed = get_config(flags)
    assert program == "main.py" and changed == {} and config.cell == f"vdfd/ti-{row}-ssl"
    expected = dict(zip(SSL_COLUMNS, SSL_ROWS[row], strict=True)) | {"agent_type": "vdfd_ssl", "agent_name": "VDFD"}
    expected |= {"head_lr": 5e-3, "epsilons": 1e-3, "other_split_size": expected["first_split_size"]}
    assert {name: getattr(config, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("row", "base"), [("tinyimagenet-25", "tinyimagenet-25"), ("subimagenet-10", "subimagenet-10-resnet50")]
)
def test_the_rank_study_changes_the_rank_alone(row, base):
    (plain,) = commands(base, script="scripts_ssl/vdfd.sh")
    first, _ = get_config(plain[2:])
    for rank in range(2, 9):
        ((_, program, *flags),) = commands(f"{row}-r{rank}", script="scripts_ssl/rank_study.sh")
        config, changed = get_config(flags)
        assert program == "main.py" and changed == {} and config.cell == f"vdfd/ti-{row}-r{rank}-ssl"
        differing = [name for name, value in vars(config).items() if value != getattr(first, name)]
        assert sorted(differing) == ["cell", "output_dir", "singular"] and config.singular == rank
    assert len(commands(script="scripts_ssl/rank_study.sh")) == 14


def test_values_of_the_swin_row():
    ((_, program, *flags),) = commands("subimagenet-10-swin")
    assert program == "main_swin.py"
    given = dict(zip(flags[0:-1:2], flags[1::2], strict=False))
    assert {name: given[f"--{name}"] for name in SWIN} == SWIN


def test_all_rows_in_the_papers_order():
    cells = [command[command.index("--cell") + 1] for command in commands()]
    assert cells == [f"vdfd/ti-{row}" for row in [*ROWS, "subimagenet-10-swin"]]


def test_further_flags_go_on_to_the_program_and_are_told_apart():
    ((*_, marker, flag, value),) = commands("cifar100-10", "--batch_size", "8")
    assert (marker, flag, value) == ("--overrides", "--batch_size", "8")
    (command,) = commands("cifar100-10", "--batch_size", "8")
    _, changed = get_config(command[2:])
    assert changed == {"batch_size": [32, 8]}


def test_flags_without_a_row_go_to_every_row():
    found = commands("--time_budget", "5")
    assert len(found) == 6 and all(command[-2:] == ["--time_budget", "5"] for command in found)


def test_smoke_in_the_environment():
    assert all("--smoke" in command for command in commands(SMOKE="1"))
    assert commands("cifar100-10", SMOKE="1")[0][-1] == "--smoke"


def test_an_unknown_row_is_refused_in_one_line():
    result = subprocess.run(
        ["sh", "scripts/vdfd.sh", "cifar10"],
        cwd=FOLDER,
        env={**os.environ, "PYTHON": "echo"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2 and result.stdout == ""
    assert "cifar10" in result.stderr and "cifar100-10" in result.stderr and result.stderr.count("\n") == 1
