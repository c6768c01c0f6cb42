"""The original's program with rotation labels: main.py with that agent and device 1 as defaults."""

from classification.class_incremental.main import main
from classification.class_incremental.options import SelfSupervisedOptions
from common.training.errors import command_line

if __name__ == "__main__":
    command_line(main)(options=SelfSupervisedOptions)
