"""VDFD, class-incremental (TPAMI 2023), with and without self-supervision.

    sh scripts/vdfd.sh          # without SSL: CIFAR-100 10x10, TinyImageNet 10x20
    sh scripts_ssl/vdfd.sh      # with rotation labels
    python main.py --dataset Sample --force_out_dim 20 --first_split_size 4 --other_split_size 4 --schedule 8 --temp 1

Original: XiaorongLi-95/VDFD@2c0dfce classification/class_incremental/main_classinc.py, main_classinc_ssl.py (MIT); both
names work here too, the second with rotation labels by default. The released code regularises only the last stored
task (D1) and scales the quadratic term by the square of the number of stored tasks (D2); `--compat paper` does neither.
See classification/README.md, "Deviations".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

from classification.class_incremental.options import ClassIncrementalOptions
from classification.vdfd.experiment import METHODS, Protocol, run_experiment
from classification.vdfd.options import check_options
from classification.vdfd.rotation import COPIES
from classification.vdfd.setting import ClassIncremental
from classification.vdfd.variant import CLASS_INCREMENTAL_CODE
from classification.vdfd.vdfd_learner import VDFD
from common.data.transforms import TRANSFORMS, TransformSpec
from common.metrics.continual import AccuracyMatrix
from common.training.errors import UserError, command_line
from common.training.options import parse_row

SSL_AGENTS = ("vdfd_ssl_la", "vdfd_ssl")
"""Values of --agent_type that train with rotation labels."""

ALL_SEEN_AGENTS = ("vdfd", "vdfd_ssl")
"""Values of --agent_type whose cross-entropy runs over all classes seen so far (no published row uses them)."""

CLASS_INCREMENTAL_TRANSFORMS = TRANSFORMS | {
    "MNIST": TransformSpec(
        (0.1000,), (0.2752,), 32, "pad_crop", border=2, pad=2
    )  # crops of the 28x28 image padded by 4
}
"""In this setting MNIST's images are padded to 32x32; no command uses them."""


def get_config(
    argv: Sequence[str] | None = None, options: type[ClassIncrementalOptions] = ClassIncrementalOptions
) -> tuple[ClassIncrementalOptions, dict[str, list[Any]]]:
    """Flags -> typed config, and what the user changed of a script's row.

    Args:
        argv: the arguments without the program's name; None: those of the process.
        options: flags with their defaults; `SelfSupervisedOptions` under the name main_classinc_ssl.py.

    Raises:
        UserError: for flags that do not go together in this setting.
    """
    config, changed = parse_row(options, argv, "VDFD and fine-tuning, one head for all classes")
    check_options(config)
    if config.resume_first:
        raise UserError(
            "--resume_first is not offered: nothing writes the file that it needs; --resume auto goes on anywhere"
        )
    if config.force_out_dim < 1:
        raise UserError(
            f"--force_out_dim {config.force_out_dim}: expected the number of all classes; one head per task "
            "belongs to the task-incremental setting"
        )
    if not config.temp > 0:
        raise UserError(f"--temp {config.temp:g}: expected a number above 0; it divides the logits")
    if config.agent_type == "vdfd_ssl":
        if config.temp not in (options.temp, 1.0):
            raise UserError(
                f"--temp {config.temp:g}: --agent_type vdfd_ssl knows no temperature, as released; leave --temp "
                "out, or use --agent_type vdfd_ssl_la"
            )
        config = dataclasses.replace(config, temp=1.0)
    return config, changed


def build_protocol(config: ClassIncrementalOptions) -> Protocol:
    """One head, with four outputs per class for the self-supervised methods."""
    setting = partial(
        ClassIncremental,
        outputs=config.force_out_dim,
        copies=COPIES if config.agent_type in SSL_AGENTS else 1,
        all_seen=config.agent_type in ALL_SEEN_AGENTS,
    )
    methods = {
        ("vdfd_la", "VDFDLA"): VDFD,
        ("vdfd_ssl_la", "VDFDLA"): VDFD,
        ("vdfd", "VDFD"): VDFD,
        ("vdfd_ssl", "VDFD"): VDFD,
        ("finetune", "FineTuning"): METHODS["finetune", "FineTuning"],
    }
    return Protocol(setting, CLASS_INCREMENTAL_CODE, summarise, ("avg",), methods, CLASS_INCREMENTAL_TRANSFORMS)


def summarise(matrix: AccuracyMatrix, counts: list[int]) -> dict[str, Any]:
    """Accuracy over all seen classes after each task, its last value, and BWT derived from the matrix. Percent."""
    average, transfer = matrix.weighted_average(counts), matrix.backward_transfer()
    return {
        "avg": average[-1] if average else None,
        "mean_avg": sum(average) / len(average) if average else None,
        "bwt": transfer[-1] if transfer else None,
        "avg_history": average,
        "bwt_history": transfer,
        "tasks_done": len(matrix.rows),
        "test_images": counts[: len(matrix.rows)],
        "accuracy_matrix": [row + [None] * (len(matrix.rows) - len(row)) for row in matrix.rows],
    }


def main(
    argv: Sequence[str] | None = None, options: type[ClassIncrementalOptions] = ClassIncrementalOptions
) -> dict[str, Any]:
    """Run the experiment; returns the summary."""
    config, changed = get_config(argv, options)
    return run_experiment(config, changed, build_protocol(config))


if __name__ == "__main__":
    command_line(main)()
