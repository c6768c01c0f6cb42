"""The original's name of `main.py`: `python datafree_kd.py --method cudfkd ...` works unchanged."""

from common.training.errors import command_line
from curriculum_dfkd.main import main

if __name__ == "__main__":
    command_line(main)()
