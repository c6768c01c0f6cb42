"""Joint training: all images of all tasks so far at once, an upper bound for methods that may not keep any.

Not part of the original's release. After task k the network is trained on the images of tasks 1 to k together, from
the weights as they are and with fresh optimisers, for as many epochs as any task has. Every image is classified among
the classes of its own task, by that task's head, in training as in evaluation.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from classification.vdfd.learner import BatchSource, FineTuning
from classification.vdfd.losses import own_head_logits


class JointData:
    """Loaders of each task; the training images of a task include those of all earlier ones.

    Labels of such a mixture count over all its tasks: those of task 2 follow those of task 1.

    Args:
        data: with `joint_loader` and `test_loader`, e.g. `SplitImages`.
    """

    def __init__(self, data: Any) -> None:
        self.data = data

    def train_loader(self, task: int) -> BatchSource:
        """Training images of tasks 1 to `task`."""
        return self.data.joint_loader(task)

    def test_loader(self, task: int) -> BatchSource:
        """Test images of one task, labels counted inside it."""
        return self.data.test_loader(task)


class JointTraining(FineTuning):
    """Train on the images of all tasks so far, each through the head of its own task."""

    name = "joint training"

    def __init__(self, config: Any, model: Any, setting: Any, data: Any, *arguments: Any) -> None:
        super().__init__(config, model, setting, JointData(data), *arguments)

    def trained_heads(self) -> list[str]:
        """The heads of all tasks so far."""
        return [self.setting.view(task).head for task in range(1, self.task + 1)]

    def training_logits(self, images: Tensor, target: Tensor) -> Tensor:
        """(B, outputs of all heads so far) logits; minus infinity outside the head of a sample's own task.

        Args:
            images: (B, C, H, W).
            target: (B,) labels counted over all tasks so far.
        """
        embedding = self.model.embed(images)
        return own_head_logits([self.model.last[head](embedding) for head in self.trained_heads()], target)

    def classification_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy; the columns of other heads take no part."""
        return F.cross_entropy(logits / self.config.temp, target)
