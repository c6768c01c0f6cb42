"""main_swin.py: flags, refusals, whole runs on a tiny Swin, killing and resuming, the short form of its row."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys

import pytest
import torch

from classification.task_incremental.main_swin import get_config, main
from common.backbones import registry
from common.backbones.swin_vdfd import SwinTransformer
from common.training import graph
from common.training.errors import UserError
from tests.classification.runs import differs, learner_state, model_state, run_in_pieces
from tests.common.training.operation_recorder import OperationRecorder
from tests.helpers import REPOSITORY, assert_same_run

ORIGINAL_DEFAULTS = {
    "gpuid": [1], "model_type": "swin", "model_name": "SwinTransformer", "hypermodel_type": "gcn",
    "hypermodel_name": "GCN", "force_out_dim": 0, "agent_type": "vdfd_swin", "agent_name": "VDFDSwin",
    "model_optimizer": "Adam", "hypermodel_optimizer": "Adam", "dataroot": "../../data/SubImageNet",
    "dataset": "SubImageNet", "first_split_size": 10, "other_split_size": 10, "no_class_remap": False,
    "train_aug": True, "rand_split": False, "rand_split_order": False, "workers": 0, "batch_size": 16,
    "model_lr": 5e-4, "head_lr": 1e-3, "hypermodel_lr": 5e-4, "min_lr": 5e-6, "warmup_lr": 5e-7, "warmup_epochs": 20,
    "momentum": 0, "model_weight_decay": 5e-5, "head_weight_decay": 0, "hypermodel_weight_decay": 5e-5,
    "schedule": [30], "print_freq": 10, "model_weights": None, "reg_coef": [10], "eval_on_train_set": False,
    "with_head": False, "reset_model_opt": True, "repeat": 1, "epsilons": 0.01, "seed": 0, "resume_first": False,
    "fused_window_process": False,
}  # fmt: skip
TINY = [
    "--dataset", "Sample", "--first_split_size", "2", "--other_split_size", "2", "--max_tasks", "2",
    "--images_per_class", "6", "--batch_size", "4", "--schedule", "2", "--warmup_epochs", "1", "--model_lr", "1e-3",
    "--head_lr", "1e-3", "--min_lr", "1e-5", "--warmup_lr", "1e-4", "--epsilons", "1e-3", "--gpuid", "-1",
    "--importance_batch", "4",
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def tiny_swin():
    """The program's network, small enough for 32x32 images."""
    small = functools.partial(
        SwinTransformer, img_size=32, patch_size=4, embed_dim=8, depths=(1, 2), num_heads=(1, 2), window_size=4
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.BACKBONES, ("swin", "SwinTransformer"), small)
        yield


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("swin")
    main([*TINY, "--output_dir", str(folder)])
    return folder


@pytest.mark.unit
def test_defaults_are_the_originals():
    config, changed = get_config([])
    assert {name: getattr(config, name) for name in ORIGINAL_DEFAULTS} == ORIGINAL_DEFAULTS and changed == {}


@pytest.mark.unit
@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--fused_window_process"], "CUDA kernel"),
        (["--resume_first"], "swin_t_task0.pth"),
        (["--force_out_dim", "10"], "class-incremental"),
        (["--warmup_epochs", "-1"], "warmup_epochs"),
        (["--svd_lr", "1"], "svd_lr"),
    ],
)
def test_flags_that_cannot_work_are_refused(flags, expected):
    with pytest.raises(UserError, match=expected) as refused:
        get_config(flags)
    assert "\n" not in str(refused.value)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--agent_type", "vdfd", "--agent_name", "VDFD"], "vdfd_swin"),
        (["--widths", "8", "16"], "resnet18 only"),
    ],
)
def test_what_belongs_to_main_py_is_refused(flags, expected, tmp_path):
    with pytest.raises(UserError, match=expected):
        main([*TINY, "--output_dir", str(tmp_path), *flags])


@pytest.mark.smoke
def test_a_run_in_pieces_equals_the_whole(unbroken, tmp_path):
    assert run_in_pieces(main, [*TINY, "--output_dir", str(tmp_path)]) >= 12  # every step, and every importance batch
    assert_same_run(unbroken, tmp_path)


