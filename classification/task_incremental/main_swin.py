"""VDFD with Swin-T, task-incremental (TPAMI 2023): the original's second entry point.

    sh scripts/vdfd.sh subimagenet-10-swin          # the published row
    SMOKE=1 sh scripts/vdfd.sh subimagenet-10-swin  # its short form, on the embedded sample

Original: XiaorongLi-95/VDFD@2c0dfce classification/task_incremental/main_swin.py (MIT).
Deviations from it: see classification/README.md, section "Deviations".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from classification.task_incremental.main import PROTOCOL, check_setting
from classification.task_incremental.options import SwinOptions
from classification.vdfd.experiment import run_experiment
from classification.vdfd.swin_learner import VDFDSwin
from common.training.errors import UserError, command_line
from common.training.options import parse_row

SWIN_PROTOCOL = dataclasses.replace(PROTOCOL, methods={("vdfd_swin", "VDFDSwin"): VDFDSwin})


def get_config(argv: Sequence[str] | None = None) -> tuple[SwinOptions, dict[str, list[Any]]]:
    """Flags -> typed config, and what the user changed of a script's row.

    Raises:
        UserError: for flags that do not go together, and for two of the original's that cannot be honoured.
    """
    config, changed = parse_row(SwinOptions, argv, "VDFD with a Swin transformer, one head per task")
    check_setting(config)
    if config.fused_window_process:
        raise UserError(
            "--fused_window_process: the CUDA kernel for it is not part of this repository; leave it out, the windows "
            "are then shifted by torch with the same result"
        )
    if config.resume_first:
        raise UserError(
            "--resume_first: the original would load ./checkpoints/swin_t_task0.pth, which it never writes; leave it "
            "out, an interrupted run goes on by itself (--resume), and --model_weights gives initial weights"
        )
    if config.warmup_epochs < 0:
        raise UserError(f"--warmup_epochs {config.warmup_epochs}: expected 0 or more epochs")
    return config, changed


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the experiment; returns the summary."""
    config, changed = get_config(argv)
    return run_experiment(config, changed, SWIN_PROTOCOL)


if __name__ == "__main__":
    command_line(main)()
