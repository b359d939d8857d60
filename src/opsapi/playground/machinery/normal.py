"""Reads a JSON object the way a typed decoder does: unknown fields reported and dropped, types checked, zeros omitted.

The result has its fields in the order of the API's types, so that encoded objects look like a real server's.
"""

import base64
import binascii
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from typing import Any

from opsapi.kit.clock import parse_rfc3339
from opsapi.kit.quantity import parse_quantity
from opsapi.playground.kinds import Kind, KindTable
from opsapi.playground.machinery import schema
from opsapi.playground.machinery.schema import Field, Struct, Type
from opsapi.playground.machinery.status import bad_request
from opsapi.playground.registry import Obj

QUANTITY_RULE = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
_NOTHING: Obj = {}
_INTEGERS = {"int32": 2**31, "int64": 2**63}
_ZEROS: dict[str, Any] = {
    "string": "",
    "int32": 0,
    "int64": 0,
    "bool": False,
    "float64": 0,
    "bytes": None,
    "Quantity": "0",
    "Time": None,
    "MicroTime": None,
    "IntOrString": 0,
}


class DecodeError(ValueError):
    """A body whose types do not fit; the message is what a Go decoder says."""


@dataclass(slots=True)
class Decoded:
    obj: Obj
    unknown: list[str] = field(default_factory=list)
    """Paths of fields that the kind does not have, as `spec.containers[0].nosuch`."""


class Normalizer:
    """Normalizes objects of any kind of one cluster. CRDs' structs are added as they are registered."""

    def __init__(self, kinds: KindTable) -> None:
        self._kinds = kinds
        self._custom: dict[tuple[str, str, str], Struct] = {}

    def add_custom(self, group: str, version: str, plural: str, struct: Struct) -> None:
        self._custom[group, version, plural] = struct

    def drop_custom(self, group: str, plural: str) -> None:
        for key in [key for key in self._custom if key[0] == group and key[2] == plural]:
            del self._custom[key]

    def schema_of(self, kind: Kind) -> Struct | None:
        if kind.custom:
            return self._custom.get((kind.group, kind.version, kind.plural))
        return schema.built_in(kind)

    def normalize(self, kind: Kind, obj: Obj, old: Obj | None = None) -> Obj:
        """`obj` as the kind's types see it; sub-trees equal to `old`'s are shared with it. Raises ApiError (400)."""
        try:
            made = self.decode(kind, obj, old).obj
        except DecodeError as error:
            raise bad_request(
                f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: {error}'
            ) from error
        return made

    def decode(self, kind: Kind, obj: Obj, old: Obj | None = None) -> Decoded:
        """Raises DecodeError."""
        decoded = Decoded({"kind": kind.kind, "apiVersion": kind.api_version})
        struct = self.schema_of(kind)
        walk = _Walk(decoded.unknown)
        if struct is None:
            decoded.obj.update(walk.without_schema(obj, kind))
        else:
            decoded.obj.update(walk.root(struct, obj, old or {}))
        decoded.obj.setdefault("metadata", {})
        return decoded


