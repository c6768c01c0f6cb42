"""Counterparts of the fixtures recorded from VDFD's and Adam-NSCL's code.

Importing this package registers all adapters (`common.parity.ADAPTERS`).
"""

from classification.parity import data, method, networks, nscl, swin, training

__all__ = ["data", "method", "networks", "nscl", "swin", "training"]
