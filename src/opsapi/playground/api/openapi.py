"""OpenAPI v3: an index, and per group and version the paths and schemas that kubectl consults."""

import hashlib
from typing import Any

import msgspec

from opsapi.playground.api.discovery import VERSION, Discovery
from opsapi.playground.kinds import Kind, KindTable
from opsapi.playground.machinery.custom import CustomResources
from opsapi.playground.machinery.schema import Field, Struct, Type, built_in
from opsapi.playground.registry import Obj

_PATCH_TYPES = (
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
)
_SCALARS: dict[str, Obj] = {
    "string": {"type": "string"},
    "int32": {"type": "integer", "format": "int32"},
    "int64": {"type": "integer", "format": "int64"},
    "bool": {"type": "boolean"},
    "float64": {"type": "number", "format": "double"},
    "bytes": {"type": "string", "format": "byte"},
    "Quantity": {"type": "string"},
    "Time": {"type": "string", "format": "date-time"},
    "MicroTime": {"type": "string", "format": "date-time"},
    "IntOrString": {"type": "string", "format": "int-or-string"},
}
_DRY_RUN = {"name": "dryRun", "in": "query", "schema": {"type": "string", "uniqueItems": True}}
_VALIDATION = {"name": "fieldValidation", "in": "query", "schema": {"type": "string", "uniqueItems": True}}


class OpenApi:
    def __init__(self, kinds: KindTable, custom: CustomResources, discovery: Discovery) -> None:
        self._kinds = kinds
        self._custom = custom
        self._discovery = discovery
        self._revision = -1
        self._documents: dict[tuple[str, str], bytes] = {}

    def index(self) -> Obj:
        paths = {}
        for group, version in self._discovery.versions():
            path = f"apis/{group}/{version}" if group else f"api/{version}"
            digest = hashlib.sha256(self.document(group, version)).hexdigest().upper()
            paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={digest}"}
        return {"paths": paths}

    def document(self, group: str, version: str) -> bytes:
        """The encoded document; empty where nothing is served under that name."""
        if self._revision != self._kinds.revision:
            self._documents.clear()
            self._revision = self._kinds.revision
        known = self._documents.get((group, version))
        if known is None:
            kinds = self._discovery.kinds_in(group, version)
            known = msgspec.json.encode(self._build(kinds)) if kinds else b""
            self._documents[group, version] = known
        return known

    def _build(self, kinds: list[Kind]) -> Obj:
        paths: Obj = {}
        schemas: Obj = {}
        for kind in kinds:
            self._describe(kind, schemas)
            paths.update(_paths(kind))
        return {
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": VERSION["gitVersion"]},
            "paths": paths,
            "components": {"schemas": schemas},
        }

    def _describe(self, kind: Kind, schemas: Obj) -> None:
        gvk = {"group": kind.group, "version": kind.version, "kind": kind.kind}
        if kind.custom:
            name = f"{'.'.join(reversed(kind.group.split('.')))}.{kind.version}.{kind.kind}"
            document = dict(self._custom.schema(kind))
            properties = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}
            document["properties"] = {**properties, **(document.get("properties") or {})}
            schemas[name] = {**document, "x-kubernetes-group-version-kind": [gvk]}
            return
        struct = built_in(kind)
        if struct is not None:
            made = _schema(struct, schemas, root=True)
            made["x-kubernetes-group-version-kind"] = [gvk]


def _schema_name(struct: Struct) -> str:
    package, _, name = struct.name.rpartition(".")
    if package == "meta/v1":
        return f"io.k8s.apimachinery.pkg.apis.meta.v1.{name}"
    return f"io.k8s.api.{package.replace('/', '.')}.{name}"


def _schema(struct: Struct, schemas: Obj, *, root: bool = False) -> Obj:
    name = _schema_name(struct)
    if name in schemas:
        found: Obj = schemas[name]
        return found
    made: Obj = schemas.setdefault(name, {"type": "object"})
    properties: Obj = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}} if root else {}
    properties.update({one.name: _property(one, schemas) for one in struct.fields.values()})
    made["properties"] = properties
    if struct.atomic:
        made["x-kubernetes-map-type"] = "atomic"
    return made


def _property(one: Field, schemas: Obj) -> Obj:
    made = _typed(one.type, schemas)
    if one.type.form == "list":
        made["x-kubernetes-list-type"] = "map" if one.type.keys else "set" if one.type.is_set else "atomic"
        if one.type.keys:
            made["x-kubernetes-list-map-keys"] = list(one.type.keys)
    if one.patch:
        made["x-kubernetes-patch-strategy"] = one.patch
    if one.merge_key:
        made["x-kubernetes-patch-merge-key"] = one.merge_key
    return made


def _typed(kind: Type, schemas: Obj) -> dict[str, Any]:
    if kind.form == "scalar":
        return dict(_SCALARS[kind.scalar])
    if kind.form == "struct" and kind.struct is not None:
        _schema(kind.struct, schemas)
        return {"allOf": [{"$ref": f"#/components/schemas/{_schema_name(kind.struct)}"}]}
    if kind.form == "list" and kind.element is not None:
        return {"type": "array", "items": _typed(kind.element, schemas)}
    if kind.form == "map" and kind.element is not None:
        return {"type": "object", "additionalProperties": _typed(kind.element, schemas)}
    return {"type": "object"}


def _paths(kind: Kind) -> Obj:
    base = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    if kind.namespaced:
        base += "/namespaces/{namespace}"
    gvk = {"group": kind.group, "version": kind.version, "kind": kind.kind}
    collection: Obj = {}
    item: Obj = {}
    for verb, method, path in (
        ("create", "post", collection),
        ("list", "get", collection),
        ("get", "get", item),
        ("update", "put", item),
        ("patch", "patch", item),
        ("delete", "delete", item),
    ):
        if verb in kind.verbs:
            path[method] = _operation(kind, verb, gvk)
    made = {f"{base}/{kind.plural}": collection}
    if item:
        made[f"{base}/{kind.plural}/{{name}}"] = item
    return made


def _operation(kind: Kind, verb: str, gvk: Obj) -> Obj:
    action = {"create": "post", "update": "put"}.get(verb, verb)
    made: Obj = {
        "operationId": f"{verb}{kind.version.capitalize()}{kind.kind}",
        "responses": {"200": {"description": "OK"}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": gvk,
    }
    if verb in ("create", "update", "patch"):
        made["parameters"] = [_DRY_RUN, _VALIDATION]
    if verb == "patch":
        types = [one for one in _PATCH_TYPES if not (kind.custom and "strategic" in one)]
        made["requestBody"] = {"content": {one: {"schema": {"type": "object"}} for one in types}}
    return made
