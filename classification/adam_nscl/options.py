"""Flags of Adam-NSCL; the others are VDFD's."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AdamNSCLOptions:
    """Adam-NSCL (--agent_type svd_based --agent_name svd_based); defaults: its recorded commands"""

    svd_lr: float = 5e-5
    """learning rate of the convolutions from the second task on"""
    bn_lr: float = 5e-4
    """learning rate of the batch norms"""
    svd_thres: float = 10.0
    """directions count as null space up to this multiple of the smallest eigenvalue"""
