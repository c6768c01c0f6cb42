"""Flags of the class-incremental program."""

from __future__ import annotations

from dataclasses import dataclass, field

from classification.vdfd.options import MethodOptions, OriginalOptions
from common.training.options import always_on, machine_option


@dataclass(frozen=True)
class ClassIncrementalOptions(MethodOptions, OriginalOptions):
    """class-incremental setting"""

    force_out_dim: int = 100
    agent_type: str = "vdfd_la"
    agent_name: str = "VDFDLA"
    no_class_remap: bool = always_on()
    first_split_size: int = 50
    dataroot: str = machine_option("../../data")
    workers: int = machine_option(16)
    schedule: list[int] = field(default_factory=lambda: [1])
    gamma: float = 0.5
    """factor of the network's learning rates at a milestone"""
    temp: float = 0.1
    """temperature of the cross-entropy; --agent_type vdfd_ssl knows none, as released"""
    singular: int = 1
    """rank of the stored factors (ignored by the original without SSL, D6)"""
    incremental_class: bool = always_on()
    """one head for all classes; always so in this program"""
    resume_first: bool = False
    """refused: the original's way to go on after the first task needs a file that nothing writes; use --resume"""
    seed: int = 0
    """seed of all random generators (fixed at 0 in the original)"""


@dataclass(frozen=True)
class SelfSupervisedOptions(ClassIncrementalOptions):
    """class-incremental setting with rotation labels: the defaults of main_classinc_ssl.py"""

    gpuid: list[int] = machine_option([1])
    agent_type: str = "vdfd_ssl_la"
