"""A small decoder for Kubernetes' protobuf bodies, driven by the field numbers in schema.txt.

kubectl posts protobuf for `create`, `autoscale`, `auth can-i` and the like; answers go out as JSON, which it accepts.
The envelope is `k8s\\0` and runtime.Unknown (TypeMeta = 1, raw = 2).
"""

import base64
import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec

from opsapi.playground.machinery import schema
from opsapi.playground.machinery.schema import Field, Struct, Type
from opsapi.playground.machinery.status import bad_request, unsupported_media_type
from opsapi.playground.registry import Obj

_MAGIC = b"k8s\x00"
_META_KINDS = ("DeleteOptions", "Status")
_SIGNED = {"int32", "int64"}


class _Malformed(ValueError):
    pass


def decode(raw: bytes) -> Obj:
    """Raises ApiError: 400 for what is no such body, 415 for kinds whose fields are not known here."""
    if not raw.startswith(_MAGIC):
        raise bad_request("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")
    try:
        return _envelope(raw[len(_MAGIC) :])
    except (_Malformed, IndexError, UnicodeDecodeError, struct.error) as error:
        raise bad_request(f"proto: illegal body: {error}") from error


def _envelope(raw: bytes) -> Obj:
    api_version = kind = ""
    content = b""
    for number, value in fields(raw):
        if number == 1:
            for inner, text in fields(_bytes(value)):
                if inner == 1:
                    api_version = _bytes(text).decode()
                elif inner == 2:
                    kind = _bytes(text).decode()
        elif number == 2:
            content = _bytes(value)
    found = _struct(api_version, kind)
    if found is None:
        raise unsupported_media_type("application/json, application/yaml")
    return {"kind": kind, "apiVersion": api_version, **message(found, content)}


def _struct(api_version: str, kind: str) -> Struct | None:
    if kind in _META_KINDS:
        return schema.structs()[f"meta/v1.{kind}"]
    group, _, version = api_version.rpartition("/")
    return schema.struct_named(group, version, kind)


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise _Malformed("varint too long")


def fields(raw: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, varint or bytes) of one message. Raises ValueError, IndexError."""
    at = 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        number, wire = tag >> 3, tag & 7
        value: int | bytes
        if wire == 0:
            value, at = _varint(raw, at)
        elif wire == 2:
            size, at = _varint(raw, at)
            if at + size > len(raw):
                raise _Malformed("unexpected EOF")
            value = raw[at : at + size]
            at += size
        elif wire in (1, 5):
            width = 8 if wire == 1 else 4
            value = raw[at : at + width]
            at += width
        else:
            raise _Malformed(f"wrong wireType {wire}")
        yield number, value


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise _Malformed("wrong wireType 0")
    return value


def message(found: Struct, raw: bytes) -> Obj:
    """One message as JSON. Raises ValueError, IndexError."""
    made: Obj = {}
    for number, value in fields(raw):
        known = found.wire.get(number)
        if known is None:
            continue
        if known.inline:
            assert known.type.struct is not None
            made.update(message(known.type.struct, _bytes(value)))
            continue
        _store(made, known, value)
    return made


def _store(made: Obj, known: Field, value: int | bytes) -> None:
    kind = known.type
    if kind.form == "list":
        assert kind.element is not None
        held = made.setdefault(known.name, [])
        if kind.element.scalar in _SIGNED and isinstance(value, bytes):
            at = 0
            while at < len(value):
                one, at = _varint(value, at)
                held.append(_signed(one))
            return
        held.append(_value(kind.element, value))
    elif kind.form == "map":
        assert kind.element is not None
        key, content = _entry(kind.element, _bytes(value))
        made.setdefault(known.name, {})[key] = content
    else:
        result = _value(kind, value)
        if result is not None:
            made[known.name] = result


def _entry(element: Type, raw: bytes) -> tuple[str, Any]:
    key, content = "", b""
    for number, value in fields(raw):
        if number == 1:
            key = _bytes(value).decode()
        elif number == 2:
            content = _bytes(value)
    return key, _value(element, content)


def _value(kind: Type, value: int | bytes) -> Any:
    if kind.form == "struct":
        assert kind.struct is not None
        return message(kind.struct, _bytes(value))
    if kind.form == "raw":
        return _raw(_bytes(value))
    if kind.form == "list":
        assert kind.element is not None
        return [_value(kind.element, one) for _, one in fields(_bytes(value))]
    name = kind.scalar
    if name == "string":
        return _bytes(value).decode()
    if name in _SIGNED:
        return _signed(_int(value))
    if name == "bool":
        return bool(_int(value))
    if name == "bytes":
        return base64.b64encode(_bytes(value)).decode()
    if name == "float64":
        return struct.unpack("<d", _bytes(value))[0]
    return _special(name, _bytes(value))


def _special(name: str, raw: bytes) -> Any:
    held = dict(fields(raw))
    if name == "Quantity":
        return _bytes(held.get(1, b"0")).decode()
    if name == "IntOrString":
        return _bytes(held.get(3, b"")).decode() if held.get(1) == 1 else _signed(_int(held.get(2, 0)))
    if not held:
        return None
    seconds = _signed(_int(held.get(1, 0)))
    moment = datetime.fromtimestamp(seconds, UTC)
    if name == "MicroTime":
        moment = moment.replace(microsecond=_int(held.get(2, 0)) // 1000)
        return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _raw(raw: bytes) -> Any:
    """RawExtension, FieldsV1 and JSON: their bytes are field 1, and are JSON."""
    for number, value in fields(raw):
        if number == 1:
            return msgspec.json.decode(_bytes(value)) if value else None
    return None


def _int(value: int | bytes) -> int:
    if isinstance(value, bytes):
        raise _Malformed("wrong wireType 2")
    return value


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
