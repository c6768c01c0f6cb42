"""Continual semantic segmentation: PLOP, RCIL, VDFD and their baselines.

    sh scripts/vdfd.sh                        # VDFD on the three Cityscapes domain protocols
    sh scripts/plop/voc.sh 15-1 --seed 1      # one row, with further flags
    python main.py --dataset voc --task 15-5 --step 0 1 --lr 0.01 0.001 --method PLOP ...   # all steps, or one by one
    torchrun --nproc_per_node 2 main.py --gpuid 0 1 ...

Originals: arthurdouillard/CVPR2021_PLOP@4b4a060 run.py (MIT), zhangchbin/RCIL@b9aad58 run.py (MIT). VDFD's authors
(XiaorongLi-95/VDFD) published no segmentation code: see README.md, "Derived choices" and "Deviations".
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from common.training.errors import command_line
from segmentation.configuration import get_config
from segmentation.experiment import run_experiment


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the steps; returns the metrics."""
    config, changed = get_config(sys.argv[1:] if argv is None else argv)
    return run_experiment(config, changed)


if __name__ == "__main__":
    command_line(main)()
