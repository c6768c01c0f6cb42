"""A full disk: the checkpoint before stays usable, nothing half-written is left, and saving works again afterwards."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common.training import files
from common.training.checkpoint import NEWEST, read_newest_checkpoint, save_checkpoint

pytestmark = pytest.mark.unit

REPOSITORY = Path(__file__).resolve().parents[3]


def state(number: int, size: int = 4096) -> dict:
    return {"number": number, "weights": torch.full((size,), float(number))}


class FullAfter:
    """A file on a disk with room for so many bytes."""

    def __init__(self, file, room: int):
        self.file, self.room = file, room

    def write(self, data) -> int:
        self.room -= len(memoryview(data).cast("B"))
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()


def litter(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


@pytest.mark.parametrize("room", [0, 1, 500, 10_000])
def test_no_room_for_the_new_checkpoint_leaves_the_old_one(tmp_path, monkeypatch, room):
    save_checkpoint(tmp_path, state(1))
    fdopen = os.fdopen
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fdopen", lambda *words: FullAfter(fdopen(*words), room))
        with pytest.raises((OSError, RuntimeError)):  # torch's writer turns the first into the second
            save_checkpoint(tmp_path, state(2))
    found, problems = read_newest_checkpoint(tmp_path)
    assert found["number"] == 1 and problems == [] and litter(tmp_path) == []
    save_checkpoint(tmp_path, state(3))
    assert read_newest_checkpoint(tmp_path)[0]["number"] == 3


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_fills_up_at_the_last_moment_leaves_the_old_one(tmp_path, monkeypatch, call):
    """Some file systems find out only when data are flushed, or when a folder needs another block."""
    save_checkpoint(tmp_path, state(1))

    def full(*words, **more):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(files.os, call, full)
        with pytest.raises(OSError, match="No space"):
            save_checkpoint(tmp_path, state(2))
    found, problems = read_newest_checkpoint(tmp_path)
    assert found["number"] == 1 and problems == [] and litter(tmp_path) == []


PROGRAM = """
import resource, signal, sys
from pathlib import Path
import torch
from common.training.checkpoint import save_checkpoint
folder = Path(sys.argv[1])
save_checkpoint(folder, {"number": 1, "weights": torch.ones(4096)})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write fails instead of killing the process
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    save_checkpoint(folder, {"number": 2, "weights": torch.ones(400_000)})
except (OSError, RuntimeError) as error:
    print("refused")
save_checkpoint(folder, {"number": 3, "weights": torch.ones(16)})
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs limits of a POSIX process")
def test_a_limit_of_the_operating_system_is_survived(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["refused"]
    found, problems = read_newest_checkpoint(tmp_path)
    assert found["number"] == 3 and problems == [] and litter(tmp_path) == []
    (tmp_path / NEWEST).unlink()
    assert read_newest_checkpoint(tmp_path)[0]["number"] == 1
