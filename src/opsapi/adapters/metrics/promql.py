"""PromQL, built so that no text of a tenant can leave its quotes."""

from collections.abc import Iterable, Mapping
from datetime import timedelta

import msgspec

_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n"}


def quoted(text: str) -> str:
    """A PromQL string literal in double quotes, whose escapes are Go's. Whatever is not printable is written as a code
    point; a lone surrogate, which no encoding has, as the replacement character."""
    return '"' + "".join(_escaped(one) for one in text) + '"'


def _escaped(one: str) -> str:
    if one in _ESCAPES:
        return _ESCAPES[one]
    if one.isprintable():
        return one
    point = ord(one)
    if 0xD800 <= point <= 0xDFFF:
        point = 0xFFFD
    return f"\\U{point:08x}"


class Matcher(msgspec.Struct, frozen=True):
    """`operator`: `=`, `!=`, `=~` or `!~`. Regular expressions match whole values. `label` is a configured name."""

    label: str
    operator: str
    value: str

    def __str__(self) -> str:
        return f"{self.label}{self.operator}{quoted(self.value)}"


def selector(metric: str, matchers: Iterable[Matcher]) -> str:
    return f"{metric}{{{','.join(map(str, matchers))}}}"


def equal(labels: Mapping[str, str]) -> tuple[Matcher, ...]:
    return tuple(Matcher(label, "=", value) for label, value in labels.items())


def duration(span: timedelta) -> str:
    """Whole milliseconds, at least one second: `90000ms`."""
    return f"{max(1000, round(span / timedelta(milliseconds=1)))}ms"
