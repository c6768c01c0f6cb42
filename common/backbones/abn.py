"""Activated batch normalisation: normalise, scale by |weight| + eps, shift, activate; keeping the output only.

Plain PyTorch counterparts of mapillary/inplace_abn (release 1.1.0, BSD-3): same class names, arguments, state-dict keys
and memory behaviour. `InPlaceABN` writes its result over its input and, going back, inverts the activation to get the
normalised values again, so that one map per layer stays alive instead of two. Several backward passes through one graph
are possible: the kept output is never written to.

In every class x_hat = (x - mean) / sqrt(variance + eps) per channel, with the batch's statistics in training and the
running ones in evaluation. `ABN` is the textbook form act(weight * x_hat + bias); the two others give
act((|weight| + eps) * x_hat + bias).
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from common.training.errors import UserError

INVERTIBLE = ("leaky_relu", "elu", "identity")
"""Activations of InPlaceABN; ABN also has relu."""

MakeNorm = Callable[[int], nn.Module]


class ABN(nn.Module):
    """Batch normalisation and activation, the plain way.

    Args:
        num_features: channels.
        eps: added to the variance; may be 0. Read at every call, like `activation` and `activation_param`.
        momentum: share of the new batch in the running statistics; None averages all batches.
        affine: whether there are weight (at first 1) and bias (0).
        track_running_stats: keep running statistics; without them evaluation uses the batch's.
        activation: leaky_relu, elu, identity or relu.
        activation_param: slope of leaky_relu, alpha of elu.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        activation: str = "leaky_relu",
        activation_param: float = 0.01,
    ) -> None:
        super().__init__()
        self.num_features, self.eps, self.momentum, self.affine = num_features, eps, momentum, affine
        self.track_running_stats = track_running_stats
        self.activation, self.activation_param = activation, activation_param
        self.register_parameter("weight", nn.Parameter(torch.ones(num_features)) if affine else None)
        self.register_parameter("bias", nn.Parameter(torch.zeros(num_features)) if affine else None)
        tracked = track_running_stats
        self.register_buffer("running_mean", torch.zeros(num_features) if tracked else None)
        self.register_buffer("running_var", torch.ones(num_features) if tracked else None)
        self.register_buffer("num_batches_tracked", torch.tensor(0, dtype=torch.long) if tracked else None)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...) -> the same shape and dtype."""
        training, momentum = self._mode()
        if training:
            _refuse_single_values(x)
        if not training and self.eps == 0:  # F.batch_norm refuses eps = 0
            shape = _per_channel(x)
            y = (x - self.running_mean.view(shape)) / self.running_var.sqrt().view(shape)
            y = y * self.weight.view(shape) + self.bias.view(shape) if self.affine else y
        else:
            running = (self.running_mean, self.running_var) if self.track_running_stats else (None, None)
            y = F.batch_norm(x, *running, self.weight, self.bias, training, momentum, self.eps)
        return activate(y, self.activation, self.activation_param)

    def _mode(self) -> tuple[bool, float]:
        """Whether the batch's statistics count, and their share in the running ones."""
        if self.training and self.track_running_stats:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:
                return True, 1.0 / float(self.num_batches_tracked)
        return self.training or not self.track_running_stats, self.momentum or 0.0

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """why: weights saved by releases before 1.1.0 have no counter."""
        if self.track_running_stats and f"{prefix}running_mean" in state_dict:
            state_dict.setdefault(f"{prefix}num_batches_tracked", torch.tensor(0, dtype=torch.long))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        """Arguments, for printing."""
        return f"{self.num_features}, eps={self.eps}, {self.activation}({self.activation_param})"


class InPlaceABN(ABN):
    """The same with |weight| + eps as scale, over its input; arguments as `ABN`, without relu."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...), overwritten by the result, which is returned.

        Raises:
            ValueError: for an activation that cannot be inverted, or one value per channel in training.
        """
        if self.activation not in INVERTIBLE:
            raise ValueError(f"InPlaceABN: activation {self.activation!r} cannot be inverted; known: {INVERTIBLE}")
        training, momentum = self._mode()
        group = self._group() if training else None
        if training and group is None:
            _refuse_single_values(x)
        return _InPlaceActivatedNorm.apply(
            x, self.weight, self.bias, self.running_mean, self.running_var, training, momentum, self.eps,
            self.activation, self.activation_param, group,
        )  # fmt: skip

    def _group(self) -> Any:
        """The processes that share statistics; None: this one alone."""
        return None


