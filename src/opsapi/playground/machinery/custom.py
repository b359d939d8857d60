"""CustomResourceDefinitions: kinds that are registered at run time, their schemas, defaults and validation."""

import re
from typing import TYPE_CHECKING, Any

from opsapi.playground.kinds import ALL_VERBS, Column, Kind, ScalePaths, Subresource
from opsapi.playground.machinery import schema
from opsapi.playground.machinery.schema import RAW, Field, Struct, Type
from opsapi.playground.machinery.status import Cause, invalid_value, not_supported, required
from opsapi.playground.registry import Obj

if TYPE_CHECKING:
    from opsapi.playground.machinery.registry import ObjectRegistry

DEFINITIONS = "customresourcedefinitions.apiextensions.k8s.io"
_CRD_VERBS = ("delete", "deletecollection", "get", "list", "patch", "create", "update", "watch")
assert sorted(_CRD_VERBS) == sorted(ALL_VERBS)


class CustomResources:
    """Keeps the kind table and the normalizer's schemas in step with the stored definitions."""

    def __init__(self, registry: "ObjectRegistry") -> None:
        self._registry = registry
        self._schemas: dict[tuple[str, str, str], Obj] = {}
        self._known: dict[str, Obj] = {}

    def register(self, definition: Obj) -> None:
        spec = definition["spec"]
        name = definition["metadata"]["name"]
        if self._known.get(name) == spec:
            return
        if name in self._known:
            self._forget(self._known[name])
        self._known[name] = spec
        versions = [one for one in spec.get("versions") or [] if one.get("served")]
        stored = next(one["name"] for one in spec["versions"] if one.get("storage"))
        for version in versions:
            kind = _kind(spec, version, stored)
            document = (version.get("schema") or {}).get("openAPIV3Schema") or {}
            self._schemas[kind.group, kind.version, kind.plural] = document
            self._registry.normalizer.add_custom(kind.group, kind.version, kind.plural, root_struct(kind, document))
            self._registry.kinds.add(kind)

    def unregister(self, definition: Obj) -> None:
        spec = self._known.pop(definition["metadata"]["name"], None)
        if spec is not None:
            self._forget(spec)

    def _forget(self, spec: Obj) -> None:
        group, plural = spec["group"], spec["names"]["plural"]
        self._registry.kinds.remove(group, plural)
        self._registry.normalizer.drop_custom(group, plural)
        for key in [key for key in self._schemas if key[0] == group and key[2] == plural]:
            del self._schemas[key]

    def schema(self, kind: Kind) -> Obj:
        """The version's openAPIV3Schema."""
        return self._schemas.get((kind.group, kind.version, kind.plural), {})

    def default(self, kind: Kind, obj: Obj) -> Obj:
        """`obj` with the schema's defaults filled in."""
        document = self.schema(kind)
        kept = {key: value for key, value in obj.items() if key not in ("kind", "apiVersion", "metadata")}
        filled = _with_defaults(document, kept)
        return {**obj, **filled} if filled is not kept else obj

    def validate(self, kind: Kind, obj: Obj) -> list[Cause]:
        document = self.schema(kind)
        body = {key: value for key, value in obj.items() if key not in ("kind", "apiVersion", "metadata")}
        causes: list[Cause] = []
        for name in document.get("required") or []:
            if name not in obj:
                causes.append(required(name))
        return causes + _validate({**document, "required": []}, body, "")


def _kind(spec: Obj, version: Obj, stored: str) -> Kind:
    names = spec["names"]
    subresources: list[Subresource] = []
    offered = version.get("subresources") or {}
    if "status" in offered:
        subresources.append(Subresource("status", names["kind"]))
    scale = None
    if offered.get("scale"):
        subresources.append(Subresource("scale", "Scale", group="autoscaling", version="v1"))
        paths = offered["scale"]
        scale = ScalePaths(
            paths["specReplicasPath"].lstrip("."),
            paths["statusReplicasPath"].lstrip("."),
            (paths.get("labelSelectorPath") or "").lstrip("."),
        )
    columns = tuple(
        Column(
            one["name"],
            one["type"],
            one["jsonPath"],
            one.get("description", ""),
            one.get("format", ""),
            one.get("priority", 0),
        )
        for one in version.get("additionalPrinterColumns") or []
    )
    return Kind(
        group=spec["group"],
        version=version["name"],
        kind=names["kind"],
        plural=names["plural"],
        singular=names.get("singular") or names["kind"].lower(),
        namespaced=spec["scope"] == "Namespaced",
        verbs=_CRD_VERBS,
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        subresources=tuple(subresources),
        stored_group=spec["group"],
        stored_version=stored,
        scale=scale,
        custom=True,
        columns=columns,
        list_kind=names.get("listKind") or f"{names['kind']}List",
    )


# Schemas as field types


def root_struct(kind: Kind, document: Obj) -> Struct:
    made = _struct(f"{kind.group}/{kind.version}.{kind.kind}", document)
    made.fields["metadata"] = Field("metadata", 0, 0, Type("struct", struct=schema.object_meta()))
    return made


def _struct(name: str, document: Obj) -> Struct:
    made = Struct(name, sorted_fields=True)
    made.preserve_unknown = bool(document.get("x-kubernetes-preserve-unknown-fields"))
    made.atomic = document.get("x-kubernetes-map-type") == "atomic"
    for index, (field, inner) in enumerate(sorted((document.get("properties") or {}).items())):
        made.fields[field] = Field(field, index, 0, _type(f"{name}.{field}", inner))
    return made


