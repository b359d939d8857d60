"""Kubernetes' resource.Quantity: exact parsing and the canonical forms the API writes.

Grammar: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

import re
from decimal import ROUND_CEILING, ROUND_HALF_UP, Decimal
from functools import lru_cache

_QUANTITY = re.compile(
    r"([+-]?(?:\d+(?:\.\d*)?|\.\d+))(Ki|Mi|Gi|Ti|Pi|Ei|n|u|m|k|M|G|T|P|E|[eE][+-]?\d{1,3})?", re.ASCII
)
_SCALE = {
    "": Decimal(1),
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "k": Decimal("1e3"),
    "M": Decimal("1e6"),
    "G": Decimal("1e9"),
    "T": Decimal("1e12"),
    "P": Decimal("1e15"),
    "E": Decimal("1e18"),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
    "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}
_BINARY = ("Ei", "Pi", "Ti", "Gi", "Mi", "Ki")


@lru_cache(maxsize=4096)
def parse_quantity(text: str) -> Decimal:
    """`"250m"` -> 0.25, `"1Gi"` -> 1073741824, in base units (cores, bytes, pieces). Raises ValueError."""
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError(f"not a quantity: {text!r}")
    number, suffix = match.group(1), match.group(2) or ""
    if suffix[:1] in ("e", "E") and suffix not in ("E", "Ei"):
        return Decimal(number + suffix)
    return Decimal(number) * _SCALE[suffix]


def millicores(text: str) -> int:
    """A CPU quantity in whole millicores, rounded up as Kubernetes' MilliValue does."""
    return int((parse_quantity(text) * 1000).to_integral_value(ROUND_CEILING))


def whole(text: str) -> int:
    """A quantity in whole base units (bytes, pods), rounded up as Kubernetes' Value does."""
    return int(parse_quantity(text).to_integral_value(ROUND_CEILING))


def format_cpu(millis: int) -> str:
    """Cores as the specification writes them: 8500 -> `"8.5"`, 16000 -> `"16"`, 3800 -> `"3.8"`."""
    return format(Decimal(millis).scaleb(-3).normalize(), "f")


def format_cpu_quantity(millis: int) -> str:
    """The canonical quantity: 8500 -> `"8500m"`, 16000 -> `"16"`."""
    return str(millis // 1000) if millis % 1000 == 0 else f"{millis}m"


def format_bytes(count: int, places: int = 1) -> str:
    """The largest binary unit that keeps the value at 1 or above, to `places` decimals: 15569256448 -> `"14.5Gi"`."""
    for suffix in _BINARY:
        unit = int(_SCALE[suffix])
        if abs(count) >= unit:
            rounded = (Decimal(count) / unit).quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP)
            return format(rounded.normalize(), "f") + suffix
    return str(count)


def percentage(part: float, total: float) -> float | None:
    """`part` of `total` in percent to one decimal, halves up (8.5 of 16 -> 53.1); None where total is 0 or less."""
    if total <= 0:
        return None
    return float((Decimal(str(part)) * 100 / Decimal(str(total))).quantize(Decimal("0.1"), ROUND_HALF_UP))
