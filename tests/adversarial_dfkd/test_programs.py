"""The program: configurations, overrides, refusals, the short form, resume, test mode."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from adversarial_dfkd.experiment import TEACHER_ADVICE, Experiment, is_shortened
from adversarial_dfkd.main import get_config, main
from adversarial_dfkd.networks import build_teacher
from common.training.errors import RunStopped, UserError
from common.training.run import Run
from common.training.teachers import find_teacher, load_teacher
from repro.records import find_problem
from repro.registry import read_registry, select_cells
from tests.helpers import REPOSITORY

pytestmark = pytest.mark.smoke

FOLDER = REPOSITORY / "adversarial_dfkd"
CONFIGS = FOLDER / "configs"
DESK = str(CONFIGS / "desk_Ours-2.json")
MEMORY = str(CONFIGS / "desk_MB-DFKD.json")
TINY = str(CONFIGS / "PRE-DFKD_tiny-imagenet.json")
RELEASED = {
    "PRE-DFKD": ("PREDFKDAgent", 1024, "dfkd_example_3"),
    "MB-DFKD": ("PREDFKDMemAgent", 1024, "dfkdmem_example_1"),
    "Ours-1": ("PREDFKDMemMetaAgent", 512, "dfkdmemmeta7_example_1_512_0.9"),
    "Ours-1_benchmark": ("PREDFKDMemMetaAgent", 512, "dfkdmemmeta7_example_1_512_0.9_benchmark"),
    "Ours-2": ("PREDFKDMetaAgent", 512, "dfkdmeta7_example_1_512_0.9"),
}


def test_released_configurations_have_the_released_values():
    for name, (agent, batch_size, exp_name) in RELEASED.items():
        config, changed, _ = get_config([str(CONFIGS / f"{name}.json")])
        assert (config.agent, config.batch_size, config.exp_name) == (agent, batch_size, exp_name)
        assert (config.max_epoch, config.kd_iter, config.gen_iter, config.seed) == (400, 10, 1, 1)
        assert (config.lr_S, config.lr_G, config.latent_dim) == (0.1, 0.02, 1000)
        assert (config.oh, config.ie, config.a) == (1, 5, 0.1)
        assert (config.meta_gradient, config.outer_iterations) == ("detached", 36 * 1024 // batch_size)
        assert not changed
        if config.is_meta:
            assert config.lr_S_in == 0.9
        if config.has_bank:
            assert config.memory_capacity == 10


def configurations_of_rows() -> dict[str, str]:
    script = (FOLDER / "scripts" / "lra.sh").read_text()
    return dict(re.findall(r'^if wanted (\S+); then run (\S+) "\$@"; fi$', script, re.MULTILINE))


def test_every_configuration_is_accepted_and_has_a_row():
    rows = configurations_of_rows()
    names = {path.stem for path in CONFIGS.glob("*.json")}
    assert len(set(rows.values())) == len(rows) and set(rows.values()) == names
    for name in names:
        get_config([str(CONFIGS / f"{name}.json")])


def test_batches_are_the_released_ones_where_values_are_published_and_else_equal():
    """D2."""
    rows = configurations_of_rows()
    cells = select_cells(read_registry(REPOSITORY), ["lra/*"])
    with_values, others = {}, {}
    for cell in cells:
        config, _, _ = get_config([str(CONFIGS / f"{rows[cell.row]}.json")])
        (others if cell.demo else with_values)[cell.row] = config
    assert {row for row, config in with_values.items() if not config.is_meta} == {
        "pre-dfkd", "mb-dfkd", "pre-dfkd-cifar10", "mb-dfkd-cifar10",
    }  # fmt: skip
    assert all(config.batch_size == (512 if config.is_meta else 1024) for config in with_values.values())
    assert all(config.batch_size == (64 if config.desk_scale else 512) for config in others.values())


def test_settings_override_the_file_and_flags_override_settings():
    config, changed, _ = get_config([DESK, "--set", "batch_size=32", "--set=student=wrn-16-1", "--batch_size", "48"])
    assert (config.batch_size, config.student) == (48, "wrn-16-1")
    assert changed == {"batch_size": [64, 48], "student": ["lenet", "wrn-16-1"]}
    config, changed, _ = get_config([DESK, "--seed", "5", "--overrides", "--set", "cuda=false"])
    assert (config.seed, config.cuda, changed) == (5, False, {})  # where a run executes is no part of its row


@pytest.mark.parametrize(
    "words",
    [
        ["--benchmark", DESK],
        ["--set", "seed=3", "--cudnn-disabled", DESK, "--benchmark"],
        ["--set=seed=3", "--gpu_device", "-1", "--lr_S=0.1", DESK],
        ["--seed", "3", DESK, "--overrides", "--batch_size", "48"],
    ],
)
def test_flags_may_stand_before_the_file(words):
    config, changed, _ = get_config(words)
    others = [word for word in words if word != DESK]
    assert (config, changed) == get_config([DESK, *others])[:2] and config.exp_name == "desk_ours_2"


def test_ignored_keys_are_reported():
    notes = get_config([str(CONFIGS / "Ours-2.json")])[2]
    assert any(note.startswith("lr_S_in is ignored") for note in notes)
    assert any(note.startswith("checkpoint_filename is ignored") for note in notes)
    assert not any("lr_S_in" in note for note in get_config([str(CONFIGS / "Ours-2_second-order.json")])[2])
    notes = get_config([str(CONFIGS / "MB-DFKD.json"), "--set", "encoder_unit=pixels"])[2]
    assert "encoder_unit is ignored: MB-DFKD has no VAE" in notes
    assert not any(note.startswith("memory_capacity") for note in notes)


@pytest.mark.parametrize(
    "row, words, ignored",
    [
        ("PRE-DFKD", ["--memory_capacity", "20"], {"memory_capacity"}),
        ("PRE-DFKD", ["--inner_schedule", "cosine", "--lr_S_in", "3"], {"inner_schedule", "lr_S_in"}),
        ("MB-DFKD", ["--clean_vae_gradient", "--encoder_unit", "pixels"], {"clean_vae_gradient", "encoder_unit"}),
        ("MB-DFKD", ["--log_meta_loss", "step"], {"log_meta_loss"}),
        ("Ours-2", ["--inner_schedule", "cosine", "--meta_holdout"], {"lr_S_in", "inner_schedule", "meta_holdout"}),
        ("Ours-2_second-order", ["--inner_schedule", "cosine", "--meta_holdout", "--lr_S_in", "3"], set()),
        ("PRE-DFKD", ["--normalisation", "wide"], set()),
        ("PRE-DFKD_svhn", ["--normalisation", "wide"], {"normalisation"}),
        ("PRE-DFKD_svhn", ["--smoke"], set()),  # the short form's own settings are no request
    ],
)
def test_flags_without_effect_are_reported(row, words, ignored):
    notes = get_config([str(CONFIGS / f"{row}.json"), *words])[2]
    assert {note.split(" is ignored: ")[0] for note in notes} == ignored | {"checkpoint_filename"}


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "configuration file is expected"),
        (["missing.json"], "cannot read the configuration"),
        ([DESK, "--set", "lr=0.1"], "unknown key 'lr'"),
        ([DESK, "--set", "lr_S"], "expects key=value"),
        ([DESK, "--set", "max_epoch=many"], "max_epoch"),
        ([DESK, "--set", "batch_size=8"], "at least 16"),
        ([DESK, "--set", "batch_size=2048", "--set", "iterations=null"], "leaves no iterations"),
        ([DESK, "--agent", "PREDFKDAgent", "--meta_gradient", "second_order"], "belong to Ours"),
        ([DESK, "--use_cluster"], "--use_cluster"),
        ([DESK, "--precision", "fp16"], "fp16"),
        ([DESK, "--seed", "1"][1:], "configuration file is expected"),
        ([DESK, "--img_size", "28"], "multiple of 8"),
        ([MEMORY, "--img_size", "30"], "multiple of 4"),
        (
            [MEMORY, "--smoke", "--img_size", "28"],
            "gives 28x28 images, but FMNIST is tested at 32x32; give img_size 32",
        ),
        ([DESK, "--smoke", "--img_size", "64"], "gives 64x64 images, but FMNIST is tested at 32x32"),
        (
            [MEMORY, "--upsampling", "8"],
            "upsampling 8 gives 64x64 images, but FMNIST is tested at 32x32; give img_size 16",
        ),
        ([TINY, "--smoke", "--student", "lenet"], "student lenet takes 32x32 only"),
        ([TINY, "--teacher", "lenet5"], "teacher lenet5 takes 32x32 only"),
        ([DESK, "--set", "lr_S=-1"], "lr_S must be a learning rate of at least 0, found -1"),
        ([DESK, "--set", "lr_G=NaN"], "lr_G must be a learning rate of at least 0"),
        ([DESK, "--iterations", "0"], "iterations must be at least 1, found 0"),
        ([DESK, "--test_images_per_class", "0"], "test_images_per_class must be at least 1"),
    ],
)
def test_bad_input_is_one_line(words, message):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        get_config(words)
    assert "\n" not in str(caught.value)


def test_an_unknown_key_in_a_file_is_refused(tmp_path):
    path = tmp_path / "odd.json"
    path.write_text(json.dumps({"exp_name": "odd", "learning_rate": 1}))
    with pytest.raises(UserError, match="unknown key 'learning_rate'"):
        get_config([str(path)])


@pytest.mark.parametrize("name", ["desk_PRE-DFKD", "desk_MB-DFKD", "desk_Ours-1_second-order", "desk_Ours-2"])
def test_short_form_of_every_agent(name, tmp_path):
    metrics = main([str(CONFIGS / f"{name}.json"), "--smoke", "--output_dir", str(tmp_path)])
    record = json.loads((tmp_path / "record.json").read_text())
    assert find_problem(record) is None  # the tables take it
    assert record["status"] == "finished" and "smoke" in record["labels"] and record["steps"] == 2
    assert len(metrics["acc_history"]) == 2
    assert metrics["acc_mean"] == pytest.approx(sum(metrics["acc_history"]) / 2)
    assert metrics["best_acc"] == max(metrics["acc_history"]) and metrics["acc"] == metrics["acc_history"][-1]
    with Image.open(tmp_path / "images" / "epoch_0002.png") as picture:
        assert (picture.size, picture.mode) == ((65, 32), "L")  # two grey images side by side
    assert metrics["hours"] == pytest.approx(metrics["seconds"] / 3600, abs=1e-4) and metrics["memory_gib"] > 0


def test_resume_and_test_mode(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    metrics = main([DESK, "--smoke", "--output_dir", str(whole)])
    stops = 0
    while True:
        try:
            again = main([DESK, "--smoke", "--output_dir", str(parts), "--time_budget", "0"])
            break
        except RunStopped:
            stops += 1
    assert stops == 4
    timed = {"seconds", "hours", "memory_gib", "seconds_history"}
    assert {key: metrics[key] for key in metrics.keys() - timed} == {key: again[key] for key in again.keys() - timed}
    assert (whole / "series.jsonl").read_text() == (parts / "series.jsonl").read_text()
    tested = main([DESK, "--smoke", "--output_dir", str(parts), "--mode", "test"])
    assert tested["acc"] == metrics["acc"] and tested["best_acc"] == metrics["best_acc"]
    with pytest.raises(UserError, match="holds no checkpoint"):
        main([DESK, "--smoke", "--output_dir", str(tmp_path / "empty"), "--mode", "test"])


@pytest.mark.parametrize(
    "row, words, shortened",
    [
        ("Ours-2", ["--iterations", "100"], False),  # 72 in the release
        ("Ours-2", ["--iterations", "71"], True),
        ("Ours-2", ["--max_epoch", "399"], True),
        ("desk_Ours-2", ["--set", "iterations=null"], False),
        ("desk_Ours-2", ["--iterations", "11"], True),
    ],
)
def test_a_run_is_labelled_shortened_if_it_has_fewer_steps(row, words, shortened):
    config, changed, _ = get_config([str(CONFIGS / f"{row}.json"), *words])
    assert is_shortened(config, changed) == shortened


@pytest.mark.parametrize("image_size, upsampling", [(8, 4), (8, 8)])
def test_tiny_imagenet_is_tested_at_the_size_of_the_generated_images(image_size, upsampling, tmp_path):
    words = ["--img_size", str(image_size), "--upsampling", str(upsampling), "--student", "wrn-10-1", "--teacher",
             "wrn-10-1", "--smoke", "--output_dir", str(tmp_path)]  # fmt: skip
    config, _, _ = get_config([TINY, *words])
    with Run(config, method="PRE-DFKD", paper="lra", device=torch.device("cpu"), seed=0, quiet=True) as run:
        experiment = Experiment(config, run)
        with torch.no_grad():
            assert experiment.test.images.shape[1:] == experiment.training.generate().shape[1:]


def test_a_missing_teacher_is_named():
    config, _, _ = get_config([DESK, "--set", "teacher_name=nothing"])
    with pytest.raises(UserError, match="no teacher nothing"):
        find_teacher(config.teacher_name, [Path(config.teacher_dir)], TEACHER_ADVICE)


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("desk_*.json")))
def test_the_desk_rows_name_a_shipped_teacher(name, monkeypatch):
    monkeypatch.chdir(FOLDER)
    config, _, _ = get_config([str(CONFIGS / f"{name}.json")])
    found = find_teacher(config.teacher_name, [Path(config.teacher_dir)], TEACHER_ADVICE)
    assert load_teacher(found, build_teacher(config.teacher, 10, 1)).card.dataset == "fashion_mnist"


def test_the_script_runs_a_row(tmp_path):
    environment = os.environ | {"SMOKE": "1", "OUT": str(tmp_path), "PYTHON": sys.executable, "GPUID": "-1"}
    done = subprocess.run(
        ["sh", "scripts/lra.sh", "desk-ours-1"], cwd=FOLDER, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(Path(tmp_path, "smoke", "desk-ours-1", "record.json").read_text())
    assert record["cell"] == "lra/desk-ours-1" and record["method"] == "Ours-1"
    unknown = subprocess.run(["sh", "scripts/lra.sh", "ours-3"], cwd=FOLDER, env=environment, capture_output=True)
    assert unknown.returncode == 2
