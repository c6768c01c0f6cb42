"""How much of a parameter's gradient is kept: one number per row, or, of matrices, everything.

The released code has both: `agents/vdfd.py` averages every row of every parameter; `agents/vdfd_swin.py` keeps the
matrices of a transformer whole and compresses each of their rows for itself. All else follows from this choice: the
shape of the importance (`importance.py`), how many factorisations a parameter gets (`compression.py`), and which part
of the weights the functional meets (`memory.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


def row_means(gradient: Tensor) -> Tensor:
    """One number per row: the mean over all other dimensions; a vector stays as it is."""
    return gradient.flatten(1).mean(dim=1) if gradient.dim() > 1 else gradient


@dataclass(frozen=True)
class Summary:
    """What is kept of a parameter's gradient.

    Attributes:
        whole_matrices: keep the gradients of matrices (two dimensions) whole. Convolutions are averaged over input
            channels and kernel, and vectors kept, in both cases.
    """

    whole_matrices: bool

    def keeps_whole(self, parameter: Tensor) -> bool:
        """Whether this parameter's rows get a factorisation each."""
        return self.whole_matrices and parameter.dim() == 2

    def shape(self, parameter: Tensor) -> tuple[int, ...]:
        """Shape of the summary of one class's gradient: (rows, inputs) of a whole matrix, (rows,) otherwise."""
        return tuple(parameter.shape) if self.keeps_whole(parameter) else tuple(parameter.shape[:1])

    def of(self, gradient: Tensor) -> Tensor:
        """The summary of one class's gradient."""
        return gradient if self.keeps_whole(gradient) else row_means(gradient)


ROW_MEANS = Summary(whole_matrices=False)
WHOLE_MATRICES = Summary(whole_matrices=True)