def _type(name: str, document: Obj) -> Type:
    kind = document.get("type")
    if kind == "object" and document.get("x-kubernetes-embedded-resource"):
        return RAW
    if kind == "object" and document.get("properties"):
        struct = _struct(name, document)
        return Type("struct", struct=struct, atomic=struct.atomic)
    if kind == "object" and isinstance(document.get("additionalProperties"), dict):
        return Type("map", scalar="lenient", element=_type(name, document["additionalProperties"]))
    if kind == "object" and not document.get("x-kubernetes-preserve-unknown-fields"):
        return Type("struct", struct=_struct(name, document)) if "additionalProperties" not in document else RAW
    if kind == "array" and isinstance(document.get("items"), dict):
        how = document.get("x-kubernetes-list-type")
        keys = tuple(document.get("x-kubernetes-list-map-keys") or ()) if how == "map" else ()
        return Type("list", scalar="lenient", element=_type(name, document["items"]), keys=keys, is_set=how == "set")
    return RAW


def _with_defaults(document: Obj, value: Any) -> Any:
    if isinstance(value, dict):
        made = value
        for name, inner in (document.get("properties") or {}).items():
            if name not in made:
                if "default" in inner:
                    made = {**made, name: inner["default"]}
                else:
                    continue
            filled = _with_defaults(inner, made[name])
            if filled is not made[name]:
                made = {**made, name: filled}
        extra = document.get("additionalProperties")
        if isinstance(extra, dict):
            filled_values = {name: _with_defaults(extra, one) for name, one in made.items()}
            if any(filled_values[name] is not made[name] for name in made):
                made = filled_values
        return made
    if isinstance(value, list) and isinstance(document.get("items"), dict):
        items = [_with_defaults(document["items"], one) for one in value]
        return items if any(a is not b for a, b in zip(items, value, strict=True)) else value
    return value


# Validation

_JSON_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
}


def _validate(document: Obj, value: Any, path: str) -> list[Cause]:
    if value is None and document.get("nullable"):
        return []
    where = path or "<nil>"
    if document.get("x-kubernetes-int-or-string"):
        return []
    wanted = document.get("type")
    if wanted and not _has_type(wanted, value):
        seen = _type_name(value)
        why = f'{where} in body must be of type {wanted}: "{seen}"'
        return [Cause("FieldValueTypeInvalid", f'Invalid value: "{seen}": {why}', where)]
    causes = _enum(document, value, where)
    if isinstance(value, dict):
        causes += _validate_object(document, value, path)
    elif isinstance(value, list):
        causes += _validate_array(document, value, path)
    elif isinstance(value, str):
        causes += _validate_string(document, value, where)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        causes += _validate_number(document, value, where)
    return causes


def _has_type(wanted: str, value: Any) -> bool:
    if wanted == "integer" and isinstance(value, float):
        return value.is_integer()
    if isinstance(value, bool):
        return wanted == "boolean"
    return isinstance(value, _JSON_TYPES.get(wanted, (object,)))


def _type_name(value: Any) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}
    return names.get(type(value), "null")


def _enum(document: Obj, value: Any, where: str) -> list[Cause]:
    allowed = document.get("enum")
    if not allowed or value in allowed:
        return []
    return [not_supported(where, value, [str(one) for one in allowed])]


def _validate_object(document: Obj, value: Obj, path: str) -> list[Cause]:
    causes: list[Cause] = []
    properties = document.get("properties") or {}
    causes.extend(required(_join(path, name)) for name in document.get("required") or [] if name not in value)
    for name, inner in properties.items():
        if name in value:
            causes += _validate(inner, value[name], _join(path, name))
    extra = document.get("additionalProperties")
    if isinstance(extra, dict):
        for name, one in value.items():
            if name not in properties:
                causes += _validate(extra, one, _join(path, name))
    return causes


def _validate_array(document: Obj, value: list[Any], path: str) -> list[Cause]:
    causes: list[Cause] = []
    low, high, count = document.get("minItems"), document.get("maxItems"), len(value)
    if low is not None and count < low:
        causes.append(invalid_value(path, count, f"{path} in body should have at least {low} items"))
    if high is not None and count > high:
        causes.append(Cause("FieldValueTooMany", f"Too many: {count}: must have at most {high} items", path))
    items = document.get("items")
    if isinstance(items, dict):
        for index, one in enumerate(value):
            causes += _validate(items, one, f"{path}[{index}]")
    return causes


def _validate_string(document: Obj, value: str, where: str) -> list[Cause]:
    causes: list[Cause] = []
    low, high, pattern = document.get("minLength"), document.get("maxLength"), document.get("pattern")
    if low is not None and len(value) < low:
        causes.append(invalid_value(where, value, f"{where} in body should be at least {low} chars long"))
    if high is not None and len(value) > high:
        causes.append(Cause("FieldValueTooLong", f"Too long: may not be more than {high} bytes", where))
    if pattern and not re.search(pattern, value):
        causes.append(invalid_value(where, value, f"{where} in body should match '{pattern}'"))
    return causes


def _validate_number(document: Obj, value: float, where: str) -> list[Cause]:
    causes: list[Cause] = []
    low, high = document.get("minimum"), document.get("maximum")
    if low is not None and (value < low or (value == low and document.get("exclusiveMinimum"))):
        word = "greater than" if document.get("exclusiveMinimum") else "greater than or equal to"
        causes.append(invalid_value(where, value, f"{where} in body should be {word} {low}"))
    if high is not None and (value > high or (value == high and document.get("exclusiveMaximum"))):
        word = "less than" if document.get("exclusiveMaximum") else "less than or equal to"
        causes.append(invalid_value(where, value, f"{where} in body should be {word} {high}"))
    step = document.get("multipleOf")
    if step and value % step:
        causes.append(invalid_value(where, value, f"{where} in body should be a multiple of {step}"))
    return causes


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
