"""Gradients of the mean class outputs of one head, summarised per parameter.

Source: XiaorongLi-95/VDFD@2c0dfce agents/vdfd.py and agents/vdfd_swin.py, `calculate_importance`. Speed: the original
runs one full backward pass per class and mini-batch and averages the weight gradients afterwards. Here many
mini-batches are taken together (in evaluation mode samples do not meet), and the gradients of convolutions are
summarised without being formed (`common/continual/gradients.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from common.backbones.heads import Backbone
from common.continual.gradients import output_gradients
from common.continual.summary import ROW_MEANS, Summary, row_means

__all__ = ["class_gradients", "row_means"]


def class_gradients(
    model: Backbone,
    names: Sequence[str],
    head: str,
    columns: slice,
    images: Tensor,
    weights: Tensor,
    summary: Summary = ROW_MEANS,
) -> dict[str, Tensor]:
    """Summarised gradients of the weighted sum of each class output.

    The model must be in evaluation mode: batch statistics would let samples meet.

    Args:
        model: backbone with named heads.
        names: parameters wanted.
        head: head whose outputs are differentiated.
        columns: its columns, one per class.
        images: (B, C, H, W) normalised.
        weights: (B,) weight of each sample; 1 / (number of mini-batches * size of its mini-batch) makes the sum
            over all calls the mean over mini-batches that the original forms.
        summary: what is kept of a gradient.

    Returns:
        Name -> (rows, classes), or (rows, inputs, classes) of a matrix that is kept whole. Zero where the head does
        not depend on the parameter (other tasks' heads).

    Raises:
        ValueError: if the model is in training mode.
    """

    def weighted_outputs() -> Tensor:
        logits = model.last[head](model.embed(images))[:, columns]
        return (logits * weights.unsqueeze(1)).sum(dim=0)  # in the larger of the two formats

    return output_gradients(model, names, weighted_outputs, summary)
