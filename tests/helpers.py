"""What tests of several packages need."""

from __future__ import annotations

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


def shared_archive(name: str) -> Path:
    """A big data archive beside the repository (`../shared/data/<name>`); skips the test where there is none."""
    path = REPOSITORY.parent / "shared" / "data" / name
    if not path.is_file():
        pytest.skip(f"{name} is not at ../shared/data; this test compares with the real archive")
    return path
