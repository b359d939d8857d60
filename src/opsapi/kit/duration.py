"""Durations as the specification writes them: `5s`, `60s`, `5m`, `2d5h`, `15d 4h 23m`."""

import re
from datetime import timedelta

_PART = re.compile(r"(\d+)(ms|w|d|h|m|s)\s*", re.ASCII)
_UNIT = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
MAX_DURATION = timedelta(days=3650)


def parse_duration(text: str) -> timedelta:
    """`"5m"`, `"1h30m"`, `"15d 4h"` -> timedelta. Raises ValueError on anything else and beyond ten years."""
    position, seconds = 0, 0.0
    last = float("inf")
    while position < len(text):
        match = _PART.match(text, position)
        if match is None or len(match.group(1)) > 12:
            raise ValueError(f"not a duration: {text[:40]!r} (write it like 30s, 5m, 1h30m or 2d)")
        unit = _UNIT[match.group(2)]
        if unit >= last:
            raise ValueError(f"not a duration: {text[:40]!r} (units go from large to small, each once)")
        last = unit
        seconds += int(match.group(1)) * unit
        position = match.end()
    if not text or text != text.strip():
        raise ValueError(f"not a duration: {text[:40]!r} (write it like 30s, 5m, 1h30m or 2d)")
    if seconds > MAX_DURATION.total_seconds():
        raise ValueError(f"{text[:40]!r} is longer than ten years")
    return timedelta(seconds=seconds)


def _parts(span: timedelta) -> list[tuple[int, str]]:
    rest = max(0, int(span.total_seconds()))
    parts = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        parts.append((count, unit))
    return parts


def format_age(span: timedelta) -> str:
    """The two largest units, as kubectl does: `2d5h`, `4h`, `35s`; `0s` for anything shorter or negative."""
    parts = _parts(span)
    first = next((i for i, (count, _) in enumerate(parts) if count), 3)
    return "".join(f"{count}{unit}" for count, unit in parts[first : first + 2] if count) or "0s"


def format_uptime(span: timedelta) -> str:
    """`15d 4h 23m`; seconds only below a minute."""
    days, hours, minutes, seconds = _parts(span)
    shown = [f"{count}{unit}" for count, unit in (days, hours, minutes) if count]
    return " ".join(shown) or f"{seconds[0]}s"


def format_seconds(span: timedelta) -> str:
    """Step durations: whole minutes from two up as `2m`, else seconds (`60s`, `5s`), below one second `0.4s`."""
    seconds = span.total_seconds()
    if seconds >= 120 and seconds % 60 == 0:
        return f"{int(seconds // 60)}m"
    if 0 < seconds < 1:
        return f"{seconds:.1g}s"
    return f"{round(seconds)}s"
