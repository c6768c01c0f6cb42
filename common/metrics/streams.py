"""Statistics of a metric over the epochs of a run: mean, spread, best, last."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def stream_statistics(values: Sequence[float], name: str = "acc") -> dict[str, float | int | None]:
    """Summary of one value per epoch.

    The papers on data-free distillation print mu and sigma^2 of the test accuracy over epochs; whether a printed
    sigma^2 is a variance or a standard deviation cannot always be told, so both are given.

    Args:
        values: one per epoch, in the metric's unit (percent for accuracies).
        name: stem of the keys.

    Returns:
        {name} (last value), best_{name}, best_{name}_epoch (counted from 1), {name}_mean, {name}_variance (population,
        squared unit) and {name}_std (its root); None where there is no value.
    """
    if not values:
        return {
            key: None
            for key in (name, f"best_{name}", f"best_{name}_epoch", f"{name}_mean", f"{name}_variance", f"{name}_std")
        }
    variance = statistics.pvariance(values)
    best = max(values)
    return {
        name: values[-1],
        f"best_{name}": best,
        f"best_{name}_epoch": list(values).index(best) + 1,
        f"{name}_mean": statistics.fmean(values),
        f"{name}_variance": variance,
        f"{name}_std": variance**0.5,
    }
