"""The one place where a device is chosen and described."""

from __future__ import annotations

import os
import platform
import resource
from pathlib import Path
from typing import Any

import torch

from common.training.errors import UserError


def choose_device(gpu_ids: list[int], flag: str = "--gpuid") -> tuple[torch.device, str | None]:
    """The device that the originals' `--gpuid` asks for; a CUDA device becomes the current one.

    Args:
        gpu_ids: one CUDA device number; negative means the CPU.
        flag: what the program calls it, for messages.

    Returns:
        The device, and a line to show if the CPU is used although a GPU was asked for (this machine has none).

    Raises:
        UserError: for several numbers, or a number this machine does not have.
    """
    if len(gpu_ids) != 1:
        raise UserError(f"{flag} expects one device number (negative: CPU), found {gpu_ids}; one run uses one device")
    index = gpu_ids[0]
    if index < 0:
        return torch.device("cpu"), None
    if not torch.cuda.is_available():
        return torch.device("cpu"), f"{flag} {index}: no CUDA device on this machine, running on the CPU"
    if index >= torch.cuda.device_count():
        raise UserError(f"{flag} {index}: this machine has CUDA devices 0 to {torch.cuda.device_count() - 1}")
    torch.cuda.set_device(index)  # why: pinned memory and generator states are those of the current device
    return torch.device("cuda", index), None


def describe_hardware(device: torch.device) -> dict[str, Any]:
    """Kind and name of the device, CPU threads in use; no host or user names."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor_name()
    return {"device": device.type, "name": name, "threads": torch.get_num_threads(), "cores": os.cpu_count()}


def peak_memory_gib(device: torch.device) -> float:
    """Largest memory held so far, GiB: allocated on the GPU, or resident in this process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts in KiB


def _processor_name() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
