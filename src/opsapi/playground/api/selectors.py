"""labelSelector and fieldSelector query parameters."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from opsapi.playground.kinds import Kind
from opsapi.playground.machinery import names
from opsapi.playground.machinery.status import bad_request, quoted
from opsapi.playground.registry import Obj

_TOKEN = re.compile(r"\s*(?:(!=|==|=|!|<|>|\(|\)|,)|([^\s!=<>(),]+))")
_WORDS = ("in", "notin")


class SelectorError(ValueError):
    """A selector that does not parse; the message is the API server's."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """One term of a label selector; `operator` is in, notin, exists, !, gt or lt."""

    key: str
    operator: str
    values: frozenset[str]

    def matches(self, labels: dict[str, str]) -> bool:
        value = labels.get(self.key)
        if self.operator == "in":
            return value in self.values
        if self.operator == "notin":
            return value not in self.values
        if self.operator == "exists":
            return value is not None
        if self.operator == "!":
            return value is None
        if value is None or not re.fullmatch(r"[+-]?\d+", value):
            return False
        bound = int(next(iter(self.values)))
        return int(value) > bound if self.operator == "gt" else int(value) < bound


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = _lex(text)
        self._at = 0

    def parse(self) -> list[Requirement]:
        found: list[Requirement] = []
        if not self._peek():
            return found
        while True:
            found.append(self._requirement())
            after = self._next()
            if not after:
                return found
            if after != ",":
                raise SelectorError(f"found '{after}', expected: ',' or 'end of string'")
            if not self._peek() or self._peek() == ",":
                raise SelectorError(f"found '{self._peek()}', expected: identifier after ','")

    def _requirement(self) -> Requirement:
        absent = self._peek() == "!"
        if absent:
            self._next()
        key = self._next()
        if not key or key in ("(", ")", ",", "=", "==", "!=", "<", ">"):
            raise SelectorError(f"found '{key}', expected: !, identifier, or 'end of string'")
        _check_key(key)
        if absent:
            return Requirement(key, "!", frozenset())
        operator = self._peek()
        if operator in ("", ","):
            return Requirement(key, "exists", frozenset())
        self._next()
        if operator in _WORDS:
            return Requirement(key, operator, self._values())
        if operator in ("=", "==", "!="):
            return Requirement(key, "notin" if operator == "!=" else "in", self._exact())
        if operator in (">", "<"):
            return self._comparison(key, operator)
        raise SelectorError(f"found '{operator}', expected: in, notin, =, ==, !=, gt, lt")

    def _comparison(self, key: str, operator: str) -> Requirement:
        value = self._next()
        if not re.fullmatch(r"[+-]?\d+", value):
            what = "for 'Gt', 'Lt' operators, the value must be an integer"
            raise SelectorError(f"values[0][{key}]: Invalid value: {quoted(value)}: {what}")
        return Requirement(key, "gt" if operator == ">" else "lt", frozenset((value,)))

    def _exact(self) -> frozenset[str]:
        if self._peek() in ("", ","):
            return frozenset(("",))
        value = self._next()
        if value in ("(", ")", "=", "==", "!=", "!", "<", ">"):
            raise SelectorError(f"found '{value}', expected: identifier")
        _check_value(value)
        return frozenset((value,))

    def _values(self) -> frozenset[str]:
        opening = self._next()
        if opening != "(":
            raise SelectorError(f"found '{opening}' expected: '('")
        found: set[str] = set()
        if self._peek() == ")":
            self._next()
            return frozenset(("",))
        while True:
            value = self._next()
            if value == ",":
                found.add("")
                continue
            if value == ")":
                found.add("")
                return frozenset(found)
            if not value:
                raise SelectorError(f"found '{value}', expected: ',', ')' or identifier")
            _check_value(value)
            found.add(value)
            after = self._next()
            if after == ")":
                return frozenset(found)
            if after != ",":
                raise SelectorError(f"found '{after}', expected: ',' or ')'")

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _next(self) -> str:
        token = self._peek()
        self._at += 1
        return token


def _lex(text: str) -> list[str]:
    tokens: list[str] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            break
        tokens.append(match.group(1) or match.group(2))
        at = match.end()
    return tokens


