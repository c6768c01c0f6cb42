"""Flags of the class-incremental program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from classification.vdfd.options import MethodOptions, OriginalOptions


@dataclass(frozen=True)
class ClassIncrementalOptions(MethodOptions, OriginalOptions):
    """class-incremental setting"""

    seed: ClassVar[int] = 0
    """seed of all random generators; fixed in the original"""

    force_out_dim: int = 100
    no_class_remap: bool = True
    first_split_size: int = 50
    dataroot: str = "../../data"
    gamma: float = 0.5
    """factor of the network's learning rates at a milestone"""
    temp: float = 0.1
    """temperature of the cross-entropy"""
    singular: int = 1
    """rank of the stored factors"""
