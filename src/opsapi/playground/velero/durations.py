"""Go's durations, as Velero's specs write them."""

import re

_TERM = re.compile(r"(\d+(?:\.\d+)?)(h|m|s|ms)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def seconds(text: str | None, default: float) -> float:
    """`720h0m0s` -> 2592000.0; the default for nothing, zero and what is no duration."""
    body = (text or "").strip()
    terms = _TERM.findall(body)
    if not terms or "".join(number + unit for number, unit in terms) != body:
        return default
    return sum(float(number) * _SECONDS[unit] for number, unit in terms) or default
