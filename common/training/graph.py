"""A training step captured once as a CUDA graph and replayed for every further batch.

A small network's step is hundreds of short kernels, and launching them one by one takes longer than running them. A
graph launches all of them at once; the mathematics stays the same, because the same kernels run on the same memory.
What a captured step must not do: read a value from the device, depend on the data in its shapes, or change Python
state (Python runs at the capture only). On a CPU the same protocol runs without a graph, so that its bookkeeping can
be tested there.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from common.training.errors import UserError

WARM_UP = 3
"""Batches that are trained on eagerly before the capture, so that libraries choose and allocate what they need."""
RATE = "rate"
"""Entry of a parameter group: the exact learning rate, where "lr" is a tensor on the device."""
_CAPTURABLE = (torch.optim.Adam, torch.optim.SGD)

Outputs = dict[str, Tensor]
Step = Callable[..., Outputs]


class Captured(Protocol):
    """A captured step."""

    def replay(self) -> Outputs:
        """Run it on its static inputs; the outputs are the same tensors every time."""
        ...


class Backend(Protocol):
    """How steps are run and captured on a device.

    Attributes:
        graphs: whether a captured step really is a graph.
    """

    graphs: bool

    def run(self, step: Step, inputs: Sequence[Tensor]) -> Outputs:
        """Run a step eagerly."""
        ...

    def capture(self, step: Step, inputs: Sequence[Tensor], generators: Sequence[torch.Generator]) -> Captured:
        """Capture a step on static inputs without executing it."""
        ...

    def release(self) -> None:
        """Called before a captured step is dropped."""
        ...


class StepGraph:
    """Calls a training step: the first batches eagerly, then as a replayed graph.

    The eager batches are ordinary training steps. A batch with fewer rows than the captured one (the last of an epoch)
    is trained on eagerly, with the same weights and optimisers. The capture is dropped, and made anew after another
    warm-up, by `reset`, by a batch of another layout that is not smaller, and when `guard` returns another value.

    Args:
        step: tensors in, named tensors out, detached; clears the gradients itself, by setting them to None.
        device: of the tensors.
        enabled: whether to capture at all; may be changed before `reset`.
        guard: what else the captured kernels depend on: addresses, which parameters learn, the network's mode.
        generators: random generators that the step draws from, besides the device's default one.
        note: takes a line for the log.
    """

    def __init__(
        self,
        step: Step,
        device: torch.device,
        *,
        enabled: bool = True,
        guard: Callable[[], Hashable] = lambda: None,
        generators: Sequence[torch.Generator] = (),
        note: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.enabled = enabled
        self._step, self._guard, self._generators, self._note = step, guard, tuple(generators), note
        self._backend = backend_for(device)
        self._captured: Captured | None = None
        self.reset()

    @property
    def is_captured(self) -> bool:
        """Whether the next full batch is replayed."""
        return self._captured is not None

    def reset(self) -> None:
        """Drop the capture: weights, optimisers or constants of the step are others from now on."""
        if self._captured is not None:
            self._backend.release()
        self._captured = None
        self._inputs: list[Tensor] = []
        self._layout: tuple = ()
        self._rows = self._warm = 0
        self._guarded: Hashable = None

    def __call__(self, *inputs: Tensor) -> Outputs:
        """One step. The outputs of a replay are overwritten by the next one: read or copy them before."""
        if not self.enabled:
            return self._step(*inputs)
        layout, guarded = tuple((tensor.shape, tensor.dtype) for tensor in inputs), self._guard()
        other = layout != self._layout and len(inputs[0]) >= self._rows
        if other or guarded != self._guarded:
            self.reset()
            self._layout, self._rows, self._guarded = layout, len(inputs[0]), guarded
        if layout != self._layout:
            return self._backend.run(self._step, inputs)
        if self._captured is None and self._warm == WARM_UP:
            self._capture(inputs)
        if self._captured is None:
            self._warm += 1
            return self._backend.run(self._step, inputs)
        for static, tensor in zip(self._inputs, inputs, strict=True):
            static.copy_(tensor, non_blocking=True)
        return self._captured.replay()

    def _capture(self, inputs: Sequence[Tensor]) -> None:
        """Capture on buffers of its own.

        why no eager step instead: after a failed capture torch's generators and memory pools stay in capturing mode.

        Raises:
            UserError: if the step does what cannot be captured.
        """
        self._inputs = [torch.empty_like(tensor).copy_(tensor) for tensor in inputs]  # keeps a channels-last layout
        try:
            self._captured = self._backend.capture(self._step, self._inputs, self._generators)
            if self._backend.graphs:
                self._note(f"training step with {self._rows} rows captured as a CUDA graph")
        except RuntimeError as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"the training step cannot be captured as a CUDA graph ({reason}); the same command with --eager goes "
                "on without a graph"
            ) from error


class CudaBackend:
    """Eager steps and captures on one side stream of a CUDA device, as torch's documentation prescribes.

    Gradients and everything else that a captured step allocates live in the graph's own memory pool, which nothing
    else allocates from while the graph exists; an eager step in between may therefore drop and replace `.grad`.
    """

    graphs = True

    def __init__(self, device: torch.device) -> None:
        self._device, self._side = device, torch.cuda.Stream(device)

    def run(self, step: Step, inputs: Sequence[Tensor]) -> Outputs:
        """Run a step on the side stream; both streams wait for each other, so that memory is never used twice."""
        current = torch.cuda.current_stream(self._device)
        self._side.wait_stream(current)
        with torch.cuda.stream(self._side):
            outputs = step(*inputs)
        current.wait_stream(self._side)
        return outputs

    def capture(self, step: Step, inputs: Sequence[Tensor], generators: Sequence[torch.Generator]) -> Captured:
        """Capture a step.

        Raises:
            RuntimeError: if it does what cannot be captured.
        """
        # why the outer stream: torch's context does not put the stream back when the end of a capture fails
        with torch.cuda.device(self._device), torch.cuda.stream(torch.cuda.current_stream(self._device)):
            return _CudaGraph(step, inputs, generators, self._side)

    def release(self) -> None:
        """Wait until no replay is under way: its memory is about to be freed."""
        torch.cuda.synchronize(self._device)


class _CudaGraph:
    def __init__(
        self, step: Step, inputs: Sequence[Tensor], generators: Sequence[torch.Generator], stream: torch.cuda.Stream
    ) -> None:
        self._graph = torch.cuda.CUDAGraph()
        for generator in generators:  # the default generator registers itself
            self._graph.register_generator_state(generator)
        # why thread_local: the thread that pins a data loader's memory may do what a capture forbids its own thread
        with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
            self._outputs = step(*inputs)

    def replay(self) -> Outputs:
        self._graph.replay()
        return self._outputs


class RecorderBackend:
    """The same protocol without a graph, for a CPU: a replay calls the step on the static inputs."""

    graphs = False

    def run(self, step: Step, inputs: Sequence[Tensor]) -> Outputs:
        """Run a step."""
        return step(*inputs)

    def capture(self, step: Step, inputs: Sequence[Tensor], generators: Sequence[torch.Generator]) -> Captured:
        """Remember step and inputs."""
        return _Recorded(step, inputs)

    def release(self) -> None:
        """Nothing to wait for."""


class _Recorded:
    def __init__(self, step: Step, inputs: Sequence[Tensor]) -> None:
        self._step, self._inputs = step, inputs
        self._outputs: Outputs = {}

    def replay(self) -> Outputs:
        for name, value in self._step(*self._inputs).items():
            self._outputs.setdefault(name, torch.empty_like(value)).copy_(value)
        return self._outputs


def backend_for(device: torch.device) -> Backend:
    """The backend of a device."""
    return CudaBackend(device) if device.type == "cuda" else RecorderBackend()


# --- optimisers inside a captured step --------------------------------------------------------------------------------


def is_capturable(optimizer: torch.optim.Optimizer) -> bool:
    """Whether `make_capturable` knows this optimiser: torch's fused Adam and SGD, which never ask the device."""
    return type(optimizer) in _CAPTURABLE and all(group.get("fused") for group in optimizer.param_groups)


