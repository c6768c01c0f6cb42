"""Validation within a step and test after it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from common.metrics.segmentation import SegmentationConfusion, SegmentationScores
from common.training.parallel import Processes
from common.training.precision import Precision
from segmentation.data.loader import PairLoader
from segmentation.step import SegLearner
from segmentation.tasks import Task


@dataclass
class TestResult:
    """What a test found.

    Attributes:
        scores: over the whole test set.
        unseen: over the test images that were never training images; the same object where all are such.
        samples: image, truth, prediction of a few test images (this process's part).
        matrix: confusion matrix.
    """

    scores: SegmentationScores
    unseen: SegmentationScores
    matrix: Tensor
    samples: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)


def validate(
    learner: SegLearner, loader: PairLoader, classes: int, processes: Processes, config: Any
) -> tuple[float, SegmentationScores]:
    """The criterion on the labels as they are, and scores.

    Returns:
        Mean of the criterion over the batches, and the scores.
    """
    confusion = SegmentationConfusion(classes, learner.device)
    total, count = torch.zeros((), device=learner.device), 0
    learner.network.eval()
    with torch.no_grad(), learner.precision.autocast():
        for _, images, labels in loader.all(config.test_sharding == "padded"):
            logits = learner.network(images)[0]
            total += learner.objective.criterion(logits.float(), labels).mean()
            confusion.add(labels, logits.argmax(dim=1))
            count += 1
    sums = torch.stack([total, total.new_tensor(float(count))])
    _sum_over(processes, sums, confusion)
    return (sums[0] / sums[1].clamp_min(1)).item(), confusion.scores()


def evaluate(
    network: nn.Module,
    loader: PairLoader,
    unseen: np.ndarray,
    task: Task,
    step: int,
    processes: Processes,
    config: Any,
) -> TestResult:
    """Test on everything seen so far.

    Args:
        network: in evaluation mode.
        loader: test images.
        unseen: False for test images that were training images of some step.
        task, step: whose classes are distinguished.
        processes: that share the images.
        config: flags.
    """
    device = next(network.parameters()).device
    classes = task.seen_classes(step)
    everything, only_unseen = (SegmentationConfusion(classes, device) for _ in range(2))
    groups = step_of_class(task, step, device) if config.eval_task_ids else None
    wanted = set(np.linspace(0, len(unseen) - 1, config.sample_num, dtype=int).tolist()) if config.sample_num else set()
    samples = []
    precision = Precision(config, device)
    with torch.no_grad(), precision.autocast():
        for places, images, labels in loader.all(config.test_sharding == "padded"):
            logits = network(images)[0]
            predictions = predict(logits, labels, groups)
            everything.add(labels, predictions)
            fresh = np.flatnonzero(unseen[places])
            if len(fresh):
                chosen = torch.from_numpy(fresh).to(device)
                only_unseen.add(labels[chosen], predictions[chosen])
            for row, place in enumerate(places.tolist()):
                if place in wanted:
                    samples.append((images[row].cpu(), labels[row].cpu(), predictions[row].cpu()))
    _sum_over(processes, None, everything, only_unseen)
    return TestResult(everything.scores(), only_unseen.scores(), everything.matrix.cpu(), samples)


def predict(logits: Tensor, labels: Tensor, groups: Tensor | None) -> Tensor:
    """(B, H, W) most probable class of each pixel.

    Args:
        logits: (B, C, H, W).
        labels: (B, H, W) true classes; only looked at with `groups`.
        groups: (C,) step of every class: each pixel is decided among the classes of its own step (--eval_task_ids).
    """
    if groups is None:
        return logits.argmax(dim=1)
    of_pixel = groups[labels.clamp(max=len(groups) - 1)]
    return logits.masked_fill(groups.view(1, -1, 1, 1) != of_pixel.unsqueeze(1), -torch.inf).argmax(dim=1)


def step_of_class(task: Task, step: int, device: torch.device) -> Tensor:
    """(C,) number of the step in which each class came."""
    sizes = task.classes_per_step(step)
    return torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)).to(device)


def _sum_over(processes: Processes, sums: Tensor | None, *confusions: SegmentationConfusion) -> None:
    """Add up over all processes."""
    if processes.count == 1:
        return
    if sums is not None:
        dist.all_reduce(sums)
    for confusion in confusions:
        images = torch.tensor(confusion.images, device=confusion.matrix.device)
        dist.all_reduce(confusion.matrix)
        dist.all_reduce(images)
        confusion.images = int(images)
