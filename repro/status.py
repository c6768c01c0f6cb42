"""Whether our runs agree with a published value: one two-sided rule for every cell of every paper."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from repro.published import Published

CONFIDENCE = 0.95
FEWEST_RUNS = 3
NOT_RUN, NOT_PUBLISHED, TOO_FEW, WITHIN, OUTSIDE = "not run", "not published", "too few runs", "within", "outside"

RULE = (
    f"Status, two-sided: within = the published value lies in the {CONFIDENCE:.0%} prediction interval for one further "
    f"run of ours, mean ± t(n-1) · std · sqrt(1 + 1/n), widened by half a unit of the published value's last digit; a "
    f"result that is too good is outside as well. At least {FEWEST_RUNS} full runs are needed."
)


def prediction_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Bounds between which one further run is expected; values: at least two."""
    from scipy import stats  # why: takes a second to import, and lists do not need it

    mean, spread = statistics.fmean(values), statistics.stdev(values)
    half = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1)) * spread * math.sqrt(1 + 1 / len(values))
    return mean - half, mean + half


def rounding(text: str) -> float:
    """Half a unit of the last digit of a published number ("80.50" -> 0.005, "43.9+-0.9" -> 0.05)."""
    number = text.split("+-")[0].split("±")[0].strip()
    digits = len(number.partition(".")[2]) if "." in number else 0
    return 0.5 * 10.0**-digits


def status_of(values: Sequence[float], published: Sequence[Published]) -> str:
    """The status of a cell's metric, one per published value where sources contradict each other.

    Args:
        values: one number per full run.
        published: the published values.
    """
    if not values:
        return NOT_RUN
    if not published:
        return NOT_PUBLISHED
    if len(values) < FEWEST_RUNS:
        return f"{TOO_FEW} (n={len(values)})"
    low, high = prediction_interval(values)
    return " / ".join(_one(low, high, value) for value in published)


def _one(low: float, high: float, published: Published) -> str:
    slack = rounding(published.text)
    if low - slack <= published.value <= high + slack:
        return WITHIN
    return f"{OUTSIDE} ({'below' if published.value > high else 'above'})"