def make_capturable(optimizer: torch.optim.Optimizer) -> None:
    """Turn the learning rates into tensors, which a captured step reads anew at every replay.

    On CUDA they are float32 (the fused kernels read no other), which rounds a rate by 6e-8 of itself; on a CPU float64,
    which keeps it exactly. Groups that are prepared already stay as they are.
    """
    for group in optimizer.param_groups:
        if RATE in group:
            continue
        device = group["params"][0].device
        dtype = torch.float32 if device.type == "cuda" else torch.float64
        group[RATE] = group["lr"]
        group["lr"] = torch.tensor(group["lr"], dtype=dtype, device=device)
        if "capturable" in group:
            group["capturable"] = True


def set_rate(group: dict[str, Any], rate: float) -> None:
    """Set a group's learning rate, in place where a captured step reads it; does not wait for the device."""
    if RATE not in group:
        group["lr"] = rate
    elif group[RATE] != rate:
        group[RATE] = rate
        group["lr"].fill_(rate)


def rate_of(group: dict[str, Any]) -> float:
    """A group's exact learning rate; does not wait for the device."""
    return float(group.get(RATE, group["lr"]))


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimiser's state dict, the same whether or not its steps are captured."""
    state = optimizer.state_dict()
    return state | {"param_groups": [_plain(group) for group in state["param_groups"]]}


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load what `optimizer_state` returned; an optimiser that was prepared for capture stays so."""
    prepared = any(RATE in group for group in optimizer.param_groups)
    optimizer.load_state_dict(state)
    if prepared:
        make_capturable(optimizer)


def _plain(group: dict[str, Any]) -> dict[str, Any]:
    if RATE not in group:
        return group
    plain = {key: value for key, value in group.items() if key != RATE} | {"lr": group[RATE]}
    return plain | ({"capturable": False} if "capturable" in plain else {})
