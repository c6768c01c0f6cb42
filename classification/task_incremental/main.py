"""VDFD, task-incremental (TPAMI 2023).

    sh scripts/vdfd.sh                          # all rows, in the paper's order
    sh scripts/vdfd.sh cifar100-10 --seed 1     # one row, with further flags
    sh scripts/adamnscl.sh                      # the baseline Adam-NSCL
    python main.py --dataset Sample --first_split_size 4 --other_split_size 4 --schedule 8

Methods, by --agent_type and --agent_name: vdfd VDFD; vdfd_ssl VDFD (with rotation labels; reconstructed, the authors
did not release it); finetune FineTuning (no protection); joint Joint (all images so far, an upper bound); svd_based
svd_based (Adam-NSCL). VDFD with --precision_matrix identity is its ablation without hypermodel. VDFD on a Swin
transformer has a program of its own, main_swin.py.

Original: XiaorongLi-95/VDFD@2c0dfce classification/task_incremental/main.py (MIT).
Deviations from it: see classification/README.md, section "Deviations".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

from classification.adam_nscl.learner import AdamNSCL
from classification.task_incremental.options import SwinOptions, TaskIncrementalOptions
from classification.vdfd.experiment import METHODS, Protocol, run_experiment
from classification.vdfd.joint_learner import JointTraining
from classification.vdfd.options import check_options
from classification.vdfd.rotation import COPIES
from classification.vdfd.setting import TaskIncremental
from classification.vdfd.variant import TASK_INCREMENTAL_CODE
from classification.vdfd.vdfd_learner import VDFD
from common.metrics.continual import AccuracyMatrix
from common.training.errors import UserError, command_line
from common.training.options import parse_row


def get_config(argv: Sequence[str] | None = None) -> tuple[TaskIncrementalOptions, dict[str, list[Any]]]:
    """Flags -> typed config, and what the user changed of a script's row.

    Raises:
        UserError: for flags that do not go together in this setting.
    """
    config, changed = parse_row(TaskIncrementalOptions, argv, "VDFD and baselines, one head per task")
    check_setting(config)
    return config, changed


def check_setting(config: TaskIncrementalOptions | SwinOptions) -> None:
    """Refuse flags that do not go together with one head per task, and numbers that no run could use.

    Raises:
        UserError: naming the flag.
    """
    check_options(config)
    if config.force_out_dim != 0:
        raise UserError(
            f"--force_out_dim {config.force_out_dim}: a single head for all classes belongs to the class-incremental "
            "setting; expected 0 here"
        )
    if config.no_class_remap:
        raise UserError("--no_class_remap: with one head per task labels must be counted inside the task; leave it out")


def summarise(matrix: AccuracyMatrix, counts: list[int]) -> dict[str, Any]:
    """ACC, BWT and forgetting, last values and histories; the accuracy matrix itself. Percent."""
    acc, bwt, forgetting = matrix.average_accuracy(), matrix.backward_transfer(), matrix.forgetting()
    return {
        "acc": acc[-1] if acc else None,
        "bwt": bwt[-1] if bwt else None,
        "forgetting": forgetting[-1] if forgetting else None,
        "acc_history": acc,
        "bwt_history": bwt,
        "tasks_done": len(matrix.rows),
        "accuracy_matrix": [row + [None] * (len(matrix.rows) - len(row)) for row in matrix.rows],
    }


BASELINES = {("joint", "Joint"): JointTraining, ("svd_based", "svd_based"): AdamNSCL}
SELF_SUPERVISED = {("vdfd_ssl", "VDFD"): VDFD}
PROTOCOL = Protocol(TaskIncremental, TASK_INCREMENTAL_CODE, summarise, ("acc", "bwt"), METHODS | BASELINES)

SSL_PROTOCOL = dataclasses.replace(PROTOCOL, setting=partial(TaskIncremental, copies=COPIES), methods=SELF_SUPERVISED)
"""Rotation labels: four outputs per class, of which importance, prototypes and tests use the first; derived from the
released class-incremental code."""


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the experiment; returns the summary."""
    config, changed = get_config(argv)
    is_self_supervised = (config.agent_type, config.agent_name) in SELF_SUPERVISED
    return run_experiment(config, changed, SSL_PROTOCOL if is_self_supervised else PROTOCOL)


if __name__ == "__main__":
    command_line(main)()
