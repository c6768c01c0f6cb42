"""Tests run on the CPU, also where there is a GPU; those that are about GPUs carry the mark `gpu`."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

VISIBLE = "CUDA_VISIBLE_DEVICES"

SHOWN, FOUND_A_GPU = os.environ.get(VISIBLE), torch.cuda.is_available()
"""Before the GPUs are hidden."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests about GPUs where there is none."""
    for item in items:
        if not FOUND_A_GPU and item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device on this machine"))


@pytest.fixture(scope="session", autouse=True)
def hidden_gpus() -> Iterator[None]:
    """Let this process and the programs that it starts find no GPU.

    Recorded numbers and exact comparisons hold on a CPU; on a GPU, sums are ordered otherwise.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VISIBLE, "")
        patch.setattr(torch.cuda, "is_available", lambda: False)
        yield


@pytest.fixture(autouse=True)
def visible_gpus(request: pytest.FixtureRequest) -> Iterator[None]:
    """Show the GPUs to a test with the mark `gpu`."""
    if request.node.get_closest_marker("gpu") is None:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        if SHOWN is None:
            patch.delenv(VISIBLE, raising=False)
        else:
            patch.setenv(VISIBLE, SHOWN)
        patch.setattr(torch.cuda, "is_available", lambda: FOUND_A_GPU)
        yield
