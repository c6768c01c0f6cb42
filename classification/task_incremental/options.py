"""Flags of the task-incremental program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from classification.vdfd.options import MethodOptions, OriginalOptions


@dataclass(frozen=True)
class TaskIncrementalOptions(MethodOptions, OriginalOptions):
    """task-incremental setting"""

    gamma: ClassVar[float] = 0.5
    """factor of the learning rates at a milestone; fixed in this setting"""
    temp: ClassVar[float] = 1.0
    """temperature of the cross-entropy; fixed in this setting"""

    seed: int = 0
    """seed of all random generators"""
    singular: int = 1
    """rank of the stored factors (fixed at 1 in the original's task-incremental code, D6)"""