def _check_key(key: str) -> None:
    problems = names.qualified(key)
    if problems:
        raise SelectorError(f"key: Invalid value: {quoted(key)}: {'; '.join(problems)}")


def _check_value(value: str) -> None:
    problems = names.label_value(value)
    if problems:
        raise SelectorError(f"values[0]: Invalid value: {quoted(value)}: {'; '.join(problems)}")


def parse_labels(text: str) -> list[Requirement]:
    """Raises ApiError (400)."""
    try:
        return _Parser(text).parse()
    except SelectorError as error:
        raise bad_request(f"unable to parse requirement: {error}") from error


Predicate = Callable[[Obj], bool]


def label_predicate(text: str) -> Predicate | None:
    requirements = parse_labels(text)
    if not requirements:
        return None

    def matches(obj: Obj) -> bool:
        labels = obj["metadata"].get("labels") or {}
        return all(one.matches(labels) for one in requirements)

    return matches


_METADATA = ("metadata.name", "metadata.namespace")
_INVOLVED = tuple(
    f"involvedObject.{name}"
    for name in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
)
_EVENT_FIELDS = (*_INVOLVED, "reason", "reportingComponent", "source", "type")
_FIELDS: dict[str, tuple[str, ...]] = {
    "pods": (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.podIPs",
        "status.nominatedNodeName",
    ),
    "nodes": ("spec.unschedulable",),
    "namespaces": ("status.phase", "name"),
    "events": _EVENT_FIELDS,
    "secrets": ("type",),
    "services": ("spec.clusterIP", "spec.type"),
    "replicationcontrollers": ("status.replicas",),
    "replicasets.apps": ("status.replicas",),
    "jobs.batch": ("status.successful",),
    "certificatesigningrequests.certificates.k8s.io": ("spec.signerName",),
    "resourceslices.resource.k8s.io": ("spec.nodeName", "spec.driver"),
}


@dataclass(frozen=True, slots=True)
class FieldTerm:
    field: str
    value: str
    negated: bool


def parse_fields(kind: Kind, text: str) -> list[FieldTerm]:
    """Raises ApiError (400) on what does not parse and on fields that the kind does not select by."""
    terms: list[FieldTerm] = []
    for part in filter(None, re.split(r"(?<!\\),", text)):
        for operator in ("!=", "==", "="):
            field, found, value = part.partition(operator)
            if found:
                break
        else:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{part}'")
        _check_field(kind, field)
        plain = re.sub(r"\\([\\,=])", r"\1", value)
        terms.append(FieldTerm(field, plain, operator == "!="))
    return terms


def _check_field(kind: Kind, field: str) -> None:
    if field in _METADATA:
        return
    known = _FIELDS.get(kind.resource)
    if known is None:
        raise bad_request(f'"{field}" is not a known field selector: only "metadata.name", "metadata.namespace"')
    if field not in known:
        raise bad_request(f"field label not supported: {field}")


def field_predicate(kind: Kind, terms: list[FieldTerm]) -> Predicate | None:
    if not terms:
        return None
    readers = [(_reader(kind, term.field), term.value, term.negated) for term in terms]

    def matches(obj: Obj) -> bool:
        return all((read(obj) == value) is not negated for read, value, negated in readers)

    return matches


def _reader(kind: Kind, field: str) -> Callable[[Obj], str]:
    if kind.resource == "events" and field == "source":
        return lambda obj: _text((obj.get("source") or {}).get("component") or obj.get("reportingComponent"))
    if kind.resource == "jobs.batch":
        return lambda obj: _text((obj.get("status") or {}).get("succeeded", 0))
    if field == "name":
        return lambda obj: _text(obj["metadata"]["name"])
    if field == "spec.unschedulable" or field == "spec.hostNetwork":
        name = field.partition(".")[2]
        return lambda obj: "true" if (obj.get("spec") or {}).get(name) else "false"
    path = field.split(".")

    def read(obj: Obj) -> str:
        value: Any = obj
        for part in path:
            value = value.get(part) if isinstance(value, dict) else None
        return _text(value)

    return read


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
