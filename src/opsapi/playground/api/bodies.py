"""Request bodies: JSON, YAML and the protobuf that kubectl posts, decoded into what a handler may store."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import yaml

from opsapi.playground.api import protobuf
from opsapi.playground.kinds import Kind
from opsapi.playground.machinery.normal import DecodeError, Normalizer
from opsapi.playground.machinery.status import bad_request, failure
from opsapi.playground.registry import Obj

PROTOBUF = "application/vnd.kubernetes.protobuf"
_SHOWN = 1024
_MAX_DEPTH = 100
"""Deeper than any schema; what walks objects recursively stays far from Python's limit."""


@dataclass(frozen=True, slots=True)
class Body:
    obj: Obj
    warnings: tuple[str, ...] = ()


def media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def parse_object(raw: bytes, content_type: str, expected: str) -> Obj:
    """A JSON object from a body. Raises ApiError (400, 415)."""
    media = media_type(content_type)
    if media == PROTOBUF:
        return protobuf.decode(raw)
    if media in ("application/yaml", "text/yaml"):
        parsed = _parse_yaml(raw, expected)
    elif media in ("application/json", "", "*/*"):
        parsed = _parse_json(raw, expected)
    else:
        accepted = "application/json, application/yaml, application/vnd.kubernetes.protobuf"
        told = f"the body of the request was in an unknown format - accepted media types include: {accepted}"
        raise failure(415, "UnsupportedMediaType", told)
    check_depth(parsed)
    if not isinstance(parsed, dict):
        seen = {list: "array", str: "string", bool: "bool"}.get(type(parsed), "number")
        told = f"couldn't get version/kind; json parse error: json: cannot unmarshal {seen} into Go value of type "
        told += "struct { APIVersion string; Kind string }"
        raise bad_request(f"the object provided is unrecognized (must be of type {expected}): {told}")
    return parsed


def check_depth(parsed: Any) -> None:
    """Raises ApiError (400) on a document nested deeper than any API object is."""
    level = [parsed] if isinstance(parsed, (dict, list)) else []
    depth = 0
    while level:
        depth += 1
        if depth > _MAX_DEPTH:
            raise bad_request(f"json: exceeded max depth of {_MAX_DEPTH}")
        level = [
            inner
            for value in level
            for inner in (value.values() if isinstance(value, dict) else value)
            if isinstance(inner, (dict, list))
        ]


def _parse_json(raw: bytes, expected: str) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        shown = raw[:_SHOWN].decode("utf-8", "replace")
        told = f"couldn't get version/kind; json parse error: {go_json_error(raw)} ({shown})"
        raise bad_request(f"the object provided is unrecognized (must be of type {expected}): {told}") from error


class _PlainLoader(yaml.SafeLoader):
    """YAML without aliases, a few of which can stand for billions of nodes."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not accepted; send the document with its anchors resolved")
        return super().compose_node(parent, index)


def parse_yaml(raw: bytes) -> Any:
    """Raises yaml.YAMLError and what Python's decoders raise."""
    return yaml.load(raw, _PlainLoader)  # noqa: S506 - a SafeLoader


def _parse_yaml(raw: bytes, expected: str) -> Any:
    try:
        return parse_yaml(raw)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        told = f"error converting YAML to JSON: yaml: {str(error).splitlines()[0]}"
        raise bad_request(f"the object provided is unrecognized (must be of type {expected}): {told}") from error


def go_json_error(raw: bytes) -> str:
    """What encoding/json says of a document that does not parse."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return "invalid UTF-8 in request body"
    try:
        json.loads(text)
    except RecursionError:
        return "exceeded max depth"
    except json.JSONDecodeError as error:
        if error.pos >= len(text.rstrip()):
            return "unexpected end of JSON input"
        return f"invalid character '{text[error.pos]}' looking for beginning of value"
    return "invalid JSON"


def duplicate_fields(raw: bytes, content_type: str) -> list[str]:
    """Paths of keys that a JSON body holds twice; of them the last one counts."""
    if media_type(content_type) != "application/json":
        return []
    found: list[str] = []

    def visit(value: Any, path: str) -> None:
        if isinstance(value, _Pairs):
            seen: set[str] = set()
            for name, inner in value.items:
                where = f"{path}.{name}" if path else name
                if name in seen:
                    found.append(where)
                seen.add(name)
                visit(inner, where)
        elif isinstance(value, list):
            for index, inner in enumerate(value):
                visit(inner, f"{path}[{index}]")

    visit(json.loads(raw, object_pairs_hook=_Pairs), "")
    return found


class _Pairs:
    __slots__ = ("items",)

    def __init__(self, items: list[tuple[str, Any]]) -> None:
        self.items = items


def decode(normalizer: Normalizer, kind: Kind, parsed: Obj, validation: str, duplicates: Sequence[str] = ()) -> Body:
    """The typed object, checked against what the path names. Raises ApiError (400)."""
    check_kind(kind, parsed)
    try:
        decoded = normalizer.decode(kind, parsed)
    except DecodeError as error:
        raise bad_request(cannot_be_handled(kind, str(error))) from error
    unknown = tuple(f'unknown field "{path}"' for path in decoded.unknown)
    unknown += tuple(f'duplicate field "{path}"' for path in duplicates)
    if not unknown or validation == "Ignore":
        return Body(decoded.obj)
    if validation == "Strict":
        told = "strict decoding error: " + ", ".join(unknown)
        raise bad_request(told if kind.custom else cannot_be_handled(kind, told))
    return Body(decoded.obj, unknown)


def cannot_be_handled(kind: Kind, why: str) -> str:
    return f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: {why}'


def check_kind(kind: Kind, parsed: Obj) -> None:
    sent_kind, sent_version = parsed.get("kind"), parsed.get("apiVersion")
    meta = parsed.get("metadata")
    if meta is not None and not isinstance(meta, dict):
        raise bad_request(cannot_be_handled(kind, "json: cannot unmarshal value into Go struct field ObjectMeta"))
    if kind.custom and not (sent_kind and sent_version):
        missing = "Kind" if not sent_kind else "apiVersion"
        shown = msgspec.json.encode(parsed).decode()[:_SHOWN]
        raise bad_request(f"Object '{missing}' is missing in '{shown}'")
    if (sent_kind or kind.kind) == kind.kind and (sent_version or kind.api_version) == kind.api_version:
        return
    group, _, version = str(sent_version or kind.api_version).rpartition("/")
    if sent_kind == kind.kind and group == kind.group:
        told = (
            f"the API version in the data ({sent_version}) does not match the expected API version ({kind.api_version})"
        )
        raise bad_request(told)
    internal = kind.group.partition(".")[0] or "core"
    why = f"converting ({version}.{sent_kind}) to ({internal}.{kind.kind}): unknown conversion"
    raise bad_request(f'{sent_kind} in version "{version}" cannot be handled as a {kind.kind}: {why}')
