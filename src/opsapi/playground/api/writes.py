"""POST, PUT, PATCH and DELETE of objects and collections."""

from typing import Any

import msgspec
import yaml

from opsapi.playground.api import bodies, conversion
from opsapi.playground.api.bodies import Body, media_type, parse_object
from opsapi.playground.api.listing import Lister, selection
from opsapi.playground.api.request import Rendering, Request
from opsapi.playground.api.responses import Response, json_response, warning
from opsapi.playground.kinds import Kind
from opsapi.playground.machinery import apply, managed, patches, status, strategic, strategy
from opsapi.playground.machinery.normal import DecodeError
from opsapi.playground.machinery.registry import DeleteOptions, ObjectRegistry, WriteOptions
from opsapi.playground.machinery.status import Cause, bad_request, invalid, invalid_value, required
from opsapi.playground.registry import Obj

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCHES = ("application/apply-patch+yaml", "application/apply-patch+json")
_PATCHES = (JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, *APPLY_PATCHES)
_CREATED_BY_UPDATE = frozenset(
    {
        "services",
        "endpoints",
        "events",
        "limitranges",
        "leases.coordination.k8s.io",
        "roles.rbac.authorization.k8s.io",
        "rolebindings.rbac.authorization.k8s.io",
        "clusterroles.rbac.authorization.k8s.io",
        "clusterrolebindings.rbac.authorization.k8s.io",
    }
)
_ORPHANS_BY_DEFAULT = frozenset({"jobs.batch", "replicationcontrollers"})
_POLICIES = ("Background", "Foreground", "Orphan")


def field_manager(request: Request) -> str:
    """The fieldManager parameter, or the User-Agent up to its slash."""
    return request.param("fieldManager") or request.headers.get("user-agent", "").partition("/")[0] or "unknown"


def dry_run(request: Request) -> bool:
    """Raises ApiError (422) on anything but All."""
    values = request.query.get("dryRun") or []
    for one in values:
        if one != "All":
            cause = status.not_supported("dryRun", one, ["All"])
            raise invalid("meta.k8s.io", "CreateOptions", "", [cause])
    return bool(values)


def validation_of(request: Request) -> str:
    sent = request.param("fieldValidation", "Warn") or "Warn"
    if sent not in ("Ignore", "Warn", "Strict"):
        cause = status.not_supported("fieldValidation", sent, ["", "Ignore", "Strict", "Warn"])
        raise invalid("meta.k8s.io", "CreateOptions", "", [cause])
    return sent


