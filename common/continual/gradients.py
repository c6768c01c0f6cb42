"""Gradients of several outputs of a network, summarised per parameter (`summary.py`).

Source: VDFD supplement (first-order expansion around the old weights); XiaorongLi-95/VDFD@2c0dfce agents/vdfd.py and
agents/vdfd_swin.py, `calculate_importance`. Speed: the row mean of a convolution's gradient is taken without forming
that gradient, see `_conv_row_gradients`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.continual.summary import ROW_MEANS, Summary


def output_gradients(
    model: nn.Module,
    names: Sequence[str],
    outputs_of: Callable[[], Tensor],
    summary: Summary = ROW_MEANS,
    copy_outputs: bool = False,
) -> dict[str, Tensor]:
    """Summarised gradients of each output of one forward pass.

    The model must be in evaluation mode: batch statistics would let samples meet.

    Args:
        model: the network.
        names: parameters wanted.
        outputs_of: runs the forward pass and returns (C,) outputs; called once, with gradients enabled.
        summary: what is kept of a gradient.
        copy_outputs: give what follows a convolution a copy of its output; needed where that works in place.

    Returns:
        Name -> (rows, C), or (rows, inputs, C) of a matrix that is kept whole. Zero where no output depends on the
        parameter.

    Raises:
        ValueError: if the model is in training mode.
    """
    if model.training:
        raise ValueError("class gradients need the model in evaluation mode")
    parameters = dict(model.named_parameters())
    convolutions = _tapped_convolutions(model, names)
    plain = [name for name in names if name not in convolutions]
    wanted_before = {name: parameter.requires_grad for name, parameter in parameters.items()}
    try:
        for name, parameter in parameters.items():
            parameter.requires_grad_(name in plain)
        with torch.enable_grad(), ExitStack() as stack:
            taps = {name: stack.enter_context(_Tap(module, copy_outputs)) for name, module in convolutions.items()}
            outputs = outputs_of()
            sources = [taps[name].output for name in convolutions] + [parameters[name] for name in plain]
            shapes = {name: (len(outputs), *summary.shape(parameters[name])) for name in names}
            result = {name: parameters[name].new_empty(shape) for name, shape in shapes.items()}
            for index in range(len(outputs)):
                more = index + 1 < len(outputs)
                gradients = torch.autograd.grad(outputs[index], sources, retain_graph=more, materialize_grads=True)
                for name, gradient in zip(convolutions, gradients, strict=False):
                    tap, module = taps[name], convolutions[name]
                    result[name][index] = _conv_row_gradients(gradient, tap.window_sums, module)
                for name, gradient in zip(plain, gradients[len(convolutions) :], strict=True):
                    result[name][index] = summary.of(gradient)
                del gradients  # why: they would lie beside those of the next class
    finally:
        for name, parameter in parameters.items():
            parameter.requires_grad_(wanted_before[name])
    return {name: gradient.movedim(0, -1) for name, gradient in result.items()}


class _Tap:
    """While entered, notes a convolution's output and the sums of its input over every kernel window."""

    def __init__(self, module: nn.Conv2d, copies: bool) -> None:
        self.module, self.copies = module, copies
        self.output: Tensor
        self.window_sums: Tensor

    def __enter__(self) -> _Tap:
        self._handle = self.module.register_forward_hook(self._note)
        return self

    def __exit__(self, *error: object) -> None:
        self._handle.remove()

    def _note(self, module: nn.Conv2d, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        with torch.no_grad(), torch.autocast(output.device.type, enabled=False):
            summed = _at_least_float32(inputs[0]).sum(dim=1, keepdim=True)
            ones = summed.new_ones(1, 1, *module.kernel_size)
            self.window_sums = F.conv2d(summed, ones, None, module.stride, module.padding, module.dilation)
        # why: the first convolution's output depends on nothing that needs a gradient, so it becomes a leaf
        self.output = output if output.requires_grad else output.detach().requires_grad_()
        return self.output.clone() if self.copies else self.output


def _conv_row_gradients(output_gradient: Tensor, window_sums: Tensor, module: nn.Conv2d) -> Tensor:
    """Mean over a convolution's input channels and kernel of the gradient of its weight.

    The gradient of w[r, i, u, v] is the sum over samples and places of output_gradient[b, r, y, x] times the input
    entry under (i, u, v) there. Its mean over (i, u, v) needs only the sum of the input over the whole window:
    one inner product per row instead of a convolution as large as the forward pass.

    Args:
        output_gradient: (B, rows, H, W).
        window_sums: (B, 1, H, W).

    Returns:
        (rows,).
    """
    with torch.autocast(output_gradient.device.type, enabled=False):
        sums = torch.einsum("brhw,bhw->r", _at_least_float32(output_gradient), window_sums[:, 0])
    return sums / module.weight[0].numel()


def _at_least_float32(x: Tensor) -> Tensor:
    """Sums over whole images are taken in float32 where the network runs in a smaller format."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _tapped_convolutions(model: nn.Module, names: Sequence[str]) -> dict[str, nn.Conv2d]:
    """The wanted parameters that are weights of ungrouped, zero-padded convolutions, with their modules."""
    wanted = set(names)
    return {
        f"{path}.weight": module
        for path, module in model.named_modules()
        if isinstance(module, nn.Conv2d)
        and f"{path}.weight" in wanted
        and module.groups == 1
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    }
