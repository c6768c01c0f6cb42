"""ReviewKD's fusion of the student's token maps, from the last block to the first.

Source: IRVLUTD/CDL@d980577 models/zoo.py `ABF`, `ReviewKD`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

UNITS = 12
"""One per block of the student; the teacher's last so many blocks are imitated."""


class FusionUnit(nn.Module):
    """Merges a block's tokens with what came from the block behind it.

    The first unit (fuse=False) has nothing to merge; its `norm2` exists but takes no part, as in the original.

    Args:
        student_dim, teacher_dim: widths.
        fuse: whether there is a unit before this one.
    """

    def __init__(self, student_dim: int, teacher_dim: int, fuse: bool) -> None:
        super().__init__()
        self.proj1, self.norm1 = nn.Linear(student_dim, student_dim), nn.LayerNorm(student_dim)
        self.norm2, self.proj2 = nn.LayerNorm(student_dim), nn.Linear(student_dim, teacher_dim)
        self.projz, self.normz = None, None
        if fuse:
            self.projz, self.normz = nn.Linear(student_dim, student_dim), nn.LayerNorm(student_dim)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Fuse.

        Args:
            x: (B, 1, tokens, student_dim).
            residual: of the unit before, same shape; None for the first unit.

        Returns:
            (B, 1, tokens, teacher_dim), and the residual for the next unit.
        """
        own = self.norm1(self.proj1(x))
        if self.projz is not None:
            gates = self.normz(self.projz(torch.cat([own, residual], dim=1)))
            own = self.norm2(own * gates[:, :1] + residual * gates[:, 1:2])
        return self.proj2(own), own


class FusionStack(nn.Module):
    """`UNITS` fusion units; unit 0 works on the last block."""

    def __init__(self, student_dim: int, teacher_dim: int, units: int = UNITS) -> None:
        super().__init__()
        self.abfs = nn.ModuleList(FusionUnit(student_dim, teacher_dim, fuse=unit > 0) for unit in range(units))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Token maps of the student's blocks, (B, 1, tokens, student_dim) first to last -> fused ones in that order."""
        fused: list[Tensor] = []
        residual = None
        for unit, x in zip(self.abfs, reversed(maps), strict=True):
            out, residual = unit(x, residual)
            fused.append(out)
        return fused[::-1]
