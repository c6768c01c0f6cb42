"""Several processes that train one network, each on its part of every batch (torchrun, one process per device).

All processes hold the same weights, data order and random numbers; each takes its part of a batch, gradients are added
up. The first process writes log, checkpoints and record; the others follow its decisions to stop and read its
checkpoints.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from common.training.errors import RunStopped, UserError
from common.training.run import Run


class Processes:
    """The processes of this run; a single one unless torchrun started several.

    Attributes:
        rank, count: of this process, and how many there are.
    """

    def __init__(self) -> None:
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        self._control: Any = None

    def device_number(self, gpu_ids: list[int]) -> list[int]:
        """This process's own of the numbers of `--gpuid`; one number is that of the first process, the others follow.

        Raises:
            UserError: for more numbers than one that are fewer than the processes.
        """
        if self.count == 1 or (len(gpu_ids) == 1 and gpu_ids[0] < 0):
            return gpu_ids[:1]
        local = int(os.environ.get("LOCAL_RANK", self.rank))
        if len(gpu_ids) == 1:
            return [gpu_ids[0] + local]
        if len(gpu_ids) < self.count:
            shown = " ".join(map(str, gpu_ids))
            raise UserError(f"--gpuid {shown}: {self.count} processes need a device each; give one number, or as many")
        return [gpu_ids[local]]

    def start(self, device: torch.device) -> None:
        """Connect to the others, over the devices' own network and over the CPU for decisions."""
        if self.count > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        if self.count > 1:
            self._control = dist.new_group(backend="gloo")

    def part(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """This process's part of a batch.

        Raises:
            UserError: if the batch has fewer items than there are processes.
        """
        if self.count == 1:
            return tensors
        parts = [tensor.tensor_split(self.count) for tensor in tensors]
        if len(tensors[0]) < self.count:
            raise UserError(f"a batch of {len(tensors[0])} cannot be parted among {self.count} processes")
        return tuple(chunks[self.rank] for chunks in parts)

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum of all processes' gradients, in every process; one transfer."""
        if self.count == 1:
            return
        present = [parameter for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([parameter.grad.reshape(-1) for parameter in present])
        dist.all_reduce(flat)
        for parameter, total in zip(present, flat.split([p.numel() for p in present]), strict=True):
            parameter.grad.copy_(total.view_as(parameter.grad))

    def agree(self, flag: bool) -> bool:
        """The first process's answer."""
        if self.count == 1:
            return flag
        answer = torch.tensor([flag], dtype=torch.uint8)
        dist.broadcast(answer, 0, group=self._control)
        return bool(answer)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            dist.barrier(group=self._control)

    def stop(self) -> None:
        """Part from the others."""
        if self.count > 1 and dist.is_initialized():
            dist.destroy_process_group()


class SharedRun(Run):
    """A run of several processes: the first one is an ordinary run, the others keep quiet and follow.

    Args:
        processes: all processes, connected.
        folder: of the run; the others log below it, in `process-<rank>`.
    """

    def __init__(self, config: Any, *, processes: Processes, folder: Path, **about: Any) -> None:
        self.processes, self.leader_folder = processes, folder
        own = folder if processes.rank == 0 else folder / f"process-{processes.rank}"
        about["quiet"] = about.get("quiet", False) or processes.rank > 0
        if processes.rank > 0:
            processes.wait()  # why: the first process may move an older run, with the others' folders, out of the way
        super().__init__(config, folder=own, **about)
        if processes.rank == 0:
            processes.wait()
        self.finished = processes.agree(self.finished)

    def restore(self) -> bool:
        """From the first process's newest checkpoint, in every process."""
        if self.processes.rank == 0:
            return super().restore()
        own, self.folder = self.folder, self.leader_folder
        try:
            return super().restore()
        finally:
            self.folder = own

    def save(self) -> None:
        """Only the first process writes; the others wait for it, so that a checkpoint is never ahead of them."""
        if self.processes.rank == 0:
            super().save()
        self.processes.wait()

    def tick(self) -> None:
        """Stop or save when the first process says so."""
        if self.processes.count == 1:
            return super().tick()
        now = time.monotonic()
        budget = self.config.time_budget
        stops = self._stop_reason is not None or (budget is not None and now - self._program_begin >= budget)
        if self.processes.agree(stops):
            if self.processes.rank == 0:
                return super().tick()  # saves, and the others wait in `save`
            self.save()
            raise RunStopped("the first process stopped")
        if self.processes.agree(now - self._last_save >= self.config.checkpoint_interval):
            self.save()
            self._last_save = now
        return None
