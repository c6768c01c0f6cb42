"""Scripts hand the programs the published values, and every cell has its row."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from repro.registry import read_registry
from rfd.main import with_repetition
from rfd.program import parse
from rfd.run_dfcil import get_config
from tests.helpers import REPOSITORY

pytestmark = pytest.mark.audit

FOLDER = REPOSITORY / "rfd"
(SUBPROJECT,) = [subproject for subproject in read_registry(REPOSITORY) if subproject.paper == "rfd"]
SCRIPTS = ("rfd.sh", "rdfcil.sh", "abd_port.sh", "desk.sh", "abd.sh")


def commands(script: str, *arguments: str, **environment: str) -> list[list[str]]:
    """The commands that a script would run: `echo` stands in for Python."""
    settings = {
        key: value for key, value in os.environ.items() if key not in ("OUT", "SEED", "GPUID", "DATAROOT", "SMOKE")
    }
    result = subprocess.run(
        ["sh", f"scripts/{script}", *arguments], cwd=FOLDER, env=settings | {"PYTHON": "echo"} | environment,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [line.split() for line in result.stdout.splitlines()]


@pytest.fixture(autouse=True)
def inside_the_folder(monkeypatch):
    monkeypatch.chdir(FOLDER)  # configs are named relative to it


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_row_is_a_cell_with_a_valid_command(script):
    found = commands(script)
    cells = {cell.id: cell for cell in SUBPROJECT.cells if cell.script == f"scripts/{script}"}
    assert [command[command.index("--cell") + 1] for command in found] == list(cells)
    read = get_config if script == "abd.sh" else parse
    for (flag_u, program, *flags), cell in zip(found, cells.values(), strict=True):
        assert (flag_u, program) == ("-u", "run_dfcil.py" if script == "abd.sh" else "main.py")
        config, changed = read(flags)
        assert config.cell == cell.id and changed == {}


SPLITS = {
    "5": (5, 0), "10": (10, 0), "20": (20, 0), "half-5": (6, 0.5), "half-10": (11, 0.5), "half-25": (26, 0.5),
}  # fmt: skip


@pytest.mark.parametrize("split", SPLITS)
def test_task_splits_of_a_row(split):
    for script in ("rfd.sh", "rdfcil.sh", "abd_port.sh"):
        ((_, _, *flags),) = commands(script, f"tinyimagenet-{split}")
        config, _ = parse(flags)
        assert (config.data.num_tasks, config.data.init_task_splits) == SPLITS[split]
        assert config.data.dataset == "tiny-imagenet200"


def test_rdfcil_in_rfds_tiny_imagenet_protocol():
    ((_, _, *flags),) = commands("rdfcil.sh", "tinyimagenet-5-batch256")
    ((_, _, *rfd_flags),) = commands("rfd.sh", "tinyimagenet-5")
    ours, rfds = parse(flags)[0], with_repetition(parse(rfd_flags)[0])
    assert (ours.seed, ours.data, ours.trainer) == (rfds.seed, rfds.data, rfds.trainer)
    assert (ours.model.method, ours.data.batch_size, ours.seed) == ("rdfcil", 256, 0)


ABD_ROWS = {
    "cifar100-5-abd": {"first_split_size": 20, "mu": 0.1, "power_iters": 10000, "learner_name": "AlwaysBeDreaming"},
    "cifar100-10-deepinv": {"first_split_size": 10, "mu": 1.0, "learner_name": "DeepInversionGenBN"},
    "cifar100-20-lwf_synthetic": {"first_split_size": 5, "mu": 0.1, "learner_name": "DeepInversionLWF", "beta": 1.0},
    "cifar100-20-lwf_mc": {"first_split_size": 5, "mu": 1.0, "learner_type": "kd", "learner_name": "LWF_MC"},
    "cifar100-10-oracle": {"oracle_flag": True, "learner_name": "NormalNN", "schedule": [100, 150, 200, 250]},
    "tinyimagenet-20-abd": {"first_split_size": 10, "dataset": "TinyImageNet", "gen_model_name": "TINYIMNET_GEN"},
    "imagenet50-5-abd": {"schedule": [30, 60, 80, 90, 100], "power_iters": 50000, "model_name": "resnet18",
                         "batch_size": 256, "weight_decay": 1e-4, "max_task": 5, "gen_model_name": "IMNET_GEN"},
}  # fmt: skip


@pytest.mark.parametrize("row", ABD_ROWS)
def test_values_of_an_abd_row(row):
    ((_, _, *flags),) = commands("abd.sh", row)
    config, _ = get_config(flags)
    expected = {"lr": 0.1, "momentum": 0.9, "train_aug": True, "rand_split": True} | ABD_ROWS[row]
    if "weight_decay" not in expected:
        expected |= {"weight_decay": 2e-4, "batch_size": 128, "model_name": "resnet32"}
    if config.learner_type == "datafree":
        expected["deep_inv_params"] = [1e-3, 50.0, 1e-3, 1e3, 1.0]
    assert {name: getattr(config, name) for name in expected} == expected
    assert config.other_split_size == config.first_split_size


def test_seeds_devices_and_further_flags_go_on():
    ((*flags, marker, seed, two, key, value),) = commands("rfd.sh", "cifar100-10", "--model.base_lr", "1", SEED="2")
    assert (marker, seed, two, key, value) == ("--overrides", "--seed", "2", "--model.base_lr", "1")
    assert flags[flags.index("--trainer.gpus") + 1] == "[0]"
    ((*flags, last),) = commands("rdfcil.sh", "cifar100-10", GPUID="-1", SMOKE="1")
    assert flags[flags.index("--trainer.gpus") + 1] == "0" and last == "--smoke"
    assert all("--smoke" in command for command in commands("abd.sh", SMOKE="1"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_unknown_row_is_refused_in_one_line(script):
    result = subprocess.run(
        ["sh", f"scripts/{script}", "mnist"],
        cwd=FOLDER,
        env={**os.environ, "PYTHON": "echo"},
        capture_output=True,
        text=True,
    )
    assert (
        result.returncode == 2 and result.stdout == "" and result.stderr.count("\n") == 1 and "mnist" in result.stderr
    )


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("target", ["cifar10", "cifar100", "tiny-imagenet200", "imagenet100", "imagenet-r"])
def test_the_originals_make_targets(target):
    words = ["make", "--no-print-directory", "-n", target]
    shown = subprocess.run(words, cwd=FOLDER, capture_output=True, text=True, check=True).stdout
    command = shown.replace("\\\n", " ").splitlines()[-1].split()
    flags = command[command.index("main.py") + 1 : command.index(">")]
    config, _ = parse(flags)
    assert config.data.dataset == target and command[-1] == "&"
