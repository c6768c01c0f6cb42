"""The original's name for this program; see main.py."""

from classification.class_incremental.main import main
from common.training.errors import command_line

if __name__ == "__main__":
    command_line(main)()
