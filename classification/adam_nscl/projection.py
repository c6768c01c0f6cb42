"""The null space of a convolution's inputs: second moments of their patches, and a projection onto what those spare.

Source: Wang et al., "Training Networks in Null Space of Feature Covariance for Continual Learning" (CVPR 2021);
ShipengWang/Adam-NSCL@a2f39b4 optim/adam_svd.py `get_eigens`, `get_transforms`, svd_agent/svd_agent.py
`compute_cov`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.training.errors import UserError


def convolutions(model: nn.Module) -> dict[str, nn.Conv2d]:
    """Name of the weight -> module, for every convolution.

    Raises:
        UserError: for a grouped convolution, whose rows do not all see the same patches.
    """
    found = {f"{path}.weight": module for path, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    for name, module in found.items():
        if module.groups != 1:
            raise UserError(f"Adam-NSCL has no null space for the grouped convolution {name}; use another --model_name")
    return found


def mean_patches(images: Tensor, module: nn.Conv2d) -> Tensor:
    """(B, C, H, W) inputs of a convolution -> (C * k * k, positions) patches of their mean over the mini-batch."""
    mean = images.mean(dim=0, keepdim=True)
    return F.unfold(mean, module.kernel_size, module.dilation, module.padding, module.stride)[0]


@contextmanager
def adding_second_moments(modules: Mapping[str, nn.Conv2d], moments: dict[str, Tensor]) -> Iterator[None]:
    """While entered, every forward pass adds each convolution's patches patches^T to its second moment.

    Args:
        modules: weight name -> convolution.
        moments: weight name -> (C * k * k, C * k * k), uncentred; extended in place, missing ones are made.
    """

    def add(name: str, module: nn.Conv2d, inputs: tuple[Tensor]) -> None:
        patches = mean_patches(inputs[0], module)
        if name not in moments:
            moments[name] = patches.new_zeros(len(patches), len(patches))
        moments[name].addmm_(patches, patches.T)

    with ExitStack() as stack, torch.no_grad():
        for name, module in modules.items():
            handle = module.register_forward_pre_hook(lambda module, inputs, name=name: add(name, module, inputs))
            stack.callback(handle.remove)
        yield


def null_space_basis(moment: Tensor, threshold: float) -> Tensor:
    """Directions in which earlier inputs hardly reach.

    Args:
        moment: (n, n) symmetric, positive semi-definite.
        threshold: directions with an eigenvalue up to this multiple of the smallest one are kept; at least 1.

    Returns:
        (n, k) orthonormal columns, 1 <= k <= n.
    """
    # why not eigh: around zero it returns negative eigenvalues, and a multiple of those keeps nothing.
    # why on the CPU: which null directions are kept hangs on rounding, and CUDA's decomposition is another one
    _, eigenvalues, directions = torch.linalg.svd(moment.cpu())
    return directions[eigenvalues <= threshold * eigenvalues[-1]].T.to(moment.device)


def projection_onto(basis: Tensor) -> Tensor:
    """(n, k) orthonormal columns B -> (n, n) B B^T divided by its Frobenius norm (as released)."""
    projection = basis @ basis.T
    return projection / torch.linalg.matrix_norm(projection)
