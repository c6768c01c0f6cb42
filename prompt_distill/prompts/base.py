"""What every prompt method offers to a network and to a learner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.training.errors import UserError
from prompt_distill.vit import Injection

MEAN, SUM = "mean", "sum"


@dataclass(frozen=True)
class PromptSetting:
    """What a prompt module is built for.

    Attributes:
        dim: width of the network that gets the prompts.
        key_dim: width of the query.
        depth, heads: of the network.
        tasks: number of tasks.
        param: the numbers of --prompt_param.
        key_loss: "mean" or "sum" (over all pairs in L2P; before 2025-01).
        devices: parts of a batch whose prompt losses are added up, as data parallelism over so many devices does.
        ema: share of the old buffer when APT merges.
    """

    dim: int
    key_dim: int
    depth: int
    heads: int
    tasks: int
    param: Sequence[float]
    key_loss: str = MEAN
    devices: int = 1
    ema: float = 0.5


class PromptMethod(nn.Module):
    """Chooses what each layer gets for a query.

    Attributes:
        task: the current task, counted from 0; what is used and what is trained depends on it.
        normalises_head: whether classifiers normalise their input and their rows (APT).
        follows_update: whether the prefixes of a training pass are views of the parameters, so that someone who keeps
            them sees the values after the next optimiser step (D24).
    """

    name = ""
    normalises_head = False
    follows_update = False

    def __init__(self, setting: PromptSetting) -> None:
        super().__init__()
        self.setting = setting
        self.task = 0

    def inject(self, layer: int, query: Tensor, train: bool) -> tuple[Injection | None, Tensor | None]:
        """What a layer's attention gets, and this layer's part of the prompt loss.

        Args:
            layer: counted from 0.
            query: (B, key_dim), constant.
            train: whether this is a training pass (which components, which selection).

        Returns:
            Injection with `own` or `added` set, or None where the layer has no prompt; () loss, or None where there is
            none.
        """
        raise NotImplementedError

    def next_task(self) -> None:
        """Go on to the next task, before its optimisers are built."""
        self.task += 1

    def finish_task(self) -> None:
        """Keep what inference needs, after the task was trained."""

    def trainable(self) -> list[nn.Parameter]:
        """What the optimiser moves."""
        return list(self.parameters())

    def integers(self, count: int) -> tuple[int, ...]:
        """The first numbers of --prompt_param as whole positive numbers.

        Raises:
            UserError: if there are fewer, or they are no whole positive numbers.
        """
        given = list(self.setting.param)[:count]
        if len(given) < count or any(value < 1 or value != int(value) for value in given):
            raise UserError(f"--prompt_param of {self.name} starts with {count} whole numbers, found {given}")
        return tuple(int(value) for value in given)


def uniform_parameter(*shape: int) -> nn.Parameter:
    """A parameter filled from U(0, 1). # rng: one draw of that shape"""
    return nn.Parameter(torch.empty(shape).uniform_(0, 1))


def over_devices(loss: Callable[..., Tensor], devices: int, *tensors: Tensor) -> Tensor:
    """Sum of a loss over the parts into which data parallelism cuts a batch (9.8 of the register: D8)."""
    if devices == 1:
        return loss(*tensors)
    parts = zip(*(tensor.chunk(devices) for tensor in tensors), strict=True)
    return torch.stack([loss(*part) for part in parts]).sum()