class _Walk:
    def __init__(self, unknown: list[str]) -> None:
        self._unknown = unknown

    def root(self, struct: Struct, obj: Obj, old: Obj) -> Obj:
        made: Obj = {}
        fields = struct.fields
        names = sorted(obj) if struct.sorted_fields else sorted(obj, key=lambda name: _rank(fields, name))
        for name in names:
            value = obj[name]
            if name in ("kind", "apiVersion"):
                continue
            known = fields.get(name)
            if known is None:
                if struct.preserve_unknown:
                    made[name] = value
                else:
                    self._unknown.append(name)
                continue
            if value is old.get(name) and value is not None:
                made[name] = value
                continue
            self._put(made, known, value, name, struct, old.get(name))
            if name in made and made[name] == old.get(name):
                made[name] = old[name]
        return _filled(struct, made)

    def without_schema(self, obj: Obj, kind: Kind) -> Obj:
        """Only the metadata is typed; spec and status have to be objects."""
        made = {key: value for key, value in obj.items() if key not in ("kind", "apiVersion", "metadata")}
        for name in ("spec", "status"):
            if made.get(name) is None:
                made.pop(name, None)
            elif not isinstance(made[name], dict):
                raise DecodeError(_mismatch(made[name], kind.kind, name, f"{kind.version}.{kind.kind}{name.title()}"))
        return {"metadata": self.struct(schema.object_meta(), obj.get("metadata") or {}, "metadata", kind.kind), **made}

    def struct(self, struct: Struct, value: Any, path: str, owner: str, old: Any = None) -> Obj:
        """`old` is this mapping before the change: what is still the very same object there needs no second look."""
        if not isinstance(value, dict):
            raise DecodeError(_mismatch(value, owner, path, struct.name.rpartition("/")[2]))
        fields = struct.fields
        before = old if isinstance(old, dict) else _NOTHING
        made: Obj = {}
        for name in value if len(value) < 2 else sorted(value, key=lambda key: _rank(fields, key)):
            known = fields.get(name)
            if known is None:
                if struct.preserve_unknown:
                    made[name] = value[name]
                else:
                    self._unknown.append(f"{path}.{name}")
                continue
            if value[name] is not None and value[name] is before.get(name):
                made[name] = value[name]
                continue
            self._put(made, known, value[name], f"{path}.{name}", struct, before.get(name))
        return _filled(struct, made) if struct.emitted else made

    def _put(self, made: Obj, known: Field, value: Any, path: str, struct: Struct, old: Any) -> None:
        if value is None:
            return
        result = self.value(known.type, value, path, struct, old)
        form = known.type.form
        if not known.pointer and not known.emitted and not struct.preserve_unknown and not struct.sorted_fields:
            if form in ("list", "map") and not result:
                return
            if form == "scalar" and result == _ZEROS[known.type.scalar] and known.type.scalar != "IntOrString":
                return
        if result is None:
            return
        made[known.name] = result

    def value(self, kind: Type, value: Any, path: str, owner: Struct, old: Any = None) -> Any:
        form = kind.form
        if form == "scalar":
            return self._scalar(kind.scalar, value, path, owner)
        if form == "struct":
            assert kind.struct is not None
            if kind.struct.sorted_fields and not isinstance(value, dict):
                return value
            return self.struct(kind.struct, value, path, _short(owner), old)
        if form == "list":
            assert kind.element is not None
            if not isinstance(value, list):
                if kind.scalar == "lenient":
                    return value
                raise DecodeError(_mismatch(value, _short(owner), path, f"[]{_go_name(kind.element)}"))
            element = kind.element
            if element.form == "scalar" and element.scalar == "string" and all(type(one) is str for one in value):
                return value
            return [self.value(element, one, f"{path}[{index}]", owner) for index, one in enumerate(value)]
        if form == "map":
            assert kind.element is not None
            if not isinstance(value, dict):
                if kind.scalar == "lenient":
                    return value
                raise DecodeError(_mismatch(value, _short(owner), path, f"map[string]{_go_name(kind.element)}"))
            element = kind.element
            if element.form == "scalar" and element.scalar == "string" and all(type(v) is str for v in value.values()):
                return value
            return {
                key: self.value(element, one, f"{path}.{key}", owner) for key, one in value.items() if one is not None
            } | ({key: "" for key, one in value.items() if one is None} if element.scalar == "string" else {})
        return value

    def _scalar(self, name: str, value: Any, path: str, owner: Struct) -> Any:
        if name in _INTEGERS:
            return _integer(name, value, path, owner)
        if name == "Quantity":
            return canonical_quantity(_quantity_text(value))
        if name in ("Time", "MicroTime"):
            if not isinstance(value, str):
                raise DecodeError(f"json: cannot unmarshal {_json_kind(value)} into Go value of type string")
            return _time(name, value)
        allowed = _PYTHON_TYPES[name]
        if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
            raise DecodeError(_mismatch(value, _short(owner), path, _GO_SCALARS.get(name, name)))
        return _base64(str(value)) if name == "bytes" else value


_PYTHON_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "bytes": (str,),
    "bool": (bool,),
    "IntOrString": (int, str),
    "float64": (int, float),
}
_GO_SCALARS = {"bytes": "[]uint8", "IntOrString": "intstr.IntOrString"}


def _rank(fields: dict[str, Field], name: str) -> int:
    known = fields.get(name)
    return 1 << 20 if known is None else known.index


