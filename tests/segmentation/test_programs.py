"""Whole programs on the embedded frames: stopping and going on, several processes, scripts, what a run leaves."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.training.checkpoint import read_newest_checkpoint
from common.training.errors import RunStopped, UserError
from segmentation.average_csv import main as average_csv
from segmentation.checkpoints import read_step
from segmentation.main import main
from segmentation.start import load_weights
from tests.helpers import REPOSITORY, assert_equal

pytestmark = pytest.mark.smoke

SAMPLE = REPOSITORY / "segmentation" / "data" / "sample"
TINY = [
    "--data_root", str(SAMPLE), "--backbone", "resnet14", "--width", "4", "--head_width", "8", "--no_pretrained",
    "--crop_size", "32", "--pooling", "2", "--batch_size", "4", "--num_workers", "0", "--gpuid", "-1", "--lr", "0.01",
]  # fmt: skip
CLASSES = ["--dataset", "camvid", "--task", "7-4", "--step", "0", "1", "--overlap"]
DOMAINS = ["--dataset", "camvid_domain", "--task", "2-1", "--step", "0", "1"]


def arguments(folder: Path, *more: str) -> list[str]:
    return [*TINY, "--output_dir", str(folder), *more]


def step_files(folder: Path) -> dict[str, dict]:
    return {path.name: read_step(path) for path in sorted((folder / "checkpoints" / "step").glob("*.pth"))}


@pytest.mark.parametrize(
    "flags",
    [
        [*CLASSES, "--method", "PLOP"],
        [*CLASSES, "--method", "RCIL"],
        [*CLASSES, "--method", "RW"],
        [*DOMAINS, "--method", "VDFD", "--reg_importance", "0.01"],
    ],
    ids=["PLOP", "RCIL", "RW", "VDFD"],
)
def test_one_step_per_call_ends_like_an_unbroken_run(flags, tmp_path):
    """A time budget of 0 stops after every iteration; weights, importances, series and scores are equal to the bit."""
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    flags = [*flags, "--epochs", "2", "1"]
    main(arguments(whole, *flags))
    stops = 0
    while True:
        try:
            main(arguments(pieces, *flags, "--time_budget", "0"))
            break
        except RunStopped:
            stops += 1
            assert json.loads((pieces / "record.json").read_text())["status"] == "stopped"
            assert stops < 50
    assert stops >= 5
    assert_equal(step_files(whole), step_files(pieces))
    assert (whole / "series.jsonl").read_text() == (pieces / "series.jsonl").read_text()
    records = [json.loads((folder / "record.json").read_text()) for folder in (whole, pieces)]
    assert records[0]["metrics"] == records[1]["metrics"]
    state, problems = read_newest_checkpoint(pieces)
    assert not problems and state["parts"]["steps"]["training"] is None


# why double: what two processes add up in another order then differs by 1e-15 on every processor; in single precision
# the difference depends on the processor and hides errors of 1e-4.
IN_DOUBLE = """
import sys
import torch
torch.set_default_dtype(torch.float64)
torch.Tensor.float = torch.Tensor.double
from segmentation.main import main
main(sys.argv[1:])
"""


def run_processes(flags: list[str], folder: Path, count: int) -> None:
    """The same command in double precision, in several processes connected over gloo, as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    if count > 1:
        environment |= {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-c", IN_DOUBLE, *arguments(folder, *flags)]
    running = [
        subprocess.Popen(
            command, env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)}, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(count)
    ]  # fmt: skip
    outputs = [process.communicate(timeout=240)[0] for process in running]
    assert [process.returncode for process in running] == [0] * count, outputs


