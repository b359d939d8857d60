"""Reads what callers give for accounts and tokens; every problem is a ValidationFailed that names the field."""

from collections.abc import Callable, Collection
from datetime import timedelta

from opsapi.accounts.addresses import parse_network
from opsapi.accounts.delegation import check_pattern
from opsapi.kit.duration import format_seconds, parse_duration
from opsapi.kit.errors import ValidationFailed
from opsapi.kit.permissions import Grant

ENTRIES = 200
"""Permissions, address ranges or names in one list."""


def label(field: str, text: str, *, longest: int, empty: bool = False) -> str:
    """One line or several of printable text; control characters could forge lines in logs and terminals."""
    text = text.strip()
    if not text and not empty:
        raise ValidationFailed({field: "must not be empty"})
    if len(text) > longest:
        raise ValidationFailed({field: f"must have at most {longest} characters"})
    if not all(char.isprintable() for char in text):
        raise ValidationFailed({field: "must be printable text in one line"})
    return text


def permissions(field: str, texts: Collection[str]) -> frozenset[Grant]:
    grants: set[Grant] = set()
    _each(field, texts, lambda text: grants.add(Grant.parse(text)))
    return frozenset(grants)


def permission_names(grants: Collection[Grant]) -> list[str]:
    return sorted(str(grant) for grant in grants)


def address_ranges(field: str, texts: Collection[str]) -> list[str]:
    ranges: set[str] = set()
    _each(field, texts, lambda text: ranges.add(str(parse_network(text))))
    return sorted(ranges)


def delegates(field: str, texts: Collection[str]) -> list[str]:
    _each(field, texts, check_pattern)
    return sorted(set(texts))


def _each(field: str, texts: Collection[str], read: Callable[[str], object]) -> None:
    if len(texts) > ENTRIES:
        raise ValidationFailed({field: f"must have at most {ENTRIES} entries"})
    problems = {}
    for index, text in enumerate(texts):
        try:
            read(text)
        except ValueError as error:
            problems[f"{field}[{index}]"] = str(error)
    if problems:
        raise ValidationFailed(problems)


def span(
    field: str, text: str | None, *, usual: timedelta, longest: timedelta, shortest: timedelta = timedelta(0)
) -> timedelta:
    if text is None:
        return usual
    try:
        length = parse_duration(text)
    except ValueError as error:
        raise ValidationFailed({field: str(error)}) from None
    if not shortest <= length <= longest:
        raise ValidationFailed({field: f"must be {format_seconds(shortest)} to {longest.days}d"})
    return length
