"""For whom an account may act: exact names, `*@example.com` for everybody of a domain, `*` for anybody."""

import re
from collections.abc import Iterable

_PATTERN = re.compile(r"\*|(?:\*@)?[!-)+-~]{1,128}", re.ASCII)
"""Printable ASCII; a star stands alone or before an @."""


def check_pattern(text: str) -> None:
    """Raises ValueError for what is no pattern."""
    if _PATTERN.fullmatch(text) is None:
        raise ValueError(f"{text[:64]!r} is no name, *@domain or *")


def may_act_for(patterns: Iterable[str], name: str) -> bool:
    return any(_matches(pattern, name) for pattern in patterns)


def excess(own: Iterable[str], wanted: Iterable[str]) -> list[str]:
    """Those of `wanted` that allow somebody whom `own` does not."""
    mine = list(own)
    return [pattern for pattern in wanted if not any(_matches(outer, pattern) for outer in mine)]


def _matches(pattern: str, name: str) -> bool:
    if pattern == "*":
        return True
    if pattern.startswith("*@"):
        local, at, domain = name.rpartition("@")
        return bool(local) and at + domain == pattern[1:]
    return pattern == name