@pytest.mark.parametrize(
    "flags",
    [[*CLASSES, "--method", "PLOP"], [*DOMAINS, "--method", "VDFD", "--reg_importance", "1e-4"]],
    ids=["PLOP", "VDFD"],
)
def test_two_processes_equal_one_at_the_same_total_batch(flags, tmp_path):
    """Statistics of the norms, gradients, thresholds and importances are those of the whole batch."""
    flags = [*flags, "--val_interval", "9", "--epochs", "1", "--lr", "0.001", "--crop_size", "96"]
    run_processes(flags, tmp_path / "one", 1)
    run_processes([*flags, "--batch_size", "2"], tmp_path / "two", 2)
    ones, twos = (list(step_files(tmp_path / name).values()) for name in ("one", "two"))
    assert len(ones) == len(twos) == 2
    assert ones[0]["model_state"]["body.mod1.conv1.weight"].dtype is torch.float64
    for one, two in zip(ones, twos, strict=True):
        torch.testing.assert_close(two["model_state"], one["model_state"], rtol=1e-9, atol=1e-11)
    if "VDFD" in flags:
        for alone, together in zip(*(files[1]["trainer_state"]["regularizer"] for files in (ones, twos)), strict=True):
            torch.testing.assert_close(together["features"], alone["features"], rtol=1e-9, atol=1e-11)
    records = [json.loads((tmp_path / name / "record.json").read_text()) for name in ("one", "two")]
    assert records[0]["metrics"]["test_images"] == records[1]["metrics"]["test_images"]
    assert records[0]["steps"] == records[1]["steps"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    main(arguments(folder, *CLASSES, "--method", "MiB", "--epochs", "1", "--sample_num", "2", "--name", "mine"))
    return folder


def test_what_a_run_leaves(finished):
    assert {path.name for path in (finished / "checkpoints" / "step").iterdir()} == {
        "7-4-camvid_mine_0.pth", "7-4-camvid_mine_1.pth",
    }  # fmt: skip
    raw = torch.load(finished / "checkpoints" / "step" / "7-4-camvid_mine_1.pth", weights_only=True)
    assert set(raw) == {
        "epoch", "model_state", "optimizer_state", "scheduler_state", "best_score", "trainer_state",
    }  # fmt: skip
    assert all(key.startswith("module.") for key in raw["model_state"])
    rows = (finished / "results" / "camvid_7-4_mine.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["0", "1"]
    assert rows[0].count("x") == 4 and "x" not in rows[1] and len(rows[0].split(",")) == 14
    record = json.loads((finished / "record.json").read_text())
    metrics = record["metrics"]
    assert record["paper"] == "seg" and metrics["miou"] == pytest.approx(100 * float(rows[1].split(",")[-1]))
    assert metrics["miou_history"][0] == pytest.approx(100 * float(rows[0].split(",")[-1]))
    text = average_csv([str(finished / "results" / "camvid_7-4_mine.csv")])
    assert f"Average Mean IoU {metrics['miou_avg']}" in text and f"Mean IoU first {metrics['miou_old']}" in text
    pictures = sorted((finished / "pictures").glob("*.png"))
    assert len(pictures) == 4 and Image.open(pictures[0]).size == (3 * 32 + 8, 32)
    names = {json.loads(line)["name"] for line in (finished / "series.jsonl").read_text().splitlines()}
    assert {"lr/head", "val/loss", "val/miou", "test/miou", "test/iou_class_3", "test/accuracy_class_3"} <= names
    matrix = np.loadtxt(finished / "confusion" / "step_1.csv", delimiter=",")
    assert matrix.shape == (12, 12) and matrix.trace() / matrix.sum() == pytest.approx(
        metrics["overall_accuracy"] / 100
    )


def test_steps_can_be_run_one_by_one(finished, tmp_path):
    """Step 1 alone, from the first run's step 0, gives the same network as both steps in one command."""
    shared = [*CLASSES[:4], "--overlap", "--method", "MiB", "--epochs", "1", "--name", "mine"]
    start = finished / "checkpoints" / "step" / "7-4-camvid_mine_0.pth"
    main(arguments(tmp_path / "second", *shared, "--step", "1", "--step_ckpt", str(start), "--sample_num", "2"))
    both, alone = (step_files(folder)["7-4-camvid_mine_1.pth"] for folder in (finished, tmp_path / "second"))
    assert_equal(both["model_state"], alone["model_state"])
    last = str(start).replace("_0.pth", "_1.pth")
    tested = main(arguments(tmp_path / "test", *shared, "--step", "1", "--test", "--ckpt", last))
    assert tested["miou"] == json.loads((finished / "record.json").read_text())["metrics"]["miou"]


def test_a_checkpoint_goes_on_after_its_epoch(finished, tmp_path):
    """D9: with no epoch left nothing is trained; as released, all epochs would begin again."""
    start = finished / "checkpoints" / "step" / "7-4-camvid_mine_0.pth"
    first = [*CLASSES[:4], "--overlap", "--method", "MiB", "--name", "mine", "--step", "0", "--ckpt", str(start)]
    same = {}
    for epochs in ("1", "2"):
        main(arguments(tmp_path / epochs, *first, "--epochs", epochs))
        given, left = (step_files(folder)["7-4-camvid_mine_0.pth"] for folder in (finished, tmp_path / epochs))
        same[epochs] = all(torch.equal(value, given["model_state"][key]) for key, value in left["model_state"].items())
    assert same == {"1": True, "2": False}


def test_a_command_for_each_step_needs_no_more_than_a_name(tmp_path):
    """As the originals are run: the same --name, another --step; checkpoints and results lie together."""
    shared = [*TINY, *CLASSES[:4], "--overlap", "--epochs", "1", "--logdir", str(tmp_path / "logs"), "--name", "mine"]
    first = main([*shared, "--method", "FT", "--step", "0"])
    main([*shared, "--method", "PLOP", "--step", "1", "--lr", "0.001"])
    folder = tmp_path / "logs" / "7-4-camvid" / "mine"
    assert [path.name for path in sorted((folder / "checkpoints" / "step").iterdir())] == [
        "7-4-camvid_mine_0.pth", "7-4-camvid_mine_1.pth",
    ]  # fmt: skip
    results = folder / "results" / "camvid_7-4_mine.csv"
    rows = results.read_text()
    assert [row.split(",")[0] for row in rows.splitlines()] == ["0", "1"]
    again = main([*shared, "--method", "FT", "--step", "0", "--test"])
    assert all(again[name] == first[name] for name in ("miou", "miou_avg")) and results.read_text() == rows
    records = sorted(path.parent.name for path in folder.rglob("record.json"))
    assert records == ["step_0", "step_1", "test_0"]


@pytest.mark.parametrize("method", ["EWC", "PI", "RW"])
def test_a_checkpoint_of_a_validation_keeps_the_importances(method, tmp_path):
    """--ckpt after the first epoch ends like an unbroken run, and with no epoch left it loses nothing."""
    flags = [*CLASSES[:4], "--overlap", "--method", method, "--step", "0", "--reg_iterations", "2"]
    main(arguments(tmp_path / "whole", *flags, "--epochs", "2"))
    name = "7-4-camvid_Experiment_0.pth"
    file = tmp_path / "pieces" / "checkpoints" / "step" / name
    while not file.is_file():
        with pytest.raises(RunStopped):
            main(arguments(tmp_path / "pieces", *flags, "--epochs", "2", "--time_budget", "0"))
    assert read_step(file)["epoch"] == 0
    main(arguments(tmp_path / "rest", *flags, "--epochs", "2", "--ckpt", str(file)))
    expected = step_files(tmp_path / "whole")[name]
    assert_equal(step_files(tmp_path / "rest")[name], expected)
    last = tmp_path / "whole" / "checkpoints" / "step" / name
    main(arguments(tmp_path / "none", *flags, "--epochs", "2", "--ckpt", str(last)))
    assert_equal(step_files(tmp_path / "none")[name]["trainer_state"], expected["trainer_state"])


def test_a_checkpoint_of_another_penalty_is_refused(finished, tmp_path):
    start = finished / "checkpoints" / "step" / "7-4-camvid_mine_0.pth"
    shared = [*CLASSES[:4], "--overlap", "--epochs", "1", "--name", "mine"]
    with pytest.raises(UserError, match="nothing that --regularizer ewc could go on from"):
        main(arguments(tmp_path / "on", *shared, "--step", "0", "--method", "EWC", "--ckpt", str(start)))
    main(arguments(tmp_path / "first", *shared, "--step", "0", "--method", "EWC"))
    ewc = str(tmp_path / "first" / "checkpoints" / "step" / start.name)
    for file, method, message in (
        (str(start), "EWC", "holds no importances, EWC needs fisher"),
        (ewc, "PI", "holds fisher importances, PI needs score"),
        (ewc, "VDFD", "holds no VDFD importance"),
    ):
        with pytest.raises(UserError, match=message):
            main(arguments(tmp_path / method, *shared, "--step", "1", "--method", method, "--step_ckpt", file))


def test_a_later_steps_checkpoint_goes_on_with_thresholds(finished, tmp_path):
    first, second = (str(finished / "checkpoints" / "step" / f"7-4-camvid_mine_{step}.pth") for step in (0, 1))
    flags = [*CLASSES[:4], "--overlap", "--name", "mine", "--step", "1", "--method", "PLOP", "--epochs", "2"]
    assert main(arguments(tmp_path, *flags, "--step_ckpt", first, "--ckpt", second))["steps"] == [1]


def test_without_its_predecessor_a_debugged_step_starts_from_the_pretrained_body(tmp_path):
    flags = [*CLASSES[:4], "--overlap", "--step", "1", "--method", "FT", "--debug", "--epochs", "1"]
    words = [word for word in arguments(tmp_path, *flags) if word != "--no_pretrained"]
    with pytest.raises(UserError, match="pretrained body: .* not found"):
        main([*words, "--code_directory", str(tmp_path)])
    main(arguments(tmp_path / "random", *flags))


def test_a_record_lost_at_the_very_end_is_written_again(finished, tmp_path):
    """A kill between the last checkpoint and the record: data and labels are those of the run."""
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    before = json.loads((copy / "record.json").read_text())
    (copy / "record.json").unlink()
    main(arguments(copy, *CLASSES, "--method", "MiB", "--epochs", "1", "--sample_num", "2", "--name", "mine"))
    after = json.loads((copy / "record.json").read_text())
    assert [after[name] for name in ("data", "labels", "metrics")] == [
        before[name] for name in ("data", "labels", "metrics")
    ]
    assert before["data"]["sha256"] and before["data"]["copy"] != "original"


def test_a_first_step_is_taken_over(finished, tmp_path):
    start = finished / "checkpoints" / "step" / "7-4-camvid_mine_0.pth"
    main(arguments(tmp_path, *CLASSES, "--method", "MiB", "--epochs", "1", "--step0_ckpt", str(start)))
    both, taken = step_files(finished)["7-4-camvid_mine_1.pth"], step_files(tmp_path)["7-4-camvid_Experiment_1.pth"]
    assert_equal(both["model_state"], taken["model_state"])


def test_a_finished_run_is_skipped_and_a_missing_step_refused(finished, tmp_path, capsys):
    before = (finished / "record.json").read_bytes()
    main(arguments(finished, *CLASSES, "--method", "MiB", "--epochs", "1", "--sample_num", "2", "--name", "mine"))
    assert "finished already" in capsys.readouterr().out and (finished / "record.json").read_bytes() == before
    with pytest.raises(UserError, match="step 1 needs .*_0.pth; train step 0 first"):
        main(arguments(tmp_path, *CLASSES[:4], "--step", "1", "--overlap", "--method", "FT"))


def test_a_checkpoint_of_another_network_is_refused(finished):
    from segmentation.network import build_network
    from tests.segmentation.building import small_config

    state = read_step(finished / "checkpoints" / "step" / "7-4-camvid_mine_1.pth")["model_state"]
    with pytest.raises(UserError, match="does not fit"):
        load_weights(build_network(small_config(width=8), [8, 4]), state)


SCRIPTS = {
    "vdfd.sh": "1-1", "plop/voc.sh": "plop_10-1", "plop/ade.sh": "plop_ade_100-5", "rcil/cityscapeClL.sh": "dev",
    "plop/cityscapesDomain.sh": "plop_1-1", "rcil/voc.sh": "RCIL_15-1-disjoint", "rcil/ade.sh": "RCIL_ade_100-50",
    "rcil/cityscapesDomain.sh": "RCIL_cityscapes_11-5", "baselines_domain.sh": "icarl-1-1",
    "baselines_voc.sh": "ewc-15-1", "desk.sh": "class-joint",
}  # fmt: skip


@pytest.mark.skipif(shutil.which("sh") is None, reason="no POSIX shell")
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_row_of_every_script_runs_in_its_short_form(script, tmp_path):
    """All rows of a script take the same way; the cells' test checks the flags of each."""
    environment = {**os.environ, "SMOKE": "1", "OUT": str(tmp_path), "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["sh", f"scripts/{script}", SCRIPTS[script]], cwd=REPOSITORY / "segmentation", env=environment,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (record,) = [json.loads(path.read_text()) for path in tmp_path.rglob("record.json")]
    assert record["status"] == "finished" and "smoke" in record["labels"] and record["cell"].startswith("seg/")


def test_an_unknown_row_is_named(tmp_path):
    environment = {**os.environ, "OUT": str(tmp_path), "PYTHON": sys.executable}
    done = subprocess.run(
        ["sh", "scripts/vdfd.sh", "2-1"], cwd=REPOSITORY / "segmentation", env=environment, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 2 and "unknown row '2-1'" in done.stderr