@pytest.mark.smoke
def test_what_is_stored_is_said_to_exceed_the_backbone(unbroken):
    log = (unbroken / "log.txt").read_text()
    assert log.count("storage:") == log.count("(D20)") == 2
    factors = learner_state(unbroken)["memory"]["tasks"][0]["factors"]
    assert [part.shape[0] for part in factors["layers.0.blocks.0.attn.qkv.weight"]] == [24, 24, 24]  # one per row
    assert [part.dim() for part in factors["patch_embed.proj.weight"]] == [2, 1, 2]


@pytest.mark.smoke
def test_learning_rates_restart_with_every_task(unbroken):
    points = [json.loads(line) for line in (unbroken / "series.jsonl").read_text().splitlines()]
    rates = {(p["task"], p["epoch"]): p["value"] for p in points if p["name"] == "lr/backbone_end"}
    assert rates[1, 0] == rates[2, 0] and rates[1, 1] == rates[2, 1] and rates[1, 0] != rates[1, 1]


@pytest.mark.smoke
@pytest.mark.parametrize(
    "flags",
    [
        ["--min_lr", "5e-4"],
        ["--warmup_lr", "5e-4"],
        ["--warmup_epochs", "0"],
        ["--singular", "2"],
        ["--precision_matrix", "identity"],
        ["--reset_model_opt"],
    ],
    ids=" ".join,
)
def test_a_flag_changes_the_run(flags, unbroken, tmp_path):
    main([*TINY, "--output_dir", str(tmp_path), *flags])
    assert differs(unbroken, tmp_path)


@pytest.mark.smoke
def test_regularised_heads_change_nothing(equal_draws, tmp_path):
    """O12: old heads are frozen, and old outputs do not depend on the new one."""
    for name, flags in (("without", []), ("with", ["--with_head"])):
        main([*TINY, "--output_dir", str(tmp_path / name), *flags])
    one, other = (model_state(tmp_path / name) for name in ("without", "with"))
    for key in one:
        torch.testing.assert_close(one[key], other[key], rtol=0, atol=1e-5)


@pytest.mark.smoke
def test_one_optimiser_for_all_tasks_resumes_too(tmp_path):
    main([*TINY, "--output_dir", str(tmp_path / "whole"), "--reset_model_opt"])
    run_in_pieces(main, [*TINY, "--output_dir", str(tmp_path / "pieces"), "--reset_model_opt"])
    assert_same_run(tmp_path / "whole", tmp_path / "pieces")


@pytest.mark.smoke
def test_the_row_in_its_short_form(tmp_path):
    """The full Swin-T at 224 pixels, as a user would: `SMOKE=1 sh scripts/vdfd.sh subimagenet-10-swin`."""
    environment = {**os.environ, "SMOKE": "1", "OUT": str(tmp_path), "PYTHON": sys.executable}
    folder = REPOSITORY / "classification" / "task_incremental"
    command = ["sh", "scripts/vdfd.sh", "subimagenet-10-swin"]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (record,) = [json.loads(path.read_text()) for path in tmp_path.rglob("record.json")]
    assert record["cell"] == "vdfd/ti-subimagenet-10-swin" and record["method"] == "VDFDSwin"
    assert "smoke" in record["labels"] and record["status"] == "finished"


@pytest.mark.smoke
def test_captured_steps_draw_and_train_like_eager_ones(tmp_path, monkeypatch):
    """With dropped branches, which draw random numbers inside the step, and rates that change at every update."""
    recorders = []
    monkeypatch.setattr(graph, "backend_for", lambda device: recorders.append(OperationRecorder()) or recorders[-1])
    for name, more in (("eager", ["--eager"]), ("fast", [])):
        main([*TINY, "--fast", *more, "--output_dir", str(tmp_path / name)])
    assert_same_run(tmp_path / "eager", tmp_path / "fast")
    assert recorders[0].captures == 0 and recorders[1].captures == 2 and recorders[1].replays > 0
