"""Counterparts of the fixtures recorded from LRA's code.

Importing this package registers all adapters (`common.parity.ADAPTERS`).
"""

from adversarial_dfkd.parity import loops, losses, networks, protocol, steps

__all__ = ["loops", "losses", "networks", "protocol", "steps"]
