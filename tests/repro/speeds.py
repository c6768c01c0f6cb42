"""A kept measurement of speed, for tests."""

from __future__ import annotations

from repro.speed import Figure, Measurement, Row

MEASURED = Measurement(
    command="python -m benchmarks.toy", title="toy network", method="Median wall seconds of 3 rounds, in turns",
    options={"rounds": 3, "batch": 4}, hardware={"device": "cpu", "name": "processor", "threads": 1, "cores": 2},
    load=0.25, versions={"python": "3.11", "torch": "2.0"}, date="2026-01-02T03:04:05+00:00", commit="0123456789abcdef",
    dirty=False, rows=(Row("step", 0.01234, 0.3, 24.31), Row("all steps", 1234.4, 2468.8, 2.0)),
    figures=(Figure("kept, MB", 12.34),),
)  # fmt: skip