class Writer:
    def __init__(self, registry: ObjectRegistry, lister: Lister) -> None:
        self._registry = registry
        self._lister = lister

    async def read_body(self, request: Request, kind: Kind) -> Body:
        raw = await request.body()
        if not raw and kind.custom:
            raise bad_request("EOF")
        parsed = parse_object(raw, request.headers.get("content-type", ""), kind.kind)
        validation = validation_of(request)
        twice = [] if validation == "Ignore" else bodies.duplicate_fields(raw, request.headers.get("content-type", ""))
        return bodies.decode(self._registry.normalizer, kind, parsed, validation, twice)

    def options(self, request: Request, *, decoded: bool = True) -> WriteOptions:
        return WriteOptions(dry_run=dry_run(request), manager=field_manager(request), decoded=decoded)

    async def create(self, request: Request, kind: Kind, rendering: Rendering) -> Response:
        options = self.options(request)
        body = await self.read_body(request, kind)
        namespace = request.target.namespace if kind.namespaced else ""
        check_namespace(body.obj, namespace)
        stored = conversion.to_storage(kind, body.obj)
        made = self._registry.create(kind.resource, namespace, stored, user=request.user, options=options)
        return self._answer(request, kind, rendering, made, body, 201)

    def _answer(
        self, request: Request, kind: Kind, rendering: Rendering, obj: Obj, body: Body, code: int = 200
    ) -> Response:
        response = self._lister.render_one(request, kind, rendering, obj, code=code)
        response.headers.extend(warning(one) for one in body.warnings)
        return response

    async def update(self, request: Request, kind: Kind, rendering: Rendering, subresource: str = "") -> Response:
        options = self.options(request)
        body = await self.read_body(request, kind)
        target = request.target
        namespace = target.namespace if kind.namespaced else ""
        check_namespace(body.obj, namespace)
        check_name(body.obj, target.name)
        stored = conversion.to_storage(kind, body.obj)
        if self._registry.find(kind.resource, namespace, target.name) is None:
            if kind.resource in _CREATED_BY_UPDATE and not subresource and not body.obj["metadata"].get("uid"):
                made = self._registry.create(kind.resource, namespace, stored, user=request.user, options=options)
                return self._answer(request, kind, rendering, made, body, 201)
            raise status.not_found(kind, target.name)
        if kind.custom and not body.obj["metadata"].get("resourceVersion"):
            cause = Cause(
                "FieldValueInvalid", "Invalid value: 0x0: must be specified for an update", "metadata.resourceVersion"
            )
            raise invalid(kind.group, kind.kind, target.name, [cause])
        made = self._registry.update(
            kind.resource, namespace, target.name, stored, subresource=subresource, user=request.user, options=options
        )
        return self._answer(request, kind, rendering, made, body)

    async def patch(self, request: Request, kind: Kind, rendering: Rendering, subresource: str = "") -> Response:
        media = check_patch_type(kind, request)
        options = self.options(request)
        raw = await request.body()
        if media in APPLY_PATCHES:
            return self._apply(request, kind, rendering, raw, options, subresource)
        target = request.target
        namespace = target.namespace if kind.namespaced else ""
        old = self._registry.get(kind.resource, namespace, target.name)
        patched, patch = self._patched(kind, media, raw, conversion.from_storage(kind, old))
        body = self._decoded_patch(request, kind, patched, patch, conversion.from_storage(kind, old))
        check_namespace(body.obj, namespace)
        check_name(body.obj, target.name)
        stored = conversion.to_storage(kind, body.obj)
        made = self._registry.update(
            kind.resource, namespace, target.name, stored, subresource=subresource, user=request.user, options=options
        )
        return self._answer(request, kind, rendering, made, body)

    def _patched(self, kind: Kind, media: str, raw: bytes, old: Obj) -> tuple[Any, Any]:
        patch = parse_patch(raw)
        if media == JSON_PATCH:
            return patches.json_patch(old, patch), patch
        if not isinstance(patch, dict):
            seen = {list: "array", str: "string", bool: "bool"}.get(type(patch), "number")
            raise bad_request(
                f"error decoding patch: json: cannot unmarshal {seen} into Go value of type map[string]interface {{}}"
            )
        if media == MERGE_PATCH:
            return patches.merge(old, patch), patch
        return strategic.apply(self._registry.normalizer.schema_of(kind), old, patch), patch

    def _decoded_patch(self, request: Request, kind: Kind, patched: Any, patch: Any, old: Obj) -> Body:
        if not isinstance(patched, dict) or not isinstance(patched.get("metadata", {}), dict):
            raise patches.rejected()
        if patched.get("kind") != kind.kind or patched.get("apiVersion") != kind.api_version:
            sent = f"{patched.get('apiVersion')}, Kind={patched.get('kind')}"
            raise bad_request(
                f"the kind of the patched object ({sent}) does not match {kind.api_version}, Kind={kind.kind}"
            )
        try:
            decoded = self._registry.normalizer.decode(kind, patched, old)
        except DecodeError as error:
            shown = strategic.go_map(patch)
            raise invalid("", "", "", [invalid_value("patch", shown, str(error))]) from error
        unknown = tuple(f'unknown field "{path}"' for path in decoded.unknown)
        mode = validation_of(request)
        if unknown and mode == "Strict":
            raise bad_request(f"strict decoding error: {', '.join(unknown)}" if kind.custom else _strict(kind, unknown))
        return Body(decoded.obj, () if mode == "Ignore" else unknown)

    def _apply(
        self,
        request: Request,
        kind: Kind,
        rendering: Rendering,
        raw: bytes,
        options: WriteOptions,
        subresource: str,
    ) -> Response:
        applying_manager(request)
        config = parse_apply(raw)
        target = request.target
        namespace = target.namespace if kind.namespaced else ""
        check_applied(kind, config)
        body = bodies.decode(self._registry.normalizer, kind, config, validation_of(request))
        check_namespace(body.obj, namespace)
        if (config.get("metadata") or {}).get("managedFields"):
            raise bad_request("metadata.managedFields must be nil")
        config = _written_through(kind, _without_filled(body.obj, config), subresource)
        check_name(config, target.name)
        old = self._registry.find(kind.resource, namespace, target.name)
        if old is None and subresource:
            raise status.not_found(kind, target.name)
        live = None if old is None else conversion.from_storage(kind, old)
        writer = managed.Writer(options.manager, kind.api_version, self._registry.now(), subresource)
        applied = apply.apply(
            self._registry.normalizer.schema_of(kind), live, config, writer, force=request.flag("force")
        )
        return self._store_applied(request, kind, rendering, applied, body, options, subresource)

    def _store_applied(
        self,
        request: Request,
        kind: Kind,
        rendering: Rendering,
        applied: apply.Applied,
        body: Body,
        options: WriteOptions,
        subresource: str,
    ) -> Response:
        target = request.target
        namespace = target.namespace if kind.namespaced else ""
        obj = conversion.to_storage(kind, applied.obj)
        exists = self._registry.find(kind.resource, namespace, target.name) is not None
        # Applied objects are whole again after merging, so they pass the normalizer once more for order and sharing.
        checked = WriteOptions(options.dry_run, options.manager, "Apply", False, applied.entries)
        if exists:
            made = self._registry.update(
                kind.resource, namespace, target.name, obj, subresource=subresource, user=request.user, options=checked
            )
            return self._answer(request, kind, rendering, made, body)
        if obj["metadata"].get("resourceVersion"):
            raise status.conflict(kind, target.name, status.MODIFIED)
        obj = {**obj, "metadata": {**obj["metadata"], "name": target.name}}
        made = self._registry.create(kind.resource, namespace, obj, user=request.user, options=checked)
        return self._answer(request, kind, rendering, made, body, 201)

    async def delete(self, request: Request, kind: Kind, rendering: Rendering) -> Response:
        options = await self.delete_options(request, kind)
        target = request.target
        namespace = target.namespace if kind.namespaced else ""
        last, gone = self._registry.delete_with(kind.resource, namespace, target.name, options)
        if gone and not strategy.returns_deleted_object(kind):
            return json_response(status.deleted(kind, target.name, last["metadata"]["uid"]))
        return self._lister.render_one(request, kind, rendering, last)

    async def delete_options(self, request: Request, kind: Kind) -> DeleteOptions:
        """From the body, or the query where there is none. Raises ApiError (400, 422)."""
        raw = await request.body()
        sent: Obj = {}
        if raw:
            sent = parse_object(raw, request.headers.get("content-type", ""), "DeleteOptions")
        grace = sent.get("gracePeriodSeconds", _number(request, "gracePeriodSeconds"))
        policy = sent.get("propagationPolicy") or request.param("propagationPolicy")
        orphan = sent.get("orphanDependents")
        if policy and policy not in _POLICIES:
            cause = status.not_supported("propagationPolicy", policy, [*_POLICIES, "nil"])
            raise invalid("", "DeleteOptions", "", [cause])
        if grace is not None and (not isinstance(grace, int) or grace < 0):
            cause = invalid_value("gracePeriodSeconds", grace, "must be greater than or equal to 0")
            raise invalid("", "DeleteOptions", "", [cause])
        if not policy and orphan is not None:
            policy = "Orphan" if orphan else "Background"
        if not policy and kind.resource in _ORPHANS_BY_DEFAULT:
            policy = "Orphan"
        conditions = sent.get("preconditions") or {}
        dry = dry_run(request) or "All" in (sent.get("dryRun") or [])
        uid, version = conditions.get("uid") or "", conditions.get("resourceVersion") or ""
        return DeleteOptions(grace, policy, uid, version, dry)

    async def delete_collection(self, request: Request, kind: Kind) -> Response:
        options = await self.delete_options(request, kind)
        chosen = selection(request, kind)
        version = self._registry.store.version
        items = []
        for obj in self._registry.iterate(kind.resource, chosen.namespace):
            if chosen.matches(obj):
                meta = obj["metadata"]
                last, _ = self._registry.delete_with(kind.resource, meta.get("namespace", ""), meta["name"], options)
                items.append(conversion.from_storage(kind, last))
        meta = {"resourceVersion": str(version)}
        return json_response({"kind": kind.list_kind, "apiVersion": kind.api_version, "metadata": meta, "items": items})


