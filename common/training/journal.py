"""What a run leaves to read: a JSONL series, TensorBoard scalars, a log, and bars on a terminal."""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from tensorboardX import SummaryWriter
from torch import Tensor
from tqdm import tqdm

from common.training.errors import NonFiniteLoss

SERIES = "series.jsonl"
LOG = "log.txt"


class Journal:
    """Series, log and progress bars of one run.

    Values of training steps stay on their device until `flush`, which reads them all at once; a step therefore never
    waits for the device. Every step's values are examined for infinity and NaN; only every `write_every`-th step is
    written, and what is asked to be.

    Args:
        folder: the run's folder.
        write_every: steps between two written points of a series.
        flush_every: steps kept on the device before they are read together.
        tensorboard: also write TensorBoard files, below `folder/tensorboard`.
        echo: show notes on standard output too.
    """

    def __init__(
        self, folder: Path, write_every: int = 10, flush_every: int = 100, tensorboard: bool = True, echo: bool = True
    ) -> None:
        self.folder, self.echo = folder, echo
        self.write_every = max(1, write_every)
        self.flush_every = max(1, flush_every)
        self._pending: list[tuple[dict[str, int], bool, tuple[str, ...], Tensor]] = []
        self._series = open(folder / SERIES, "a", encoding="utf-8")
        self._log = open(folder / LOG, "a", encoding="utf-8")
        self._tensorboard = SummaryWriter(str(folder / "tensorboard")) if tensorboard else None

    def note(self, text: str) -> None:
        """One line for the reader: to the log and to standard output, above any progress bar."""
        if self.echo:
            tqdm.write(text)
        self._log.write(text + "\n")
        self._log.flush()

    def log_step(self, step: int, task: int, epoch: int, always: bool = False, **terms: Tensor) -> None:
        """Note the terms of one training step. Does not wait for the device.

        Args:
            step, task, epoch: where the run stands.
            always: write them whatever `write_every` says: terms that are not computed in every step.
            terms: () tensors, in the unit of the loss.
        """
        where = {"step": step, "task": task, "epoch": epoch}
        stacked = torch.stack([value.detach().to(torch.float32) for value in terms.values()])
        self._pending.append((where, always or step % self.write_every == 0, tuple(terms), stacked))
        if len(self._pending) >= self.flush_every:
            self.flush()

    def log_value(self, name: str, value: float, *, step: int, task: int, epoch: int) -> None:
        """Write one point of a series now: a metric, a learning rate."""
        self.flush()
        self._write({"step": step, "task": task, "epoch": epoch}, name, value)
        self._series.flush()

    def flush(self) -> None:
        """Read the noted steps from the device and write them.

        Raises:
            NonFiniteLoss: if a term of any noted step is infinite or NaN, naming the first such step and term.
        """
        pending, self._pending = self._pending, []
        read = _read_together([tensor for *_, tensor in pending])
        for (where, written, names, _), values in zip(pending, read, strict=True):
            for name, value in zip(names, values, strict=True):
                if not math.isfinite(value):
                    raise NonFiniteLoss(
                        f"the loss term '{name}' is {value} at step {where['step']} (task {where['task']}, epoch "
                        f"{where['epoch']}); the newest checkpoint is from before it; lower the learning rate or the "
                        f"weight of this term"
                    )
                if written:
                    self._write(where, f"train/{name}", value)
        self._series.flush()

    def position(self) -> int:
        """Bytes in the series file so far, all of them on the disk."""
        self.flush()
        os.fsync(self._series.fileno())
        return self._series.tell()

    def rewind(self, position: int) -> None:
        """Cut the series back to a checkpoint's position: what came after it will be computed and written again."""
        self._pending = []
        written = (self.folder / SERIES).read_bytes()
        if len(written) < position:  # cut by other hands; truncating there would fill the gap with zero bytes
            self.note(f"{SERIES} has lost its end: {len(written)} bytes, expected {position}; its points are missing")
            position = written.rfind(b"\n") + 1
        self._series.truncate(position)
        self._series.seek(position)

    def close(self) -> None:
        """Write what is pending and close the files."""
        try:
            self.flush()
        finally:
            self._series.close()
            self._log.close()
            if self._tensorboard is not None:
                self._tensorboard.close()

    def _write(self, where: dict[str, int], name: str, value: float) -> None:
        self._series.write(json.dumps({**where, "name": name, "value": value}) + "\n")
        if self._tensorboard is not None:
            self._tensorboard.add_scalar(name, value, where["step"])


def read_series(path: Path) -> Iterator[dict[str, Any]]:
    """The points of a series file, in the order written; an incomplete last line (a killed run) is left out."""
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)


def progress_bar(steps: Iterable, description: str, total: int | None = None, start: int = 0) -> Iterable:
    """A tqdm bar, silent when standard error is no terminal."""
    return tqdm(steps, desc=description, total=total, initial=start, disable=None, leave=False, dynamic_ncols=True)


def _read_together(tensors: list[Tensor]) -> list[list[float]]:
    """Values of small tensors on one device with a single transfer."""
    if not tensors:
        return []
    sizes = [tensor.numel() for tensor in tensors]
    values = torch.cat(tensors).tolist()
    ends = list(itertools.accumulate(sizes))
    return [values[end - size : end] for size, end in zip(sizes, ends, strict=True)]
