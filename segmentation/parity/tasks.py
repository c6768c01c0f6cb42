"""Task tables."""

from __future__ import annotations

from typing import Any

import torch

from common.parity import Fixture, reproduces
from segmentation.tasks import find_task


@reproduces(
    *(f"seg.tasks.voc_{number}" for number in range(5)),
    *(f"seg.tasks.ade_{number}" for number in range(2)),
    *(f"seg.tasks.domain_{number}" for number in range(3)),
)
def task_table(fixture: Fixture) -> dict[str, Any]:
    """Labels, old labels and sizes of every step."""
    task = find_task(fixture.args["dataset"], fixture.args["task"])
    answers: dict[str, Any] = {"args.path": task.index_folder(overlap=False)}
    for step in range(fixture.args["steps"]):
        answers[f"out.labels{step}"] = torch.tensor(task.labels(step), dtype=torch.int64)
        answers[f"out.labels_old{step}"] = torch.tensor(task.labels_old(step), dtype=torch.int64)
        answers[f"out.classes{step}"] = torch.tensor(task.sizes(step), dtype=torch.int64)
    return answers
