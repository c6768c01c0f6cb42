"""Timing two ways of computing the same thing, in turns, so that a machine's drift hits both alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any


def time_in_turns(ours: Callable[[], Any], literal: Callable[[], Any], *, rounds: int) -> tuple[float, float, float]:
    """Median seconds of each, and the median over rounds of the ratio literal / ours; one warm-up round of each."""
    ours(), literal()
    pairs = [(_seconds(ours), _seconds(literal)) for _ in range(rounds)]
    ratios = [slow / quick for quick, slow in pairs]
    return statistics.median(p[0] for p in pairs), statistics.median(p[1] for p in pairs), statistics.median(ratios)


def _seconds(action: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin
