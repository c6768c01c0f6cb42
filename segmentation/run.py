"""The originals' name of the program; see main.py."""

from __future__ import annotations

from common.training.errors import command_line
from segmentation.main import main

if __name__ == "__main__":
    command_line(main)()
