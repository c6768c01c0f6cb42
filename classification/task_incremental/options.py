"""Flags of the two task-incremental programs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from classification.adam_nscl.options import AdamNSCLOptions
from classification.vdfd.options import MethodOptions, OriginalOptions
from common.training.options import machine_option


@dataclass(frozen=True)
class TaskIncrementalOptions(MethodOptions, AdamNSCLOptions, OriginalOptions):
    """task-incremental setting"""

    gamma: ClassVar[float] = 0.5
    """factor of the learning rates at a milestone; fixed in this setting"""
    temp: ClassVar[float] = 1.0
    """temperature of the cross-entropy; fixed in this setting"""

    seed: int = 0
    """seed of all random generators"""
    singular: int = 1
    """rank of the stored factors (fixed at 1 in the original's task-incremental code, D6)"""


@dataclass(frozen=True)
class SwinOptions(MethodOptions, OriginalOptions):
    """task-incremental setting with a Swin transformer"""

    gamma: ClassVar[float] = 0.5
    """factor of the hypermodel's learning rate at a milestone; fixed in this setting"""
    temp: ClassVar[float] = 1.0
    """temperature of the cross-entropy; fixed in this setting"""

    gpuid: list[int] = machine_option([1])
    model_type: str = "swin"
    model_name: str = "SwinTransformer"
    agent_type: str = "vdfd_swin"
    agent_name: str = "VDFDSwin"
    dataroot: str = machine_option("../../data/SubImageNet")
    dataset: str = "SubImageNet"
    batch_size: int = 16
    model_lr: float = 5e-4
    momentum: float = 0.0
    schedule: list[int] = field(default_factory=lambda: [30])
    min_lr: float = 5e-6
    """learning rate of the network at the end of a task"""
    warmup_lr: float = 5e-7
    """learning rate of the network at the beginning of a task"""
    warmup_epochs: int = 20
    """epochs over which the network's learning rate rises"""
    resume_first: bool = False
    """refused: the original would load a checkpoint of the first task that it never writes"""
    fused_window_process: bool = False
    """refused: the original would use a CUDA kernel of its own for shifting windows"""
    seed: int = 0
    """seed of all random generators (fixed at 0 in the original)"""
    singular: int = 1
    """rank of the stored factors (fixed at 1 in the original's task-incremental code, D6)"""
