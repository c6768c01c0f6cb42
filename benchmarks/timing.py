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


def fastest_in_turns(
    ours: Callable[[], Any], literal: Callable[[], Any], *, rounds: int, clock: Callable[[], float] = time.perf_counter
) -> tuple[float, float, float]:
    """Least seconds of each, and their ratio literal / ours; one warm-up round of each.

    For a machine that others use too: what they take can only lengthen a round.

    Args:
        ours, literal: the two ways.
        rounds: timed rounds of each.
        clock: `time.process_time` counts the processor's seconds of this process alone, summed over its threads.
    """
    ours(), literal()
    pairs = [(_seconds(ours, clock), _seconds(literal, clock)) for _ in range(rounds)]
    quick, slow = min(p[0] for p in pairs), min(p[1] for p in pairs)
    return quick, slow, slow / quick


def _seconds(action: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    begin = clock()
    action()
    return clock() - begin
