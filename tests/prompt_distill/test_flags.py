"""The program's flags against the original's table, YAML files, what is refused; scripts and generated files."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from common.training.errors import UserError
from prompt_distill.cells import read_entries, written_files
from prompt_distill.configuration import check, get_config, seed_of, virtual_devices
from prompt_distill.options import PromptDistillOptions
from tests.helpers import REPOSITORY

pytestmark = pytest.mark.audit

FOLDER = REPOSITORY / "prompt_distill"
ORIGINAL_DEFAULTS = {
    "random_s": 10,
    "repeat": 1,
    "gpuid": [0],
    "log_dir": "outputs/out",
    "debug_mode": 0,
    "overwrite": 0,
    "upper_bound_flag": False,
    "memory": 0,
    "DW": False,
    "prompt_param": [1, 1, 1],
    "t_model": "vit_base_patch16_224",
    "s_model": "vit_tiny_patch16_224",
    "kd_alpha": 0.5,
    "Soft_T": 2.0,
    "kd_prompt_param": [5, 6],
    "ema_coeff": 0.5,
}
YAML = {
    "cifar-100_prompt": ("CIFAR100", 10, [20], 64),
    "imnet-r_prompt": ("ImageNet_R", 20, [35], 64),
    "imnet-a_prompt": ("ImageNet_A", 20, [35], 64),
    "domainnet_prompt": ("DomainNet", 69, [5], 128),
}
LEARNERS = {
    "coda-p": ("CODAPrompt", [100, 8, 0.0]),
    "dual-prompt": ("DualPrompt", [10, 20, 6]),
    "l2p": ("L2P", [30, 20, -1]),
}
STATES = {
    "cdl_prompt_2024_07": ("CDL-Prompt", 2, "vit_tiny_patch16_224", [5, 6]),
    "kd_token_2024_12": ("KD_Token", 7, "vit_small_patch16_224", [5, 6]),
    "kd_token_2025_01": ("KD_Token", 7, "vit_small_patch16_224", [5, 6]),
    "kdp_2025_03": ("KD_Token", 10, "vit_small_patch16_224", [12, 6]),
    "d_cdl_2026_04": ("KD_Token", 1, "vit_small_patch16_224", [12, 6]),
}


KD, RANDOM_TEACHER = ["--KD_method"], ["--t_model", "vit_random_teacher"]


def config_of_row(script: str, row: str, **environment: str) -> PromptDistillOptions:
    """The config that a script's row comes to: the script is run with a Python that prints its arguments."""
    echo = "import sys; print('\\n'.join(sys.argv[1:]))"
    shim = f"""#!/bin/sh\nshift 2\nexec {sys.executable} -c "{echo}" "$@"\n"""
    folder = environment.pop("shim")
    (folder / "python").write_text(shim)
    (folder / "python").chmod(0o755)
    everything = {**os.environ, "PYTHON": str(folder / "python"), **environment}
    result = subprocess.run(
        ["sh", f"experiments/{script}", row], cwd=FOLDER, env=everything, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    words = result.stdout.splitlines()
    words[words.index("--config") + 1] = str(FOLDER / words[words.index("--config") + 1])
    return get_config(words)[0]


def test_defaults_are_the_originals():
    config, changed = get_config([])
    assert {name: getattr(config, name) for name in ORIGINAL_DEFAULTS} == ORIGINAL_DEFAULTS and changed == {}


def test_the_method_is_the_readmes_by_default():
    config, _ = get_config([])
    variant = check(config)
    assert (config.KD_method, variant.tag, variant.key_loss) == ("CDL-Prompt", "cdl_prompt_2024_07", "sum")
    assert variant.student_schedule == "constant"
    newest = check(get_config(["--KD_method", "KD"])[0])
    assert (newest.tag, newest.key_loss, newest.student_schedule) == ("d_cdl_2026_04", "mean", "schedule")


@pytest.mark.parametrize("name", YAML)
def test_yaml_files_have_the_originals_values(name):
    config, _ = get_config(["--config", str(FOLDER / "configs" / f"{name}.yaml")])
    dataset, size, schedule, batch = YAML[name]
    assert (config.dataset, config.first_split_size, config.other_split_size) == (dataset, size, size)
    assert (config.schedule, config.batch_size, config.lr, config.optimizer) == (schedule, batch, 0.001, "Adam")
    assert config.rand_split and config.train_aug and not config.validation and config.class_order == "natural"


def test_the_command_line_wins_over_yaml(tmp_path):
    (tmp_path / "a.yaml").write_text("batch_size: 8\nschedule: [3, 5]\ntrain_aug: False\n")
    config, changed = get_config(
        ["--batch_size", "16", "--config", str(tmp_path / "a.yaml"), "--overrides", "--lr", "1"]
    )
    assert (config.batch_size, config.schedule, config.train_aug) == (16, [3, 5], False)
    assert changed == {"lr": [0.001, 1.0]}


def test_a_yaml_file_after_the_row_is_a_change_of_it(tmp_path):
    (tmp_path / "a.yaml").write_text("batch_size: 64\ndataset: CIFAR100\nlr: 0.1\n")
    (tmp_path / "b.yaml").write_text("batch_size: 8\ndataset: ImageNet_R\n")
    row = ["--config", str(tmp_path / "a.yaml"), "--batch_size", "32", "--overrides"]
    config, changed = get_config([*row, f"--config={tmp_path / 'b.yaml'}", "--seed", "3"])
    assert (config.dataset, config.batch_size, config.lr, config.seed) == ("ImageNet_R", 8, 0.1, 3)
    assert changed == {"dataset": ["CIFAR100", "ImageNet_R"], "batch_size": [32, 8], "seed": [None, 3]}


@pytest.mark.parametrize("text", ["nonsense: 1", "- 1", "a: ["])
def test_bad_yaml_is_one_line(text, tmp_path):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UserError, match="--config") as refused:
        get_config(["--config", str(tmp_path / "a.yaml")])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--DW"], "--DW"),
        (["--memory", "5"], "memory"),
        (["--debug_mode", "1"], "debug_mode"),
        (["--learner_name", "NormalNN"], "learner_name"),
        (["--learner_name", "APT"], "CDL-Prompt asks for"),
        (["--learner_name", "APT", "--KD_method", "KD", "--variant", "kdp_2025_03"], "does not exist"),
        (["--KD_method", "KD", "--variant", "cdl_prompt_2024_07"], "it exists in kd_token_2024_12"),
        (["--KD_method", "CDL-Prompt", "--variant", "d_cdl_2026_04"], "it exists in cdl_prompt_2024_07"),
        (["--KD_method", "ReviewKD", "--s_model", "vit_large_patch16_224"], "12 blocks"),
        (["--dataset", "CIFAR10"], "dataset"),
        (["--s_model", "vit_huge"], "unknown backbone"),
        (["--kd_alpha", "2"], "kd_alpha"),
        (["--virtual_devices", "0"], "virtual_devices"),
        (["--weights", "a", "b", "c"], "--weights"),
        (["--max_task", "0"], "max_task 0"),
        (["--max_task", "-2"], "max_task -2"),
        ([*KD, "FitNets", *RANDOM_TEACHER, "--s_model", "vit_pair_student"], "patches of 16"),
        (
            [*KD, "ReviewKD", "--t_model", "vit_pair_teacher", "--s_model", "vit_random_student"],
            "teacher of at least 12",
        ),
        ([*KD, "KD", "--s_model", "vit_pair_student"], "images of 224 pixels"),
        (["--random_s", "5"], "random_s has no effect here: .*give --seed"),
        ([*KD, "KD", "--mapping_growth"], "mapping_growth"),
        ([*KD, "KD", "--merge_before_student"], "merge_before_student"),
        ([*KD, "none", "--learner_name", "APT", "--merge_before_student"], "merge_before_student"),
        (["--key_loss", "sum"], "key_loss"),
        ([*KD, "KD", "--learner_name", "APT", "--key_loss", "mean"], "key_loss"),
        ([*KD, "KD_Token", "--kd_prompt_param", "99", "6"], "more layers than vit_tiny_patch16_224 has, 12"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(flags, expected):
    with pytest.raises(UserError, match=expected) as refused:
        get_config(flags)
    assert "\n" not in str(refused.value)


def test_what_the_released_scripts_pass_is_taken():
    """Numbers of KD prompts beside methods without them; a seed where the state has the flag; parts of other sizes."""
    for flags in (
        [*KD, "KD", "--kd_prompt_param", "12", "6", "--random_s", "66"],
        [*KD, "ReviewKD", "--t_model", "vit_large_patch16_224", "--s_model", "vit_base_patch16_224"],
        [*KD, "KD", *RANDOM_TEACHER, "--s_model", "vit_pair_student"],
        [*KD, "none", "--s_model", "vit_pair_student"],
        [*KD, "ReviewKD", "--s_model", "vit_pair_student", "--smoke"],
    ):
        get_config(flags)


def test_seeds_of_repetitions():
    july, newest = (get_config(flags)[0] for flags in ([], ["--KD_method", "KD"]))
    assert [seed_of(july, check(july), trial) for trial in (0, 1)] == [2, 3]
    assert seed_of(newest, check(newest), 0) == 10
    given = get_config(["--seed", "5"])[0]
    assert seed_of(given, check(given), 1) == 6


@pytest.mark.parametrize("variant", STATES)
def test_cifar_script_has_the_originals_values(variant, tmp_path):
    method, seed, student, kd_param = STATES[variant]
    for row, (learner, param) in LEARNERS.items():
        config = config_of_row("cifar-100.sh", row, shim=tmp_path, VARIANT=variant)
        assert (config.KD_method, config.variant, config.seed, config.gpuid) == (method, variant, seed, [0, 1])
        assert (config.t_model, config.s_model) == ("vit_base_patch16_224", student)
        assert (config.learner_name, config.prompt_param, config.kd_prompt_param) == (learner, param, kd_param)
        assert (config.batch_size, config.schedule, config.dataset) == (64, [20], "CIFAR100")


def test_imagenet_r_script_has_the_originals_values(tmp_path):
    config = config_of_row("imagenet-r.sh", "coda-p", shim=tmp_path)
    assert (config.KD_method, config.seed, config.s_model) == ("CDL-Prompt", 2, "vit_small_patch16_224")
    assert (config.dataset, config.schedule, config.first_split_size) == ("ImageNet_R", [35], 20)
    newest = config_of_row("imagenet-r.sh", "coda-p", shim=tmp_path, VARIANT="d_cdl_2026_04")
    assert (newest.KD_method, newest.seed, newest.kd_prompt_param) == ("KD_Token", 77, [12, 6])


def test_rows_of_the_boards(tmp_path):
    config = config_of_row("boards-cifar-100.sh", "large-base-l2p-cdl", shim=tmp_path, SEED="3")
    assert (config.t_model, config.s_model) == ("vit_large_patch16_224", "vit_base_patch16_224")
    assert (config.batch_size, config.seed, config.cell) == (32, 3, "prompt_distill/cifar-large-base-l2p-cdl")
    alone = config_of_row("boards-imagenet-r.sh", "small-apt-alone", shim=tmp_path)
    assert (alone.KD_method, alone.s_model, alone.ema_coeff) == ("none", "vit_small_patch16_224", 0.7)
    front = config_of_row("boards-cifar-100.sh", "base-small-coda-token", shim=tmp_path)
    assert (front.KD_method, front.variant) == ("KD_Token", "kd_token_2025_01")


@pytest.mark.parametrize("method", ["alone", "fitnets", "token"])
def test_boards_of_2024_have_the_key_loss_of_their_time(method, tmp_path):
    """DualPrompt and L2P; a published value belongs to the row with the key loss of its state."""
    pair = "small" if method == "alone" else "base-small"
    losses = {}
    for ending in ("", "-2024"):
        config = config_of_row("boards-cifar-100.sh", f"{pair}-l2p-{method}{ending}", shim=tmp_path)
        losses[ending] = check(config).key_loss
        assert config.cell == f"prompt_distill/cifar-{pair}-l2p-{method}{ending}"
    assert losses == {"": "mean", "-2024": "sum"}
    for entry in read_entries():
        tables = {table for places in entry.published.values() for table, _, _ in places}
        if entry.learner in ("dual", "l2p") and entry.method != "cdl":
            assert {table.startswith("page_2024") for table in tables} == {entry.method.endswith("-2024")}


@pytest.mark.parametrize("script", ["boards-cifar-100.sh", "cifar-100.sh", "imagenet-r.sh", "desk.sh"])
def test_devices_never_change_a_rows_numbers(script, tmp_path):
    """The published rows had two devices, whatever GPUID names; the desk's had one."""
    row = {"boards-cifar-100.sh": "base-small-coda-fitnets", "desk.sh": "coda-kdp"}.get(script, "l2p")
    for gpuid in ("-1", "0", "0 1", "0 1 2"):
        config = config_of_row(script, row, shim=tmp_path, GPUID=gpuid)
        assert virtual_devices(config) == (1 if script == "desk.sh" else 2)


def test_the_aliases_and_other_scripts(tmp_path):
    assert config_of_row("cifar100.sh", "l2p", shim=tmp_path).learner_name == "L2P"
    assert config_of_row("imagenet-a.sh", "coda-p", shim=tmp_path).dataset == "ImageNet_A"
    assert config_of_row("domainnet.sh", "coda-p", shim=tmp_path).first_split_size == 69
    desk = config_of_row("desk.sh", "dual-kdp", shim=tmp_path)
    assert (desk.gpuid, desk.max_task, desk.s_model) == ([-1], 5, "vit_pair_student") and desk.normalise


def test_registry_and_board_scripts_are_up_to_date():
    for path, text in written_files().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run python -m prompt_distill.cells"
    assert len(read_entries()) == 186