def _strict(kind: Kind, unknown: tuple[str, ...]) -> str:
    return bodies.cannot_be_handled(kind, f"strict decoding error: {', '.join(unknown)}")


def _number(request: Request, name: str) -> int | None:
    sent = request.param(name)
    if not sent:
        return None
    try:
        return int(sent)
    except ValueError as error:
        raise bad_request(f'strconv.ParseInt: parsing "{sent}": invalid syntax') from error


def applying_manager(request: Request) -> str:
    """Server-side apply has no default manager. Raises ApiError (422)."""
    if not request.param("fieldManager"):
        cause = required("fieldManager", "is required for apply patch")
        raise invalid("meta.k8s.io", "PatchOptions", "", [cause])
    return field_manager(request)


def check_patch_type(kind: Kind, request: Request) -> str:
    """Raises ApiError (415)."""
    media = media_type(request.headers.get("content-type", ""))
    if kind.custom and media == STRATEGIC_PATCH:
        accepted = f"{JSON_PATCH}, {MERGE_PATCH}, {APPLY_PATCHES[0]}"
        raise status.unsupported_media_type(accepted)
    if media not in _PATCHES:
        raise status.unsupported_media_type()
    return media


def parse_patch(raw: bytes) -> Any:
    try:
        patch = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_request(f"error decoding patch: {bodies.go_json_error(raw)}") from error
    bodies.check_depth(patch)
    return patch


def parse_apply(raw: bytes) -> Obj:
    try:
        config = msgspec.json.decode(raw) if raw.lstrip()[:1] == b"{" else bodies.parse_yaml(raw)
    except (msgspec.DecodeError, yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise bad_request(f"error decoding YAML: {str(error).splitlines()[0]}") from error
    bodies.check_depth(config)
    if not isinstance(config, dict):
        raise bad_request("error decoding YAML: json: cannot unmarshal into Go value of type map[string]interface {}")
    return config


def check_applied(kind: Kind, config: Obj) -> None:
    for name in ("apiVersion", "kind"):
        if not config.get(name):
            raise bad_request(
                f"invalid object type: /, Kind={config.get('kind', '')}" if name == "kind" else "apiVersion must be set"
            )
    if config["kind"] != kind.kind or config["apiVersion"] != kind.api_version:
        sent = f"{config['apiVersion']}, Kind={config['kind']}"
        raise bad_request(f"invalid object type: {sent}; expected {kind.api_version}, Kind={kind.kind}")


def _without_filled(decoded: Any, sent: Any) -> Any:
    """The decoded configuration without the zero values that decoding filled in: only what was sent is applied."""
    if isinstance(decoded, dict) and isinstance(sent, dict):
        return {
            key: _without_filled(value, sent[key])
            for key, value in decoded.items()
            if key in sent and sent[key] is not None
        }
    if isinstance(decoded, list) and isinstance(sent, list) and len(decoded) == len(sent):
        return [_without_filled(a, b) for a, b in zip(decoded, sent, strict=True)]
    return decoded


def _written_through(kind: Kind, config: Obj, subresource: str) -> Obj:
    """Without the fields that this subresource resets: nobody comes to own what his request cannot set."""
    if subresource == "status":
        meta = {key: one for key, one in (config.get("metadata") or {}).items() if key not in ("labels", "annotations")}
        kept: Obj = {key: config[key] for key in ("kind", "apiVersion", "status") if key in config}
        return {**kept, "metadata": meta}
    if kind.has_status:
        return {key: value for key, value in config.items() if key != "status"}
    return config


def check_namespace(obj: Obj, namespace: str) -> None:
    sent = obj["metadata"].get("namespace")
    if sent and sent != namespace:
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")


def check_name(obj: Obj, name: str) -> None:
    sent = (obj.get("metadata") or {}).get("name")
    if sent and sent != name:
        raise bad_request(f"the name of the object ({sent}) does not match the name on the URL ({name})")