def _filled(struct: Struct, made: Obj) -> Obj:
    """`made` with the fields that a Go encoder writes even when nobody set them, in their places."""
    missing = [one for one in struct.emitted if one.name not in made]
    if not missing:
        return made
    for one in missing:
        made[one.name] = zero(one)
    return {name: made[name] for name in sorted(made, key=lambda key: _rank(struct.fields, key))}


def zero(one: Field) -> Any:
    if one.pointer or one.type.form in ("list", "map", "raw"):
        return None
    if one.type.form == "struct":
        assert one.type.struct is not None
        return _filled(one.type.struct, {})
    return _ZEROS[one.type.scalar]


def _short(struct: Struct) -> str:
    return struct.name.rpartition(".")[2]


def _go_name(kind: Type) -> str:
    if kind.form == "struct":
        assert kind.struct is not None
        return kind.struct.name.rpartition("/")[2]
    return kind.scalar or "interface {}"


def _mismatch(value: Any, owner: str, path: str, wanted: str) -> str:
    seen = _json_kind(value)
    plain = "".join(part.split("[")[0] if "[" in part else part for part in _dotted(path))
    return f"json: cannot unmarshal {seen} into Go struct field {owner}.{plain} of type {wanted}"


def _json_kind(value: Any) -> str:
    seen = {dict: "object", list: "array", str: "string", bool: "bool"}.get(type(value))
    if seen is None:
        return f"number {value}" if isinstance(value, float) else "number"
    return seen


def _dotted(path: str) -> list[str]:
    parts: list[str] = []
    for index, part in enumerate(path.split(".")):
        parts.append(part if index == 0 else f".{part.split('[')[0]}")
    return parts


def _integer(name: str, value: Any, path: str, owner: Struct) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise DecodeError(_mismatch(value, _short(owner), path, name))
    bound = _INTEGERS[name]
    if not -bound <= value < bound:
        raise DecodeError(_mismatch(float(value), _short(owner), path, name).replace(f"{float(value)}", str(value)))
    return value


def _quantity_text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise DecodeError(QUANTITY_RULE)
    return str(value)


@lru_cache(maxsize=8192)
def canonical_quantity(text: str) -> str:
    """`0.5` -> `500m`, `1024Mi` -> `1Gi`, as Quantity.String() does. Raises DecodeError."""
    try:
        amount = parse_quantity(text)
    except ValueError as error:
        raise DecodeError(QUANTITY_RULE) from error
    if amount == 0:
        return "0"
    if text.endswith("i") and abs(amount) >= 1024:
        return _with_suffix(amount, 1024, ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 0)
    if "e" in text or (text[-1] != "E" and "E" in text and not text.endswith("Ei")):
        return _exponent(amount)
    return _with_suffix(amount, 1000, ("n", "u", "m", "", "k", "M", "G", "T", "P", "E"), 3)


def _with_suffix(amount: Decimal, base: int, suffixes: tuple[str, ...], unit: int) -> str:
    scaled = amount * Decimal(base) ** unit
    whole = int(scaled.to_integral_value("ROUND_CEILING"))
    step = 0
    while step + 1 < len(suffixes) and whole % base == 0:
        whole //= base
        step += 1
    return f"{whole}{suffixes[step]}"


def _exponent(amount: Decimal) -> str:
    _, digits, exponent = amount.normalize().as_tuple()
    assert isinstance(exponent, int)
    shift = exponent - exponent % 3
    whole = int("".join(map(str, digits))) * 10 ** (exponent - shift)
    sign = "-" if amount < 0 else ""
    return f"{sign}{whole}e{shift}" if shift else f"{sign}{whole}"


@lru_cache(maxsize=1024)
def _time(name: str, value: str) -> str | None:
    if value == "" and name == "Time":
        return None
    try:
        moment = parse_rfc3339(value)
    except ValueError as error:
        raise DecodeError(
            f'parsing time "{value}" as "2006-01-02T15:04:05Z07:00": cannot parse "{value}" as "2006"'
        ) from error
    if name == "MicroTime":
        return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _base64(value: str) -> str:
    try:
        base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DecodeError(f"illegal base64 data at input byte {_bad_byte(value)}") from error
    return value


def _bad_byte(value: str) -> int:
    alphabet = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
    return next((index for index, letter in enumerate(value) if letter not in alphabet), len(value))
