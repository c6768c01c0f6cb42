"""Counterparts of the fixtures recorded from the authors' code.

Importing this package registers all adapters (`common.parity.ADAPTERS`).
"""

from prompt_distill.parity import modules, protocol, training

__all__ = ["modules", "protocol", "training"]
