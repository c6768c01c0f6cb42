"""Number formats: fp32, torch.amp autocasting, NVIDIA apex on request, and the settings behind `--fast`."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from common.training.errors import UserError
from common.training.options import RunOptions

_OPT_LEVEL_PRECISION = {"O0": "fp32", "O1": "fp16", "O2": "fp16"}
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """How the forward pass is computed and how gradients are scaled.

    `--opt_level O1` and `O2` (NVIDIA apex's names) become torch's automatic mixed precision in fp16 with dynamic
    loss scaling: weights stay fp32 and operators choose their format. apex's O2 keeps fp16 weights with an fp32
    master copy instead; the difference is rounding. O3 (fp16 throughout, no loss scaling) is refused.

    Attributes:
        name: "fp32", "bf16" or "fp16".
    """

    def __init__(self, options: RunOptions, device: torch.device) -> None:
        self.name = resolve_precision(options)
        self.device = device
        self._apex = _import_apex() if options.amp_backend == "apex" else None
        self._opt_level = options.opt_level
        if self._apex is not None and options.opt_level is None:
            raise UserError("--amp_backend apex needs --opt_level O0, O1 or O2")
        self._scaler = torch.amp.GradScaler(device.type, enabled=self.name == "fp16" and self._apex is None)

    def autocast(self) -> contextlib.AbstractContextManager:
        """Context of the forward pass."""
        if self.name == "fp32" or self._apex is not None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=_DTYPES[self.name])

    @property
    def is_capturable(self) -> bool:
        """Whether a step in this precision may be captured as a CUDA graph: not with loss scaling, nor with apex."""
        return self.name != "fp16" and self._apex is None

    def prepare(self, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Once new optimisers exist: let NVIDIA apex patch them and the model; torch's own precision needs nothing."""
        if self._apex is not None:
            self._apex.amp.initialize(model, list(optimizers), opt_level=self._opt_level, verbosity=0)

    def backward(self, loss: Tensor, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Backpropagate a loss, scaled where the format needs it."""
        if self._apex is not None:
            with self._apex.amp.scale_loss(loss, list(optimizers)) as scaled:
                scaled.backward()
        else:
            self._scaler.scale(loss).backward()

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Take the loss scale out of the gradients of an optimiser's parameters; at most once per step."""
        if self._scaler.is_enabled():
            self._scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """One optimiser step; with loss scaling, a step whose gradients overflowed is skipped."""
        if self._scaler.is_enabled():
            start_momentum(optimizer)
        self._scaler.step(optimizer)

    def update(self) -> None:
        """Adapt the loss scale; once per iteration, after all optimisers have stepped."""
        self._scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """Loss scale and its counters (empty without loss scaling)."""
        return self._apex.amp.state_dict() if self._apex is not None else self._scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the loss scale; with NVIDIA apex, after `prepare`."""
        if self._apex is not None:
            self._apex.amp.load_state_dict(state)
        elif state:
            self._scaler.load_state_dict(state)


def start_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Zero momentum where a fused SGD has none yet, which is what its first step would start from.

    torch's own first step takes uninitialised memory and relies on writing it; if loss scaling skips that step, as
    often happens to the very first one, the next step would add whatever lay there.
    """
    for group in optimizer.param_groups:
        if not (group.get("fused") and group.get("momentum")):
            continue
        for parameter in group["params"]:
            state = optimizer.state[parameter]
            if parameter.grad is not None and state.get("momentum_buffer") is None:
                state["momentum_buffer"] = torch.zeros_like(parameter)


def resolve_precision(options: RunOptions) -> str:
    """The precision that `--precision` and `--opt_level` ask for together.

    Raises:
        UserError: for O3, or if the two flags contradict each other.
    """
    if options.opt_level is None:
        return options.precision
    if options.opt_level not in _OPT_LEVEL_PRECISION:
        raise UserError("--opt_level O3 (fp16 without loss scaling) is not offered; expected O0, O1 or O2")
    mapped = _OPT_LEVEL_PRECISION[options.opt_level]
    if options.precision not in ("fp32", mapped):
        raise UserError(f"--opt_level {options.opt_level} means {mapped}, but found --precision {options.precision}")
    return mapped


def set_backend_flags(fast: bool) -> None:
    """TF32 and cuDNN autotuning on with `--fast`, off otherwise (torch leaves TF32 on for convolutions)."""
    torch.backends.cuda.matmul.allow_tf32 = fast
    torch.backends.cudnn.allow_tf32 = fast
    torch.backends.cudnn.benchmark = fast
    torch.backends.cudnn.deterministic = not fast


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; the mode the model was in is restored."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def _import_apex() -> Any:
    try:
        apex = importlib.import_module("apex")
        importlib.import_module("apex.amp")
    except ImportError as error:
        raise UserError(
            "--amp_backend apex: NVIDIA apex cannot be imported; build it from NVIDIA's sources (the package of that "
            "name on the Python index is another project) or use --amp_backend torch"
        ) from error
    return apex
