"""Random number generators: seeding all of them in one call, and their states for an exact resume."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy, torch on the CPU and on every CUDA device; cuDNN deterministic, without autotuning.

    The originals do the same once per process. The order of the data follows, because loaders take their seeds from
    torch's global generator (`draw_seed`).
    """
    seed_generators(seed)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def seed_generators(seed: int) -> None:
    """Seed the same generators and leave cuDNN as it is: for another seed inside a run."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.cuda.manual_seed_all(seed)


def draw_seed() -> int:
    """A seed for a generator of its own, drawn from torch's global CPU generator. # rng: one draw"""
    return int(torch.randint(0, 2**62, (), dtype=torch.int64))


class GlobalGenerators:
    """The global generators as one object with a state dict that `torch.load(weights_only=True)` accepts."""

    def state_dict(self) -> dict[str, Any]:
        """States of Python's, NumPy's, torch's CPU and torch's CUDA generators; "own" is the current device's."""
        name, keys, position, has_gauss, cached_gaussian = np.random.get_state()
        has_cuda = torch.cuda.is_initialized()
        devices = range(torch.cuda.device_count()) if has_cuda else ()
        return {
            "python": random.getstate(),
            "numpy": [name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached_gaussian],
            "torch": torch.get_rng_state(),
            "cuda": [torch.cuda.get_rng_state(device) for device in devices],
            "own": torch.cuda.get_rng_state() if has_cuda else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put every generator where it stood."""
        version, internal, gauss_next = state["python"]
        random.setstate((version, tuple(internal), gauss_next))
        name, keys, position, has_gauss, cached_gaussian = state["numpy"]
        np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached_gaussian))
        torch.set_rng_state(state["torch"].cpu())
        for device, device_state in enumerate(state["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(device_state.cpu(), device)
        if state.get("own") is not None and torch.cuda.is_initialized():
            torch.cuda.set_rng_state(state["own"].cpu())  # the run may have been on a device of another number
