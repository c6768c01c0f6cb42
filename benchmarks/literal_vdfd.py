"""VDFD's step as its specification states it, without any of the collapses of `classification.vdfd`.

It exists to be compared with: same value, same gradients (tests/benchmarks), another cost. Written from the formulas:

* every regularised tensor is widened to one copy per class before the product with its factors is summed
  (GW_j = sum over all entries of M~[row, j] W[row, ...]), tensor by tensor and stored task by stored task;
* the quadratic form is expanded into three terms, the log-determinant is log(1 / det);
* adjacency and prototypes are recomputed in every step; all heads are evaluated; the loss is read in every step;
* importance: one backward pass per class and mini-batch over the weights themselves, averaged over rows afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from common.backbones.heads import Backbone
from common.continual.compression import Factors
from common.continual.hypermodel import GCN, normalised_adjacency
from common.continual.memory import TaskMemory


def literal_contribution(parameter: Tensor, factors: Factors) -> Tensor:
    """(C,) contribution of one parameter: one copy of it per class, times the spread-out gradient, summed."""
    product = factors.product()  # (rows, C)
    copies = parameter.unsqueeze(-1).expand(*parameter.shape, product.shape[-1])
    spread = product.reshape(product.shape[0], *[1] * (parameter.dim() - 1), product.shape[-1])
    return (copies * spread).flatten(0, -2).sum(dim=0)


def literal_functional(names: Sequence[str], parameters: dict[str, Tensor], task: TaskMemory) -> Tensor:
    """(C,) GW of one stored task, summed tensor by tensor."""
    return torch.stack([literal_contribution(parameters[name], task.factors[name]) for name in names]).sum(dim=0)


def literal_regulariser(
    model: Backbone, hypermodel: GCN, tasks: Sequence[TaskMemory], names: Sequence[str], eps: float
) -> Tensor:
    """() sum over the stored tasks of the expanded quadratic form and log(1 / det)."""
    parameters = dict(model.named_parameters())
    total = torch.zeros(())
    for number, task in enumerate(tasks, start=1):
        prototypes = F.normalize(model.last[str(number)].weight.detach(), dim=1)
        features = F.normalize(hypermodel(normalised_adjacency(prototypes @ prototypes.T), prototypes), dim=1)
        precision = features @ features.T
        gw, gw_star = literal_functional(names, parameters, task), task.gw_star
        square = gw @ precision @ gw - 2 * gw @ precision @ gw_star + gw_star @ precision @ gw_star
        total = total + square + torch.log(1 / torch.det(precision + eps * torch.eye(len(gw))))
    return total


def literal_class_regulariser(
    model: Backbone, hypermodel: GCN, tasks: Sequence[TaskMemory], names: Sequence[str], eps: float, classes: int
) -> Tensor:
    """() the class-incremental form: every stored task is computed, the last one kept, its square taken t^2 times."""
    parameters = dict(model.named_parameters())
    total = torch.zeros(())
    for number, task in enumerate(tasks):
        rows = model.last["All"].weight[number * classes : (number + 1) * classes]
        prototypes = F.normalize(rows.detach(), dim=1)
        features = F.normalize(hypermodel(normalised_adjacency(prototypes @ prototypes.T), prototypes), dim=1)
        precision = features @ features.T
        gw, gw_star = literal_functional(names, parameters, task), task.gw_star
        square = gw @ precision @ gw - 2 * gw @ precision @ gw_star + gw_star @ precision @ gw_star
        identity = torch.eye(len(gw))
        total = len(tasks) ** 2 * square + torch.log(1 / torch.det(precision + eps * identity))
    return total


def literal_importance(
    model: Backbone, names: Sequence[str], head: str, batches: Sequence[Tensor]
) -> dict[str, Tensor]:
    """Name -> (rows, classes): mean over mini-batches, one full backward pass per class and mini-batch."""
    parameters = dict(model.named_parameters())
    collected: dict[str, list[Tensor]] = {name: [] for name in names}
    for images in batches:
        outputs = model.last[head](model.embed(images)).mean(dim=0)
        columns: dict[str, list[Tensor]] = {name: [] for name in names}
        for index in range(len(outputs)):
            gradients = torch.autograd.grad(outputs[index], [parameters[name] for name in names], retain_graph=True)
            for name, gradient in zip(names, gradients, strict=True):
                columns[name].append(gradient.flatten(1).mean(dim=1) if gradient.dim() > 1 else gradient)
        for name in names:
            collected[name].append(torch.stack(columns[name], dim=1))
    return {name: torch.stack(values).mean(dim=0) for name, values in collected.items()}