class InPlaceABNSync(InPlaceABN):
    """InPlaceABN with the statistics of all processes of a group.

    Args:
        group: of torch.distributed; None: all processes there are at the time of the call.
    """

    def __init__(self, *args: Any, group: Any = None, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.group = group

    def set_group(self, group: Any) -> None:
        """Choose the processes that share statistics."""
        self.group = group

    def _group(self) -> Any:
        # original: release 1.1.0 takes the default group at import time, where none exists, and then silently does not
        # synchronise; here it is looked up at every call.
        if not (dist.is_available() and dist.is_initialized()):
            return None
        group = dist.group.WORLD if self.group is None else self.group
        return group if dist.get_world_size(group) > 1 else None


def active_group(active: bool) -> Any:
    """A new group of the processes that call this with True; every process has to call it."""
    flags: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(flags, bool(active))
    return dist.new_group([rank for rank, flag in enumerate(flags) if flag])


def set_active_group(module: nn.Module, group: Any) -> None:
    """Give every synchronised norm of a module its group."""
    for part in module.modules():
        if isinstance(part, InPlaceABNSync):
            part.set_group(group)


def activate(x: Tensor, activation: str, param: float, inplace: bool = False) -> Tensor:
    """leaky_relu (slope param), elu (alpha param), relu, or nothing (identity)."""
    if activation == "identity" or (activation == "leaky_relu" and param == 1.0):
        return x
    if activation == "leaky_relu":
        return F.leaky_relu(x, param, inplace)
    if activation == "elu":
        return F.elu(x, param, inplace)
    if activation == "relu":
        return F.relu(x, inplace)
    raise ValueError(f"unknown activation {activation!r}; known: relu, {', '.join(INVERTIBLE)}")


# --- choosing -------------------------------------------------------------------------------------------------------

_OWN = {"abn": ABN, "iabn": InPlaceABN, "iabn_sync": InPlaceABNSync}
_PACKAGE = {"pkg_iabn": "InPlaceABN", "pkg_iabn_sync": "InPlaceABNSync"}


def make_norm(norm_act: str, slope: float = 0.01) -> MakeNorm:
    """channels -> norm, with leaky ReLU of a slope.

    Args:
        norm_act: abn, iabn, iabn_sync (plain PyTorch), pkg_iabn, pkg_iabn_sync (the compiled package inplace_abn).
        slope: 1: no activation.

    Raises:
        UserError: for a name that cannot be had, or if the package cannot be imported.
    """
    if norm_act in _OWN:
        make = _OWN[norm_act]
    elif norm_act in _PACKAGE:
        make = getattr(import_package(), _PACKAGE[norm_act])
        if norm_act == "pkg_iabn_sync" and dist.is_available() and dist.is_initialized():
            make = functools.partial(make, group=dist.group.WORLD)
    else:
        known = ", ".join([*_OWN, *_PACKAGE])
        raise UserError(f"--norm_act {norm_act}: plain batch norm has no activation to switch off; expected {known}")
    return functools.partial(make, activation="leaky_relu", activation_param=slope)


def import_package() -> Any:
    """The compiled package `inplace_abn`.

    Raises:
        UserError: if it is not installed or cannot be loaded.
    """
    try:
        return importlib.import_module("inplace_abn")
    except (ImportError, OSError) as error:
        raise UserError(
            "--norm_act pkg_iabn: the package inplace_abn cannot be imported "
            f"({' '.join(str(error).split())}); build it with `make abn` or use iabn (plain PyTorch)"
        ) from error


# --- the in-place function --------------------------------------------------------------------------------------------


class _InPlaceActivatedNorm(torch.autograd.Function):
    """Keeps output, variance, count, weight and bias; statistics and affine part in fp32 for shorter formats."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor | None,
        running_var: Tensor | None, training: bool, momentum: float, eps: float, activation: str, param: float,
        group: Any,
    ) -> Tensor:  # fmt: skip
        shape = _per_channel(x)
        with torch.autocast(x.device.type, enabled=False):
            values = x if x.dtype in (torch.float32, torch.float64) else x.float()
            if training:
                mean, variance, count = _statistics(values, group)
                if running_mean is not None and running_var is not None:
                    share = momentum * variance * count / (count - 1)  # of the unbiased variance
                    running_mean.mul_(1 - momentum).add_(momentum * mean.to(running_mean.dtype))
                    running_var.mul_(1 - momentum).add_(share.to(running_var.dtype))
            else:
                assert running_mean is not None and running_var is not None
                mean, variance, count = running_mean.to(values.dtype), running_var.to(values.dtype), None
            # why in this order: as the compiled package does it, whose rounding deep networks amplify
            scale = 1 / torch.sqrt(variance + eps)
            shift = -mean * scale
            if weight is not None and bias is not None:
                gamma = (weight.detach().abs() + eps).to(values.dtype)
                shift = bias.detach().to(values.dtype) - mean * gamma * scale
                scale = gamma * scale
            values.mul_(scale.view(shape)).add_(shift.view(shape))
            activate(values, activation, param, inplace=True)
            if values is not x:
                x.copy_(values)
        ctx.mark_dirty(x)
        ctx.save_for_backward(x, variance, count, weight, bias)
        ctx.training, ctx.eps, ctx.activation, ctx.param, ctx.group = training, eps, activation, param, group
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        output, variance, count, weight, bias = ctx.saved_tensors
        shape, dims = _per_channel(output), [dim for dim in range(output.dim()) if dim != 1]
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        with torch.autocast(output.device.type, enabled=False):
            y = output if output.dtype == variance.dtype else output.to(variance.dtype)
            grad = grad if grad.dtype == y.dtype else grad.to(y.dtype)
            grad = _activation_gradient(grad, y, ctx.activation, ctx.param)
            gamma = torch.ones_like(variance) if weight is None else (weight.abs() + ctx.eps).to(variance.dtype)
            factor = gamma * (variance + ctx.eps).rsqrt()
            grad_x = sum_grad = sum_product = None
            if ctx.training or needs_bias:
                sum_grad = grad.sum(dims)
            if ctx.training or needs_weight:
                normalised = _invert(y, ctx.activation, ctx.param)
                if bias is not None:
                    normalised -= bias.to(y.dtype).view(shape)
                normalised /= gamma.view(shape)
                sum_product = (grad * normalised).sum(dims)
            if needs_x and ctx.training:
                total, product = _summed(sum_grad, sum_product, ctx.group)
                normalised.mul_((-factor * product / count).view(shape))
                normalised.sub_((factor * total / count).view(shape))
                grad_x = normalised.addcmul_(grad, factor.view(shape)).to(output.dtype)
            elif needs_x:
                grad_x = (grad * factor.view(shape)).to(output.dtype)
        grad_weight = torch.where(weight < 0, -sum_product, sum_product).to(weight.dtype) if needs_weight else None
        grad_bias = sum_grad.to(bias.dtype) if needs_bias else None
        return grad_x, grad_weight, grad_bias, None, None, None, None, None, None, None, None


def _statistics(values: Tensor, group: Any) -> tuple[Tensor, Tensor, Tensor]:
    """(C,) mean, (C,) biased variance, () number of values per channel, of all processes together."""
    dims = [dim for dim in range(values.dim()) if dim != 1]
    number = values.numel() // values.shape[1]
    mean = values.sum(dims) / max(number, 1)
    variance = (values - mean.view(_per_channel(values))).square_().sum(dims) / max(number, 1)
    count = torch.full((), float(number), dtype=values.dtype, device=values.device)
    if group is None:
        return mean, variance, count
    own = torch.cat([mean, variance, count.view(1)])
    every = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    dist.all_gather(every, own, group=group)
    means, variances, counts = torch.stack(every).split([len(mean), len(mean), 1], dim=1)
    total = counts.sum()
    common = (counts * means).sum(0) / total
    return common, (counts * (variances + (means - common).square())).sum(0) / total, total


def _summed(sum_grad: Tensor, sum_product: Tensor, group: Any) -> tuple[Tensor, Tensor]:
    """Both sums over all processes."""
    if group is None:
        return sum_grad, sum_product
    both = torch.stack([sum_grad, sum_product])
    dist.all_reduce(both, group=group)
    return both[0], both[1]


def _activation_gradient(grad: Tensor, output: Tensor, activation: str, param: float) -> Tensor:
    """grad times the activation's derivative, told from its output."""
    if activation == "identity" or (activation == "leaky_relu" and param == 1.0):
        return grad
    if activation == "leaky_relu":
        return torch.ops.aten.leaky_relu_backward(grad, output, param, True)
    return torch.ops.aten.elu_backward(grad, param, 1.0, 1.0, True, output)


def _invert(output: Tensor, activation: str, param: float) -> Tensor:
    """Activation's argument, in a new tensor."""
    if activation == "identity" or (activation == "leaky_relu" and param == 1.0):
        return output.clone()
    if activation == "leaky_relu":
        return F.leaky_relu(output, 1.0 / param)
    return torch.where(output < 0, torch.log1p(output / param), output)


def _per_channel(x: Tensor) -> list[int]:
    return [1, -1] + [1] * (x.dim() - 2)


def _refuse_single_values(x: Tensor) -> None:
    if x.numel() // x.shape[1] == 1:
        raise ValueError(f"expected more than one value per channel when training, found input of shape {[*x.shape]}")


def norms_of(module: nn.Module) -> Iterable[nn.Module]:
    """Every activated norm inside, those of the compiled package included."""
    return (part for part in module.modules() if hasattr(part, "activation_param") and hasattr(part, "running_var"))
