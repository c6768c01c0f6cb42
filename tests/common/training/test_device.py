"""Where a run computes, and what is said about it."""

from __future__ import annotations

import getpass
import re
import socket
from pathlib import Path

import pytest
import torch

from common.training.device import choose_device, describe_hardware, peak_memory_gib
from common.training.errors import UserError

pytestmark = pytest.mark.unit
CPU = torch.device("cpu")
STATUS = Path("/proc/self/status")


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A machine that seems to have two; the numbers of those that were made the current one."""
    current: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    return current


def test_a_negative_number_means_the_cpu_even_beside_a_gpu(two_gpus: list[int]) -> None:
    assert choose_device([-1]) == (CPU, None)
    assert two_gpus == []


def test_without_cuda_the_cpu_is_used_and_the_user_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    device, notice = choose_device([1])
    assert device == CPU
    assert notice is not None
    assert "--gpuid 1" in notice
    assert "CPU" in notice


def test_a_gpu_is_used_by_its_number_and_becomes_the_current_one(two_gpus: list[int]) -> None:
    assert choose_device([1]) == (torch.device("cuda", 1), None)
    assert two_gpus == [1]


def test_a_number_that_the_machine_lacks_is_refused(two_gpus: list[int]) -> None:
    with pytest.raises(UserError, match="--gpuid 2.* 0 to 1"):
        choose_device([2])


def test_messages_name_the_programs_own_flag(two_gpus: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="^--gpu 2: this machine has CUDA devices 0 to 1"):
        choose_device([2], "--gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert str(choose_device([0], "--gpu")[1]).startswith("--gpu 0: no CUDA device")


@pytest.mark.parametrize("ids", [[0, 1], [-1, -1], []])
def test_one_run_uses_one_device(ids: list[int]) -> None:
    with pytest.raises(UserError, match="--gpuid expects one device number"):
        choose_device(ids)


def test_the_description_names_no_machine_and_no_person() -> None:
    hardware = describe_hardware(CPU)
    assert hardware["device"] == "cpu"
    assert hardware["threads"] == torch.get_num_threads()
    assert hardware["name"]
    for private in (socket.gethostname(), getpass.getuser()):
        assert not re.search(rf"\b{re.escape(private)}\b", str(hardware))


@pytest.mark.skipif(not STATUS.exists(), reason="compares with Linux's /proc")
def test_peak_memory_is_the_largest_resident_size_in_gib() -> None:
    line = next(line for line in STATUS.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM"))
    assert peak_memory_gib(CPU) == pytest.approx(int(line.split()[1]) / 2**20, rel=0.05)
