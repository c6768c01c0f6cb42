"""Whole programs in their short form: every method, stopping after every step and resuming, teachers and cards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from common.data.grids import save_image
from common.training.checkpoint import read_newest_checkpoint
from common.training.errors import RunStopped, UserError
from common.training.options import as_dict
from common.training.teachers import SHIPPED, Teacher, load_teacher, read_card, teacher_path
from curriculum_dfkd import experiment, train_scratch, vanilla_kd
from curriculum_dfkd import main as data_free
from curriculum_dfkd.data import DATASETS, loader_for, open_images
from curriculum_dfkd.evaluation import Evaluator
from curriculum_dfkd.experiment import teacher_weights
from curriculum_dfkd.networks import build_network
from curriculum_dfkd.options import METHODS
from curriculum_dfkd.training import Training
from repro.records import find_problem
from repro.registry import read_registry, select_cells
from tests.helpers import REPOSITORY, assert_equal

pytestmark = pytest.mark.smoke

FOLDER = REPOSITORY / "curriculum_dfkd"
TINY = ["--smoke", "--dataset", "cifar10", "--teacher", "resnet8", "--student", "resnet8", "--gpu", "-1"]
WEIGHTS = ["--adv", "1", "--bn", "1", "--oh", "1", "--balance", "1", "--act", "0.1", "--lr", "0.01"]


def arguments(folder: Path, method: str, *more: str) -> list[str]:
    return [*TINY, *WEIGHTS, "--method", method, "--g_steps", "2", "--output_dir", str(folder), *more]


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return read_newest_checkpoint(folder)[0]["parts"]["training"]["model"]


def differ(one: Path, other: Path) -> bool:
    first, second = weights_of(one), weights_of(other)
    return any(not torch.equal(first[key], second[key]) for key in first)


def run_in_parts(run, folder: Path, *words: str) -> int:
    """One step per call; returns the number of stops."""
    for stops in range(60):
        try:
            run([*words, "--output_dir", str(folder), "--time_budget", "0"])
            return stops
        except RunStopped:
            assert json.loads((folder / "record.json").read_text())["status"] == "stopped"
    raise AssertionError("no end")


def assert_same_run(one: Path, other: Path) -> None:
    first, second = (read_newest_checkpoint(folder)[0] for folder in (one, other))
    assert_equal(first["parts"], second["parts"])
    assert_equal(first["generators"], second["generators"])
    assert (one / "series.jsonl").read_text() == (other / "series.jsonl").read_text()


@pytest.mark.parametrize("method, stops", [("cudfkd", 4), ("dfq", 6), ("cmi", 6), ("deepinv", 6)])
def test_a_run_in_single_steps_ends_as_the_whole_one(method, stops, tmp_path):
    words = [word for word in arguments(tmp_path, method) if word not in ("--output_dir", str(tmp_path))]
    data_free.main([*words, "--output_dir", str(tmp_path / "whole")])
    assert run_in_parts(data_free.main, tmp_path / "parts", *words) >= stops - 1
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("run, words", [
    (vanilla_kd.main, [*TINY, "--curr_option", "curr_soft", "--transfer_set", "cifar10", "--beta", "0.1", "--T", "4"]),
    (train_scratch.main, ["--smoke", "--model", "resnet8", "--dataset", "cifar100", "--recipe", "modern"]),
], ids=["vanilla", "scratch"])  # fmt: skip
def test_training_on_real_images_resumes_exactly(run, words, tmp_path):
    run([*words, "--output_dir", str(tmp_path / "whole")])
    assert run_in_parts(run, tmp_path / "parts", *words) >= 3
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_leaves_a_record_and_a_grid(method, tmp_path):
    dataset = "fashion_mnist" if method in ("zskt", "dfad") else "cifar100"
    metrics = data_free.main(arguments(tmp_path, method, "--log_fidelity", "--dataset", dataset))
    record = json.loads((tmp_path / "record.json").read_text())
    assert find_problem(record) is None  # the tables take it
    assert record["status"] == "finished" and record["paper"] == "cudfkd" and "smoke" in record["labels"]
    assert record["method"] == data_free.METHOD_NAMES[method] and record["data"]["train_images"] == 0
    assert metrics["student_updates"] == 2 and metrics["acc_history"] == [metrics["acc"]]
    assert {"acc_mean", "acc_variance", "acc_std", "best_acc", "agreement", "loyalty"} <= metrics.keys()
    assert metrics["hours"] == pytest.approx(metrics["seconds"] / 3600, abs=1e-4) and metrics["memory_gib"] > 0
    assert list((tmp_path / "images").glob("*.png")) and (tmp_path / "best_student.safetensors").is_file()


@pytest.fixture(scope="module")
def usual(tmp_path_factory) -> dict[str, Path]:
    """One run of each method with the usual flags."""
    folders = {}
    for method in ("cudfkd", "dafl", "cmi", "deepinv"):
        folders[method] = tmp_path_factory.mktemp(method)
        data_free.main(arguments(folders[method], method))
    return folders


@pytest.mark.parametrize("method, flags", [
    ("cudfkd", ["--loss", "kl", "--T", "3"]), ("cudfkd", ["--curr_option", "curr_soft", "--lambda_0", "9"]),
    ("cudfkd", ["--compat", "paper"]), ("cudfkd", ["--adv_type", "kl"]), ("cudfkd", ["--lmda_ent", "-20"]),
    ("cudfkd", ["--lambda_rate", "1"]), ("cudfkd", ["--momentum", "0"]), ("cudfkd", ["--seed", "1"]),
    ("dafl", ["--betas", "cud"]), ("dafl", ["--balance", "5"]), ("dafl", ["--act", "5"]), ("dafl", ["--nz", "7"]),
    ("dafl", ["--precision", "bf16"]), ("cmi", ["--cr_T", "0.1"]), ("cmi", ["--cr", "3"]), ("deepinv", ["--T", "3"]),
    ("deepinv", ["--keep_image", "best"]), ("deepinv", ["--bn", "9"]),
    ("cmi", ["--n_neg", "1"]), ("deepinv", ["--tv_weight", "9"]), ("deepinv", ["--l2_weight", "9"]),
], ids=str)  # fmt: skip
def test_a_flag_changes_the_run(method, flags, usual, tmp_path):
    data_free.main(arguments(tmp_path, method, *flags))
    assert differ(usual[method], tmp_path)


@pytest.mark.parametrize("method, flags", [
    ("cudfkd", ["--log_fidelity"]), ("cudfkd", ["--validation_interval", "0"]), ("dafl", ["--T", "9"]),
    ("cmi", ["--dump_pool"]), ("dafl", ["--log_all_terms"]), ("dafl", ["--grid_every", "0"]),
], ids=str)  # fmt: skip
def test_a_flag_that_must_not_change_the_run(method, flags, usual, tmp_path):
    data_free.main(arguments(tmp_path, method, *flags))
    assert not differ(usual[method], tmp_path)


def test_a_finished_run_is_skipped_and_can_be_tested_again(usual, capsys):
    words = arguments(usual["dafl"], "dafl")
    data_free.main(words)
    assert "finished already" in capsys.readouterr().out
    record = json.loads((usual["dafl"] / "record.json").read_text())
    assert data_free.main([*words, "--evaluate_only"])["acc1"] == record["metrics"]["acc"]


def test_the_best_weights_reach_the_best_accuracy(usual):
    folder = usual["cudfkd"]
    record = json.loads((folder / "record.json").read_text())
    student = build_network("resnet8", 10).eval()
    student.load_state_dict(safetensors.torch.load_file(folder / "best_student.safetensors"))
    test = open_images("cifar10", "", "test", smoke=True, per_class=2)
    (batch,) = loader_for(test, DATASETS["cifar10"].transform, train=False, batch_size=99, device="cpu", seed=0)
    with torch.no_grad():
        correct = (student(batch[0]).argmax(dim=1) == batch[1]).float().mean().item()
    assert 100 * correct == pytest.approx(record["metrics"]["best_acc"], abs=1e-4)


def test_pre_inverted_images_are_a_transfer_set(tmp_path):
    folder = tmp_path / "inverted"
    for number in range(3):
        save_image(torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8), folder / f"0-{number}.png")
    config, _ = vanilla_kd.get_config([*TINY, "--transfer_set", str(folder)])
    assert config.transfer_set == str(folder)
    with pytest.raises(UserError, match="neither a folder"):
        vanilla_kd.get_config([*TINY[1:], "--transfer_set", str(tmp_path / "nothing")])
    with pytest.raises(UserError, match="--beta needs labels"):
        vanilla_kd.get_config(["--dataset", "cifar10", "--transfer_set", "cifar100", "--beta", "0.1"])


# --- teachers -------------------------------------------------------------------------------------------------------


def test_a_missing_teacher_says_how_to_make_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="train_scratch.py --model vgg11 --dataset cifar10"):
        teacher_weights("cifar10", "vgg11")
    with pytest.raises(UserError, match="no such file"):
        teacher_weights("cifar10", "vgg11", "nothing.pth")


def test_own_teachers_come_before_shipped_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = teacher_weights("fashion_mnist", "lenet5")
    assert shipped.parent == SHIPPED
    own = Path("checkpoints/scratch/fashion_mnist_lenet5.pth")
    own.parent.mkdir(parents=True)
    own.touch()
    assert teacher_weights("fashion_mnist", "lenet5") == own
    assert teacher_weights("fashion_mnist", "lenet5", str(shipped)) == shipped


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.safetensors")), ids=lambda path: path.stem)
def test_a_shipped_teacher_fits_its_card(path):
    card = read_card(path.with_suffix(".json"))
    network = build_network(card.network, card.num_classes, card.in_channels)
    assert load_teacher(path, network).card == card
    assert sum(parameter.numel() for parameter in network.parameters()) == card.parameters
    assert path == teacher_weights(card.dataset, card.network) and card.accuracy > 80


def test_scratch_writes_a_card(tmp_path):
    train_scratch.main(["--smoke", "--model", "resnet8", "--dataset", "cifar10", "--output_dir", str(tmp_path)])
    card = read_card(teacher_path(tmp_path, "cifar10", "resnet8").with_suffix(".json"))
    record = json.loads((tmp_path / "record.json").read_text())
    assert card.accuracy == pytest.approx(record["metrics"]["best_acc"]) and card.recipe["weight_decay"] == 1e-4


def recipe_of(*words: str) -> tuple[int, float]:
    config, _ = train_scratch.get_config(words)
    return config.batch_size, config.weight_decay


def test_the_modern_recipe_and_the_bug_of_the_stem():
    assert recipe_of() == recipe_of("--recipe", "small") == (256, 1e-4)
    assert recipe_of("--recipe", "modern", "--batch-size", "64") == (64, 5e-4)
    assert recipe_of("--recipe", "modern", "--batch_size", "256", "--weight_decay", "1e-4") == (256, 1e-4)  # as given
    row = ["--recipe", "modern", "--overrides"]
    config, changed = train_scratch.get_config([*row, "--batch_size", "256"])
    assert config.batch_size == 256 and changed == {"batch_size": [128, 256]}
    assert train_scratch.get_config([*row, "--batch_size", "128"])[1] == {}
    changed = train_scratch.get_config(["--batch_size", "256", "--overrides", "--recipe", "modern"])[1]
    assert changed == {"recipe": ["released", "modern"], "weight_decay": [1e-4, 5e-4]}
    config, _ = train_scratch.get_config(["--model", "resnet18", "--stem", "imagenet"])
    assert config.model == "resnet18_imagenet"
    with pytest.raises(UserError, match="--stem imagenet"):
        train_scratch.get_config(["--model", "vgg11", "--stem", "imagenet"])


def test_the_card_of_a_teacher_names_its_record_and_all_that_it_was_trained_with(tmp_path):
    words = ["--smoke", "--model", "resnet8", "--dataset", "cifar10", "--precision", "bf16", "--fast"]
    train_scratch.main([*words, "--output_dir", str(tmp_path)])
    card = read_card(teacher_path(tmp_path, "cifar10", "resnet8").with_suffix(".json"))
    record = json.loads((tmp_path / "record.json").read_text())
    assert card.run_id == record["run_id"] and card.recipe["precision"] == "bf16" and card.recipe["fast"]
    assert {"images_per_class", "lr_decay_milestones", "stem"} <= card.recipe.keys()
    assert not {"data_root", "output_dir", "teacher_dir"} & card.recipe.keys()


def test_a_run_without_its_teacher_is_not_finished(tmp_path, monkeypatch):
    words = ["--smoke", "--model", "resnet8", "--dataset", "cifar10", "--output_dir", str(tmp_path)]

    def fail(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train_scratch, "save_teacher", fail)
        train_scratch.main(words)
    assert json.loads((tmp_path / "record.json").read_text())["status"] == "stopped"
    train_scratch.main(words)
    assert json.loads((tmp_path / "record.json").read_text())["status"] == "finished"
    path = teacher_path(tmp_path, "cifar10", "resnet8")
    content = path.read_bytes()
    path.unlink()
    train_scratch.main(words)  # finished, but its teacher is gone
    assert path.read_bytes() == content


def test_a_run_goes_on_with_its_own_teacher_only(tmp_path, monkeypatch):
    found = [Teacher(Path("a.safetensors"), "a" * 64, None)]
    monkeypatch.setattr(experiment, "load_teacher", lambda *_: found[-1])
    monkeypatch.setattr(experiment, "teacher_weights", lambda *_: Path())
    monkeypatch.setattr(experiment, "open_images", lambda *words, **more: open_images(*words, **more | {"smoke": True}))
    sizes = ["--epochs", "1", "--ep_steps", "2", "--batch_size", "4", "--output_dir", str(tmp_path)]
    runs = {
        data_free.main: ["--kd_steps_interval", "1", "--g_steps_interval", "1", "--ngf", "4", "--oh", "1"],
        vanilla_kd.main: ["--transfer_set", "cifar10"],
    }
    for number, (run, more) in enumerate(runs.items()):
        words = [*TINY[1:], *sizes, "--test_images_per_class", "2", *more, "--output_dir", str(tmp_path / str(number))]
        with pytest.raises(RunStopped):
            run([*words, "--time_budget", "0"])
        found.append(Teacher(Path("b.safetensors"), "b" * 64, None))
        with pytest.raises(UserError, match="another teacher .*expected aaaaaaaaaaaa, found bbbbbbbbbbbb"):
            run(words)
        found.pop()
        assert run(words)["student_updates"] == 2


# --- bad and idle flags ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("program, words, message", [
    (vanilla_kd, ["--lr_decay_milestones", "120,a"], "--lr_decay_milestones expects"),
    (vanilla_kd, ["--epochs", "0"], "--epochs must"), (vanilla_kd, ["--ep_steps", "0"], "--ep_steps must"),
    (vanilla_kd, ["--ratio", "0.5"], "--open_ratio"),
    (vanilla_kd, ["--schedule", "cosine", "--lr_decay_milestones", "1"], "--schedule cosine does not read"),
    (train_scratch, ["--epochs", "0"], "--epochs must"), (train_scratch, ["--batch_size", "0"], "--batch_size must"),
    (train_scratch, ["--lr_decay_milestones", "x"], "--lr_decay_milestones expects"),
    (train_scratch, ["--recipe", "small", "--momentum", "0.8"], "--momentum: --recipe small"),
    (train_scratch, ["--recipe", "modern", "--lr_decay_milestones", "9"], "--recipe modern does not read"),
], ids=str)  # fmt: skip
def test_bad_and_idle_flags_are_refused_in_one_line(program, words, message):
    with pytest.raises(UserError, match=message):
        program.get_config(words)


@pytest.mark.parametrize("row, more, is_shorter", [
    ([], ["--ep_steps", "1"], True), ([], ["--ep_steps", "999"], False),
    (["--ep_steps", "9"], ["--ep_steps", "1"], True),
], ids=str)  # fmt: skip
def test_a_row_without_a_length_is_shortened_below_one_pass(row, more, is_shorter, tmp_path):
    words = [*TINY, "--transfer_set", "cifar10", *row, "--overrides", *more, "--output_dir", str(tmp_path)]
    vanilla_kd.main(words)
    assert ("shortened" in json.loads((tmp_path / "record.json").read_text())["labels"]) is is_shorter


@pytest.mark.parametrize("run, words", [
    (data_free.main, [*TINY, "--oh", "1"]), (vanilla_kd.main, [*TINY, "--transfer_set", "cifar10"]),
    (train_scratch.main, ["--smoke", "--model", "resnet8", "--dataset", "cifar10"]),
], ids=["data-free", "vanilla", "scratch"])  # fmt: skip
def test_evaluating_only_shows_the_values_of_a_checkpoint(run, words, tmp_path, capsys):
    words = [*words, "--output_dir", str(tmp_path)]
    with pytest.raises(UserError, match="--evaluate_only: no checkpoint"):
        run([*words, "--evaluate_only"])
    accuracy = run(words)["acc"]
    capsys.readouterr()
    assert run([*words, "--evaluate_only"])["acc1"] == accuracy
    assert f"after 1 epochs: acc1 {accuracy:.4g}" in capsys.readouterr().out


def test_of_equal_tests_the_first_keeps_its_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "SMOKE_EPOCHS", 3)
    monkeypatch.setattr(Evaluator, "test", lambda *_: {"acc1": 50.0, "acc5": 90.0, "ce": 1.0})
    kept = []
    monkeypatch.setattr(Training, "keep_best", lambda training: kept.append(training.epoch))
    metrics = data_free.main(arguments(tmp_path, "dafl"))
    assert metrics["epochs_done"] == 3 and kept == [0] and metrics["best_acc_epoch"] == 1


# --- scripts --------------------------------------------------------------------------------------------------------

SCRIPTS = sorted(path.relative_to(FOLDER) for path in (FOLDER / "scripts").glob("*/*.sh"))
PROGRAMS = {"main.py": data_free, "train_scratch.py": train_scratch, "vanilla_kd.py": vanilla_kd}


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
def test_every_row_of_a_script_is_understood(script, tmp_path):
    """The command lines that the script would run, all through the programs' own parsers."""
    environment = {**os.environ, "PYTHON": "echo", "OUT": "outputs"}
    shown = subprocess.run(["sh", str(script)], cwd=FOLDER, env=environment, capture_output=True, text=True, check=True)
    lines = shown.stdout.splitlines()
    text = (FOLDER / script).read_text()
    rows = text.split('ROWS="')[1].split('"')[0].split()
    assert len(lines) == len([row for row in rows if row != "teacher"]) and all(f"wanted {row}" in text for row in rows)
    for line in lines:
        _, program, *words = line.split()
        if program == "vanilla_kd.py" and "run/cmi-preinverted-wrn402" in words:
            continue  # the folder does not exist before CMI has made it
        config, changed = PROGRAMS[program].get_config(words)
        assert not changed
        assert script.parent.name != "cudfkd" or program != "main.py" or 512 <= config.batch_size <= 1024  # D16
    wrong = ["sh", str(script), "nothing"]
    unknown = subprocess.run(wrong, cwd=FOLDER, env=environment, capture_output=True, text=True)
    assert unknown.returncode == 2 and "expected one of" in unknown.stderr


