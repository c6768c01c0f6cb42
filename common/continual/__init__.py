"""Mathematics of continual learning that two papers share: VDFD's low-rank importance and its regulariser."""
