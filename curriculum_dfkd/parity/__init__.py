"""Counterparts of the fixtures recorded from CuDFKD's and CMI's code.

Importing this package registers all adapters (`common.parity.ADAPTERS`).
"""

from curriculum_dfkd.parity import losses, networks, schedules, steps, utilities

__all__ = ["losses", "networks", "schedules", "steps", "utilities"]
