"""The fields of every built-in kind: names, types, list keys, merge keys and protobuf numbers.

Read from schema.txt, whose format tools/generate_playground_schema.py describes. CustomResourceDefinitions are turned
into the same structures (see custom.py), so that pruning, field ownership and merging know only one model.
"""

from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec

from opsapi.playground.kinds import Kind

SCALARS = frozenset(
    {"string", "int32", "int64", "bool", "float64", "bytes", "Quantity", "Time", "MicroTime", "IntOrString"}
)


@dataclass(frozen=True, slots=True)
class Type:
    """`form` is scalar, raw, struct, list or map. `keys` are a list's map keys; () makes it atomic unless `is_set`."""

    form: str
    scalar: str = ""
    struct: "Struct | None" = field(default=None, compare=False)
    element: "Type | None" = None
    keys: tuple[str, ...] = ()
    is_set: bool = False
    atomic: bool = False


@dataclass(slots=True)
class Field:
    name: str
    index: int
    number: int
    type: Type
    pointer: bool = False
    emitted: bool = False
    patch: str = ""
    merge_key: str = ""
    default: Any = None
    inline: bool = False


@dataclass(slots=True, eq=False)
class Struct:
    """`fields` are as JSON sees them, inlined ones flattened; `wire` are as protobuf does."""

    name: str
    atomic: bool = False
    fields: dict[str, Field] = field(default_factory=dict)
    wire: dict[int, Field] = field(default_factory=dict)
    emitted: tuple[Field, ...] = ()
    preserve_unknown: bool = False
    sorted_fields: bool = False
    """Custom resources keep no order of their own: JSON has their keys sorted."""


RAW = Type("raw")
_scalar_types = {name: Type("scalar", scalar=name) for name in SCALARS}


def scalar(name: str) -> Type:
    return _scalar_types[name]


class _Reader:
    def __init__(self, text: str) -> None:
        self.structs: dict[str, Struct] = {}
        self._lines: dict[str, list[str]] = {}
        current: list[str] = []
        for line in text.splitlines():
            if line.startswith("["):
                name, _, flags = line[1:].partition("]")
                self.structs[name] = Struct(name, atomic="atomic" in flags)
                current = self._lines[name] = []
            else:
                current.append(line)
        for name, struct in self.structs.items():
            struct.wire = {made.number: made for made in map(self._field, self._lines[name])}
        for struct in self.structs.values():
            struct.fields = {one.name: one for one in self._flattened(struct)}
            for index, one in enumerate(struct.fields.values()):
                one.index = index
            struct.emitted = tuple(one for one in struct.fields.values() if one.emitted)

    def _flattened(self, struct: Struct) -> list[Field]:
        found: list[Field] = []
        for one in struct.wire.values():
            if one.inline:
                assert one.type.struct is not None
                found.extend(self._copy(inner) for inner in self._flattened(one.type.struct))
            else:
                found.append(one)
        return found

    @staticmethod
    def _copy(one: Field) -> Field:
        return Field(one.name, 0, one.number, one.type, one.pointer, one.emitted, one.patch, one.merge_key, one.default)

    def _field(self, line: str) -> Field:
        name, number, type_name, *flags = line.split(" ")
        made = Field(name.removeprefix("~"), 0, int(number), RAW, inline=name.startswith("~"))
        keys: tuple[str, ...] = ()
        is_set = atomic = False
        for flag in flags:
            key, _, value = flag.partition("=")
            if key == "p":
                made.pointer = True
            elif key == "e":
                made.emitted = True
            elif key == "map":
                keys = tuple(value.split(","))
            elif key == "set":
                is_set = True
            elif key == "atomic":
                atomic = True
            elif key == "patch":
                made.patch, _, made.merge_key = value.partition(":")
            elif key == "default":
                made.default = msgspec.json.decode(value)
        made.type = self._type(type_name, keys, is_set, atomic)
        return made

    def _type(self, name: str, keys: tuple[str, ...] = (), is_set: bool = False, atomic: bool = False) -> Type:
        if name.startswith("[]"):
            return Type("list", element=self._type(name[2:]), keys=keys, is_set=is_set)
        if name.startswith("{}"):
            return Type("map", element=self._type(name[2:]), atomic=atomic)
        if name == "Raw":
            return RAW
        if name in SCALARS:
            return scalar(name)
        struct = self.structs[name]
        return Type("struct", struct=struct, atomic=atomic or struct.atomic)


@cache
def structs() -> dict[str, Struct]:
    """Every struct by `package.Name`, as in `apps/v1.DeploymentSpec`."""
    text = files("opsapi.playground.machinery").joinpath("schema.txt").read_text(encoding="utf-8")
    return _Reader(text).structs


_PACKAGES = {
    "": "core",
    "rbac.authorization.k8s.io": "rbac",
    "events.k8s.io": "events",
    "networking.k8s.io": "networking",
    "storage.k8s.io": "storage",
    "authentication.k8s.io": "authentication",
    "authorization.k8s.io": "authorization",
    "certificates.k8s.io": "certificates",
    "admissionregistration.k8s.io": "admissionregistration",
    "apiextensions.k8s.io": "apiextensions",
    "scheduling.k8s.io": "scheduling",
    "coordination.k8s.io": "coordination",
    "node.k8s.io": "node",
    "discovery.k8s.io": "discovery",
    "resource.k8s.io": "resource",
    "flowcontrol.apiserver.k8s.io": "flowcontrol",
}


def struct_named(group: str, version: str, kind: str) -> Struct | None:
    """The root struct of a built-in kind; None for those that have no schema here."""
    return structs().get(f"{_PACKAGES.get(group, group)}/{version}.{kind}")


def built_in(kind: Kind) -> Struct | None:
    return struct_named(kind.group, kind.version, kind.kind)


def object_meta() -> Struct:
    return structs()["meta/v1.ObjectMeta"]
