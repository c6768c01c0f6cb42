"""Continual distillation with prompts: CDL-Prompt (July 2024) and its successors (arXiv 2407.13911).

    sh experiments/cifar-100.sh                       # CODA-Prompt, DualPrompt, L2P with CDL-Prompt
    sh experiments/cifar-100.sh coda-p --seed 1       # one row, with further flags
    python main.py --config configs/cifar-100_prompt.yaml --dataroot ../data --prompt_param 100 8 0.0
    torchrun --nproc_per_node 2 main.py --gpuid 0 1 ...   # two devices

Original: IRVLUTD/CDL run.py (@dbe8170 for CDL-Prompt, @d980577 for all later methods).
Deviations from it: see prompt_distill/README.md, section "Deviations".
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

from common.training.errors import command_line
from prompt_distill.configuration import get_config
from prompt_distill.experiment import run_experiment


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the experiment; returns the summary."""
    config, changed = get_config(sys.argv[1:] if argv is None else argv)
    if config.overwrite:
        config = dataclasses.replace(config, resume="never")
    return run_experiment(config, changed)


if __name__ == "__main__":
    command_line(main)()
