"""Counterparts of the fixtures recorded from PLOP's, RCIL's, inplace_abn's and VDFD's code.

Importing this package registers all adapters (`common.parity.ADAPTERS`).
"""

from segmentation.parity import data, distillation, losses, metrics, modules, rcil, steps, tasks, vdfd

__all__ = ["data", "distillation", "losses", "metrics", "modules", "rcil", "steps", "tasks", "vdfd"]
