"""Flags, presets, refusals, scripts against the table of cells."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from common.training.errors import UserError
from segmentation.cells import rows, text
from segmentation.configuration import epochs_of, get_config, labels_of, learning_rate
from segmentation.network import uses_rcil_network
from segmentation.options import SegmentationOptions
from tests.helpers import REPOSITORY

pytestmark = pytest.mark.unit

FOLDER = REPOSITORY / "segmentation"


def test_presets():
    config, _ = get_config(["--method", "PLOP", "--overlap"])
    assert (config.pod, config.pod_factor, config.pod_logits, config.pseudo) == ("local", 0.01, True, "entropy")
    assert config.pod_options["switch"]["after"]["factor"] == 0.0005 and config.threshold == 0.001
    config, _ = get_config(["--method", "VDFD", "--dataset", "cityscapes_domain", "--task", "1-1"])
    assert (config.regularizer, config.reg_importance, config.unce, config.num_classes) == ("vdfd", 10.0, False, 19)
    assert get_config(["--method", "VDFD"])[0].unce
    assert get_config(["--method", "VDFD", "--reg_importance", "0.5"])[0].reg_importance == 0.5
    assert get_config(["--method", "VDFD", "--reg-importance=1"])[0].reg_importance == 1.0  # the flag's own default
    assert get_config(["--method", "PLOP", "--pod_factor", "0.01"])[0].pod_factor == 0.01


def test_switches_and_lists():
    words = ["--task", "15-5s", "--step", "0", "1", "2", "--lr", "0.01", "0.001", "0.002", "--epochs", "30", "10", "5"]
    config, _ = get_config([*words, "--crop_val", "--visualize", "--sample_num", "3", "--fusion-mode", "max"])
    assert [learning_rate(config, step) for step in (0, 1, 2)] == [0.01, 0.001, 0.002] and epochs_of(config, 1) == 10
    assert not config.crop_val and config.sample_num == 0 and config.fusion_mode == "max"
    options = json.dumps({"switch": {"after": {"extra_channels": "sum", "factor": 0.1, "type": "local"}}})
    assert get_config(["--pod", "local", "--pod_options", options])[0].pod_options == json.loads(options)
    assert SegmentationOptions().random_seed == 42 and SegmentationOptions().lr == [0.007]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--no_mask"], "--no_mask"),
        (["--data_masking", "all"], "current, current"),
        (["--norm_act", "std"], "D17"),
        (["--nca"], "--nca"),
        (["--base_weights"], "--base_weights"),
        (["--disable_background"], "--disable_background"),
        (["--task", "15-1"], "15-5s"),
        (["--step", "2"], "steps 0 to 1"),
        (["--step", "0", "1", "--lr", "1", "2", "3"], "--lr"),
        (["--num_classes", "20"], "voc has 21"),
        (["--method", "PLOP", "--pod_factor", "0.5"], "--method PLOP sets --pod_factor"),
        (["--method", "PLOP", "--pod_factor", "5"], "--method PLOP sets --pod_factor to 0.01, found 5.0"),
        (["--method", "PLOP", "--threshold=0.9"], "--method PLOP sets --threshold"),
        (["--method", "EWC", "--reg-importance", "1"], "--method FT and the method's flags"),
        (["--method", "MiB", "--loss_kd", "0"], "--method MiB sets --loss_kd"),
        (["--method", "RCIL", "--loss_kd", "10"], "--method FT --codebase rcil"),
        (["--dataset", "cityscapes_domain", "--task", "1-1", "--unce"], "D18"),
        (["--dataset", "cityscapes_domain", "--task", "1-1", "--val_on_trainset"], "--val_on_trainset: a domain"),
        (["--dataset", "cityscapes_domain", "--task", "1-1", "--test_on_val"], "--test_on_val: a domain"),
        (["--method", "MiB", "--dataset", "camvid_domain", "--task", "1-1"], "D18"),
        (["--method", "VDFD", "--cosine"], "--cosine"),
        (["--regularizer", "vdfd", "--cosine"], "--cosine"),
        (["--method", "VDFD", "--hypermodel_out", "4"], "--hypermodel_out 4: .* 256"),
        (["--method", "VDFD", "--epsilons", "0"], "--epsilons 0"),
        (["--method", "VDFD", "--vdfd_network", "rcil", "--rcil_start", "compensate"], "--rcil_start"),
        (["--sample_num", "-1"], "--sample_num -1: expected at least 0"),
        (["--reg_iterations", "0"], "--reg_iterations 0"),
        (["--spp_scales", "1", "0"], "--spp_scales 0"),
        (["--norm_act", "abn", "--batch_size", "1"], "--batch_size 1"),
        (["--ce_on_pseudo"], "--ce_on_pseudo has no effect without --pseudo"),
        (["--ce_on_pseudo", "--pseudo", "naive"], "--ce_on_pseudo has no effect"),
        (["--pseudo_soft", "soft_certain"], "--pseudo_soft has no effect without --pseudo entropy"),
        (["--icarl_disjoint"], "without --icarl"),
        (["--no_pod_schedule"], "without --pod"),
        (["--dataset", "ade", "--task", "100-50", "--data_masking", "new"], "--data_masking has no effect"),
        (["--step_ckpt", "file"], "--step that begins above 0"),
        (["--vdfd_network", "rcil"], "without --regularizer vdfd"),
        (["--epochs", "0"], "--epochs 0"),
        (["--opt_level", "O3"], "O3"),
    ],
)
def test_refusals_are_one_line(words, message):
    with pytest.raises(UserError, match=message) as caught:
        get_config(words)
    assert "\n" not in str(caught.value)


def test_a_run_is_shortened_if_one_of_its_steps_is():
    row = ["--task", "10-1", "--step", *map(str, range(11)), "--epochs", "30", *["10"] * 10, "--overrides"]
    for words, expected in {
        (): False, ("--epochs", "30"): False, ("--epochs", "20"): True, ("--step", "1", "--epochs", "10"): False,
        ("--step", "0", "--epochs", "29"): True,
    }.items():  # fmt: skip
        config, changed = get_config([*row, *words])
        assert ("shortened" in labels_of(config, changed, "original")) == expected, words


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--method", "VDFD"], False),
        (["--method", "VDFD", "--vdfd_network", "rcil"], True),
        (["--method", "VDFD", "--codebase", "rcil"], True),
        (["--regularizer", "vdfd", "--vdfd_network", "rcil"], True),
        (["--regularizer", "vdfd"], False),
        (["--method", "RCIL"], True),
    ],
)
def test_whose_network_is_built(words, expected):
    assert uses_rcil_network(get_config(words)[0]) == expected


def test_processes_share_the_batch_or_are_refused(tmp_path):
    done = subprocess.run(
        ["sh", "scripts/vdfd.sh", "1-1"], cwd=FOLDER, capture_output=True, text=True,
        env={"NGPU": "5", "PYTHON": "false", "PATH": "/usr/bin:/bin", "OUT": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 2 and "NGPU=5 does not divide the batch of 24" in done.stderr


def test_the_table_of_cells_is_up_to_date():
    assert (FOLDER / "experiments.toml").read_text(encoding="utf-8") == text()


def test_every_cell_is_a_row_of_its_script(tmp_path):
    """Each script's rows, run with a program that only writes its flags: the cells, and flags that the parser takes."""
    recorder = tmp_path / "recorder.py"
    recorder.write_text(
        "import json, os, sys\n"
        "with open(os.environ['SEEN'], 'a') as seen: seen.write(json.dumps(sys.argv[1:]) + '\\n')\n"
    )
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {recorder} "$@"\n')
    python.chmod(0o755)
    cells = {f"seg/{row.id}": row for row in rows()}
    seen = tmp_path / "seen"
    for script in {row.script for row in cells.values()}:
        environment = {"SEEN": str(seen), "PYTHON": str(python), "PATH": "/usr/bin:/bin", "OUT": str(tmp_path)}
        subprocess.run(["sh", f"scripts/{script}"], cwd=FOLDER, env=environment, check=True)
    calls = {}
    for line in seen.read_text().splitlines():
        _, program, *words = json.loads(line)
        assert program == "main.py"
        config, changed = get_config(words)
        assert not changed
        calls[config.cell] = config
    assert calls.keys() == cells.keys()
    plop = calls["seg/plop-voc-10-1"]
    assert plop.step == list(range(11)) and plop.epochs == [30] + [10] * 10 and plop.lr == [0.01] + [0.001] * 10
    assert calls["seg/lwf-voc-10-1"].epochs == plop.epochs and calls["seg/lwf-voc-15-1"].epochs == [30] * 6
    assert plop.batch_size == 24 and plop.overlap and plop.method == "PLOP" and plop.opt_level == "O1"
    assert not calls["seg/rcil-voc-10-1-disjoint"].overlap and calls["seg/rcil-domain-11-1"].lr[1] == 0.004
    assert calls["seg/plop-domain-1-1"].pod_options["switch"]["after"]["factor"] == 0.001
    five, one = (calls[f"seg/plop-domain-11-{number}"] for number in (5, 1))  # no released script for 11-5 (D19)
    assert {name for name in vars(five) if getattr(five, name) != getattr(one, name)} == {
        "cell", "name", "task", "step", "lr", "epochs", "output_dir",
    }  # fmt: skip
    assert (five.lr, five.epochs) == (one.lr[:3], one.epochs[:3])
    vdfd = calls["seg/vdfd-1-1"]
    assert vdfd.step == list(range(21)) and vdfd.lr[:2] == [0.02, 0.001] and vdfd.epochs == [50] * 21
