"""Durations as kubectl shows them."""

from datetime import datetime

from opsapi.kit.clock import parse_rfc3339


def human_duration(total: float) -> str:
    """`59s`, `5m30s`, `3h`, `2d4h`, `400d`: two units at most, fewer as it grows."""
    seconds = int(total)
    if seconds < -1:
        return "<invalid>"
    if seconds < 0:
        return "0s"
    if seconds < 120:
        return f"{seconds}s"
    minutes, rest = divmod(seconds, 60)
    if minutes < 10:
        return f"{minutes}m{rest}s" if rest else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    hours, rest = divmod(minutes, 60)
    if hours < 8:
        return f"{hours}h{rest}m" if rest else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    days, rest = divmod(hours, 24)
    if days < 8:
        return f"{days}d{rest}h" if rest else f"{days}d"
    if days < 365 * 2:
        return f"{days}d"
    years, rest = divmod(days, 365)
    if years < 8:
        return f"{years}y{rest}d" if rest else f"{years}y"
    return f"{years}y"


def age(timestamp: str | None, now: datetime) -> str:
    """How long ago a metav1.Time was; `<unknown>` where there is none."""
    if not timestamp:
        return "<unknown>"
    return human_duration((now - parse_rfc3339(timestamp)).total_seconds())
