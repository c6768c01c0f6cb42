"""Run by test_steps.py as one of two processes: two steps of PLOP on a part of each batch, weights to a file."""

from __future__ import annotations

import sys

import torch

from common.training.parallel import Processes
from tests.segmentation.building import CPU, random_batch, small_learner


def main(target: str) -> None:
    """Images 0 and 1 in the first process, 2 and 3 in the second."""
    torch.set_num_threads(1)
    processes = Processes()
    processes.start(CPU)
    learner = small_learner("PLOP", [4, 2], learner={"processes": processes})
    part = processes.part(*random_batch([4, 2]))
    learner.begin([part])
    learner.train_mode()
    for _ in range(2):
        learner.step(*part)
    torch.save({"network": learner.network.state_dict(), "thresholds": learner.objective.thresholds}, target)
    processes.stop()


if __name__ == "__main__":
    main(sys.argv[1])
