"""From a fixture's arguments and weights to the objects that training uses."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from common.backbones.generators_dfcil import DFCILGenerator, cifar_generator
from common.backbones.resnet_abd import ABDResNet
from common.backbones.resnet_cllite import CifarResNet
from common.parity import Fixture
from common.training.options import RunOptions
from common.training.precision import Precision
from common.training.run import Run


def number_in(text: str, name: str) -> int:
    """The number after `name=` in an argument's description."""
    found = re.search(rf"\b{name}=(\d+)", text)
    if found is None:
        raise ValueError(f"no {name}= in {text!r}")
    return int(found.group(1))


def described_backbone(text: str) -> CifarResNet:
    """The network of a text like "CifarResNet n=3 nf=2"."""
    return CifarResNet(number_in(text, "n"), number_in(text, "nf"))


def described_abd_network(text: str, out_dim: int) -> ABDResNet:
    """The network of a text like "ABD ResNet class with blocks [1,1,1]"."""
    found = re.search(r"blocks \[(\d+),\s*(\d+),\s*(\d+)\]", text)
    if found is None:
        raise ValueError(f"no blocks in {text!r}")
    first, second, third = (int(count) for count in found.groups())
    return ABDResNet((first, second, third), out_dim)


def described_generator(fixture: Fixture) -> DFCILGenerator:
    """The CIFAR generator of a text like "... zdim=16, img_sz=16, init sine", filled by the sine rule."""
    text = fixture.args["generator"]
    generator = cifar_generator(number_in(text, "zdim"), number_in(text, "img_sz"))
    return filled(fixture, generator)


def filled(fixture: Fixture, module: nn.Module, rule: str = "sine") -> Any:
    """A module filled by a rule that the fixture states in words."""
    return dataclasses.replace(fixture, args={"init": rule}).fill(module)


def summary(state: Mapping[str, Tensor]) -> Tensor:
    """(entries, 3) float32: sum, L2 norm and first element of each entry."""
    return torch.stack(
        [
            torch.stack([v.sum(), torch.linalg.vector_norm(v), v[0]])
            for v in (x.float().flatten() for x in state.values())
        ]
    )


def statistics_of(module: nn.Module) -> dict[str, Tensor]:
    """Running means and variances, in state-dict order."""
    return {key: value for key, value in module.state_dict().items() if key.endswith(("running_mean", "running_var"))}


def flattened(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Scalars that were recorded with shape (1,) and those with shape () alike."""
    return {name: value.reshape(-1) if value.numel() == 1 else value for name, value in tensors.items()}


class NoImages:
    """A loader that is never asked for a batch."""

    position = 0

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(())

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        return


class StatedTasks:
    """Tasks of given sizes; every loader is the one given."""

    def __init__(self, sizes: list[int], loader: Any = None) -> None:
        self.sizes = sizes
        self.boundaries = tuple(sum(sizes[:count]) for count in range(len(sizes) + 1))
        self.loader = loader if loader is not None else NoImages()

    def train_loader(self, task: int) -> Any:
        return self.loader

    joint_loader = test_loader = train_loader


@contextlib.contextmanager
def temporary_run() -> Iterator[tuple[Run, Precision]]:
    """A run in a folder of its own, on the CPU."""
    with tempfile.TemporaryDirectory() as folder:
        config = RunOptions(output_dir=folder)
        device = torch.device("cpu")
        with Run(config, method="", paper="rfd", device=device, seed=0, write_every=1, quiet=True) as run:
            yield run, Precision(config, device)
