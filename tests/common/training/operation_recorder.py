"""A stand-in for a CUDA graph on a CPU: what a step computes is recorded operator by operator and replayed.

Like a graph, a replay runs no Python of the step: every operator is called again on the tensors that it met at the
recording, and its results are written into the memory that it wrote then. What a graph cannot hold is refused: reading
a value on the host, and shapes that depend on data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from common.training.graph import Outputs, RecorderBackend, Step

_HOST_READS = {"_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2", "bincount"}


class OperationRecorder(RecorderBackend):
    """Captures by recording.

    A recording computes, which a CUDA capture does not; the first replay therefore does nothing.

    Attributes:
        captures, replays, runs: how often each was done.
    """

    def __init__(self) -> None:
        self.captures = self.replays = self.runs = 0

    def run(self, step: Step, inputs: Sequence[Tensor]) -> Outputs:
        self.runs += 1
        return step(*inputs)

    def capture(self, step: Step, inputs: Sequence[Tensor], generators: Sequence[torch.Generator]) -> _Recording:
        self.captures += 1
        return _Recording(self, step, inputs)


class _Recording(TorchDispatchMode):
    def __init__(self, owner: OperationRecorder, step: Step, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self._owner, self._done = owner, True
        self._calls: list[tuple[Any, Any, Any, Any]] = []
        with self:
            self._outputs = step(*inputs)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, leaves = func._schema.name.removeprefix("aten::"), tree_leaves(args)
        by_mask = name.startswith("index") and any(isinstance(x, Tensor) and x.dtype == torch.bool for x in leaves)
        if name in _HOST_READS or by_mask:
            raise RuntimeError(f"{name} waits for the device")
        result = func(*args, **(kwargs or {}))
        self._calls.append((func, args, kwargs or {}, result))
        return result

    def replay(self) -> Outputs:
        self._owner.replays += 1
        if not self._done:
            with torch.no_grad():
                for func, args, kwargs, before in self._calls:
                    for old, new in zip(tree_leaves(before), tree_leaves(func(*args, **kwargs)), strict=True):
                        if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                            old.copy_(new)
        self._done = False
        return self._outputs
