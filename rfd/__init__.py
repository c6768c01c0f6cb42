"""Data-free class-incremental learning: RFD, with R-DFCIL and Always-Be-Dreaming beside it."""
