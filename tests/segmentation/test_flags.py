"""Flags, presets, refusals, scripts against the table of cells."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from common.training.errors import UserError
from segmentation.cells import rows, text
from segmentation.configuration import epochs_of, get_config, learning_rate
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
        (["--dataset", "cityscapes_domain", "--task", "1-1", "--unce"], "D18"),
        (["--method", "MiB", "--dataset", "camvid_domain", "--task", "1-1"], "D18"),
        (["--method", "VDFD", "--cosine"], "--cosine"),
        (["--epochs", "0"], "--epochs 0"),
        (["--opt_level", "O3"], "O3"),
    ],
)
def test_refusals_are_one_line(words, message):
    with pytest.raises(UserError, match=message) as caught:
        get_config(words)
    assert "\n" not in str(caught.value)


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