@pytest.mark.parametrize("script, row", [
    ("cudfkd/cifar10.sh", "wrn402-wrn161"), ("dafl/cifar10.sh", "vgg11-resnet18"), ("cmi/cifar100.sh", "wrn402-wrn162"),
    ("scratch/cifar10.sh", "wrn161"), ("desk/fashion_mnist.sh", "adi"),
], ids=str)  # fmt: skip
def test_a_row_in_its_short_form(script, row, tmp_path):
    environment = {**os.environ, "SMOKE": "1", "OUT": str(tmp_path), "PYTHON": sys.executable}
    words = ["sh", f"scripts/{script}", row]
    result = subprocess.run(words, cwd=FOLDER, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (record,) = [json.loads(path.read_text()) for path in tmp_path.rglob("record.json")]
    assert "smoke" in record["labels"] and record["cell"].startswith("cudfkd/") and record["status"] == "finished"


def test_the_teachers_accuracy_stands_beside_every_distillation():
    for cell in select_cells(read_registry(REPOSITORY), ["cudfkd/*"]):
        is_teacher = cell.script.startswith("scripts/scratch/")
        assert any(metric.key == "teacher_accuracy" for metric in cell.metrics) is not is_teacher, cell.id


def test_rows_from_modern_teachers_change_nothing_else():
    rows = {}
    for name in ("cifar10", "cifar100", "modern_teachers"):
        environment = {**os.environ, "PYTHON": "echo", "OUT": "outputs"}
        words = ["sh", f"scripts/cudfkd/{name}.sh"]
        shown = subprocess.run(words, cwd=FOLDER, env=environment, capture_output=True, text=True, check=True).stdout
        for line in shown.splitlines():
            config, _ = data_free.get_config(line.split()[2:])
            rows[config.cell] = config
    modern = [cell for cell in rows if "-modern-" in cell]
    assert len(modern) == 9
    for cell in modern:
        plain, changed = as_dict(rows[cell.replace("-modern", "")]), as_dict(rows[cell])
        differing = {name for name in plain if plain[name] != changed[name]}
        assert differing - {"log_fidelity"} == {"teacher_weights", "cell", "output_dir"}
        assert changed["teacher_weights"].startswith(f"checkpoints/modern/{changed['dataset']}_{changed['teacher']}.")


def test_one_name_stands_for_the_whole_desk_bench():
    cells = select_cells(read_registry(REPOSITORY), ["cudfkd-desk"])
    assert len(cells) == 16 and all(cell.demo for cell in cells)
    assert {cell.row for cell in cells} == {"vanilla", "dafl", "zskt", "dfad", "dfq", "adi", "cmi", "cudfkd"}
    with pytest.raises(UserError, match="no cell matches"):
        select_cells(read_registry(REPOSITORY), ["cudfkd-nothing"])
