"""Quantiles of a cumulative histogram."""

import math
from collections.abc import Mapping


class BeyondBuckets(ValueError):
    """The quantile lies above the largest finite bound: how far is not known."""

    def __init__(self, bound: float) -> None:
        super().__init__(f"it lies beyond the largest bucket's bound {bound:g}")
        self.bound = bound


def quantile(share: float, buckets: Mapping[float, float]) -> float | None:
    """The value below which `share` of the observations lie, by Prometheus' rule: linear within the bucket that holds
    the rank, from 0 where the first bound is positive. `buckets` maps upper bounds, +Inf among them, to cumulative
    counts; None without observations or without +Inf. Raises BeyondBuckets."""
    total = buckets.get(math.inf, 0.0)
    finite = sorted(bound for bound in buckets if math.isfinite(bound))
    if not finite or total <= 0:
        return None
    rank = share * total
    low, below = min(0.0, finite[0]), 0.0
    for bound in finite:
        # A scrape between two buckets can leave a dent; cumulative counts do not fall.
        count = max(below, buckets[bound])
        if count >= rank and count > below:
            if bound <= 0 and below == 0.0:
                return bound
            return low + (bound - low) * (rank - below) / (count - below)
        low, below = bound, count
    raise BeyondBuckets(finite[-1])
