"""Several processes: one budget for all runs of a program."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from common.training.errors import RunStopped
from common.training.parallel import Processes, SharedRun
from tests.common.training.toy import CPU, ToyOptions

pytestmark = pytest.mark.unit


class Lonely(Processes):
    """The first of two processes, whose other one always agrees."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 2

    def agree(self, flag: bool) -> bool:
        return flag

    def wait(self) -> None:
        pass


def test_the_time_budget_counts_from_the_begin_of_the_program(tmp_path: Path) -> None:
    config = ToyOptions(output_dir=str(tmp_path), time_budget=1000.0)
    about = {"method": "Toy", "paper": "toy", "device": CPU, "seed": 0, "quiet": True}
    with SharedRun(config, processes=Lonely(), folder=tmp_path, **about) as run:
        run.tick()
    with pytest.raises(RunStopped, match="time budget of 1000 s"):
        with SharedRun(config, processes=Lonely(), folder=tmp_path, begin=time.monotonic() - 2000, **about) as run:
            run.tick()
