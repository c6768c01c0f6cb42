"""Data-free distillation: CuDFKD (arXiv 2208.13648) and the methods it is compared with.

    sh scripts/cudfkd/cifar10.sh                        # all rows of a script
    sh scripts/cudfkd/cifar10.sh resnet34-resnet18      # one row; further flags go on to main.py
    python main.py --method dafl --dataset cifar10 ...  # flags as in the original datafree_kd.py

Original: ljrprocc/DataFree@bf3096b and zju-vipa/CMI@9e79fa9 datafree_kd.py.
Deviations from them: see README.md, section "Deviations".
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from common.training.errors import command_line
from common.training.options import parse_row
from curriculum_dfkd.experiment import distil, run_program, smoke_form
from curriculum_dfkd.options import DataFreeOptions, check, translate

METHOD_NAMES = {
    "dafl": "DAFL", "zskt": "ZSKT", "dfad": "DFAD", "dfq": "DFQ", "deepinv": "ADI", "cmi": "CMI", "cudfkd": "CuDFKD",
}
"""Value of --method -> name in the published tables."""


def get_config(argv: Sequence[str] | None = None) -> tuple[DataFreeOptions, dict[str, list[Any]]]:
    """Flags -> typed config, and what the user changed of a script's row.

    Raises:
        UserError: for flags that are not offered or do not go together.
    """
    words = translate(sys.argv[1:] if argv is None else argv)
    config, changed = parse_row(DataFreeOptions, words, "data-free distillation")
    config = check(config)
    return (smoke_form(config) if config.smoke else config), changed


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run one method; returns the metrics."""
    config, changed = get_config(argv)
    return run_program(config, changed, METHOD_NAMES[config.method], distil)


if __name__ == "__main__":
    command_line(main)()
