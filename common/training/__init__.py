"""The run machinery: options, seeds, run directory, checkpoints and resume, precision, run records."""
