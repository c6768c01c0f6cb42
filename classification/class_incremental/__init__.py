"""VDFD, class-incremental."""
