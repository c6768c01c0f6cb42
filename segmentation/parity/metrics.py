"""Scores, results files, learning rates."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from common.metrics.segmentation import SegmentationConfusion
from common.parity import Fixture, reproduces
from segmentation.metrics import average_rows
from segmentation.schedule import make_schedule


@reproduces("seg.metric.stream")
def stream(fixture: Fixture) -> dict[str, Any]:
    """Confusion matrix over several batches."""
    confusion = SegmentationConfusion(fixture.args["n_classes"])
    for truth, predictions in zip(fixture.inputs["labels"], fixture.inputs["predictions"], strict=True):
        confusion.add(truth, predictions)
    scores = confusion.scores()
    named = {
        "Overall Acc": scores.overall_accuracy,
        "Mean Acc": scores.mean_accuracy,
        "FreqW Acc": scores.frequency_weighted_iou,
        "Mean IoU": scores.mean_iou,
        "Total samples": scores.images,
    }
    return {
        "out.confusion": confusion.matrix.double(),
        "out.scores": torch.tensor([named[name] for name in fixture.args["scores"]], dtype=torch.float64),
        "out.class_iou": _numbers(scores.class_iou),
        "out.class_acc": _numbers(scores.class_accuracy),
    }


def _numbers(values: list[float | None]) -> torch.Tensor:
    return torch.tensor([math.nan if value is None else value for value in values], dtype=torch.float64)


@reproduces("seg.metric.average_csv_voc", "seg.metric.average_csv_domain")
def averages(fixture: Fixture) -> dict[str, Any]:
    """What average_csv.py prints."""
    summary = average_rows(fixture.args["rows"])
    named = {
        "Last Step": summary.last_step,
        "Final Mean IoU": summary.final,
        "Average Mean IoU": summary.average,
        "Mean IoU first": summary.first,
        "Mean IoU last": summary.last,
    }
    return {"out.values": torch.tensor([named[name] for name in fixture.args["printed"]], dtype=torch.float64)}


@reproduces("seg.sched.poly")
def polynomial(fixture: Fixture) -> dict[str, Any]:
    """Learning rate that every iteration sees."""
    iterations = fixture.args["max_iters"]
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=fixture.args["base_lr"])
    schedule = make_schedule(optimizer, "poly", iterations, fixture.args["power"], every=1, factor=1.0)
    rates = []
    for _ in range(iterations + 1):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return {"out.lr": torch.tensor(rates, dtype=torch.float64)}
