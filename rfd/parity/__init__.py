"""Counterparts of the fixtures recorded from RFD's, R-DFCIL's, cl-lite's and ABD's code.

Importing this package registers all adapters (`common.parity.ADAPTERS`).
"""

from rfd.parity import abd_steps, data, inversion, losses, networks, schedules, steps

__all__ = ["abd_steps", "data", "inversion", "losses", "networks", "schedules", "steps"]
