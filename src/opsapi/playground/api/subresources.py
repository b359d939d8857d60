"""/scale, /eviction, /binding, /resize, /log, /token, and what needs a real container."""

from collections.abc import AsyncIterator
from typing import Any

from opsapi.kit.clock import parse_rfc3339, rfc3339
from opsapi.playground.api.authentication import Authenticator
from opsapi.playground.api.listing import Lister
from opsapi.playground.api.providers import LogOptions, LogProvider
from opsapi.playground.api.request import Request, negotiate
from opsapi.playground.api.responses import Response, json_response
from opsapi.playground.api.writes import (
    APPLY_PATCHES,
    JSON_PATCH,
    MERGE_PATCH,
    STRATEGIC_PATCH,
    Writer,
    applying_manager,
    check_applied,
    check_name,
    check_patch_type,
    dry_run,
    parse_apply,
    parse_patch,
)
from opsapi.playground.kinds import Kind
from opsapi.playground.machinery import apply, evictions, managed, patches, resize, status, strategic
from opsapi.playground.machinery.label_selectors import selector_text
from opsapi.playground.machinery.normal import DecodeError
from opsapi.playground.machinery.registry import ObjectRegistry, WriteOptions
from opsapi.playground.machinery.status import (
    bad_request,
    failure,
    forbidden_field,
    invalid,
    invalid_value,
)
from opsapi.playground.registry import Obj

_SCALE = Kind("autoscaling", "v1", "Scale", "scales", "scale", True, stored_group="autoscaling", stored_version="v1")
_EVICTION = Kind("policy", "v1", "Eviction", "evictions", "eviction", True)
_BINDING = Kind("", "v1", "Binding", "bindings", "binding", True)
_TOKEN = Kind("authentication.k8s.io", "v1", "TokenRequest", "tokenrequests", "tokenrequest", True)


class Subresources:
    def __init__(
        self,
        registry: ObjectRegistry,
        lister: Lister,
        writer: Writer,
        authenticator: Authenticator,
        logs: LogProvider | None,
    ) -> None:
        self._registry = registry
        self._lister = lister
        self._writer = writer
        self._authenticator = authenticator
        self._logs = logs

    async def scale(self, request: Request, kind: Kind) -> Response:
        target = request.target
        parent = self._registry.get(kind.resource, target.namespace, target.name)
        scale = self._scale_of(kind, parent)
        if request.method == "GET":
            rendering = negotiate(request.headers.get("accept", ""))
            return self._lister.render_one(request, _SCALE, rendering, scale)
        if request.method == "PATCH" and check_patch_type(_SCALE, request) in APPLY_PATCHES:
            return self._apply_scale(request, kind, parent, await request.body())
        if request.method == "PUT":
            body = await self._writer.read_body(request, _SCALE)
            sent = body.obj
            check_name(sent, target.name)
        else:
            sent = self._patched_scale(request, scale, await request.body())
        replicas = (sent.get("spec") or {}).get("replicas", 0)
        if replicas < 0:
            cause = invalid_value("spec.replicas", replicas, "must be greater than or equal to 0")
            raise invalid("autoscaling", "Scale", target.name, [cause])
        version = sent["metadata"].get("resourceVersion")
        if version and version != parent["metadata"]["resourceVersion"]:
            raise status.conflict(kind, target.name)
        uid, found = sent["metadata"].get("uid"), parent["metadata"]["uid"]
        if uid and uid != found:
            why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {found}"
            raise status.conflict(kind, target.name, why)
        assert kind.scale is not None
        changed = _with_path(parent, kind.scale.spec.split("."), replicas)
        made = self._registry.update(
            kind.resource,
            target.namespace,
            target.name,
            changed,
            subresource="scale",
            user=request.user,
            options=self._writer.options(request, decoded=False),
        )
        return json_response(self._scale_of(kind, made))

    def _patched_scale(self, request: Request, scale: Obj, raw: bytes) -> Obj:
        patch = parse_patch(raw)
        if check_patch_type(_SCALE, request) == JSON_PATCH:
            patched = patches.json_patch(scale, patch)
        elif isinstance(patch, dict):
            patched = patches.merge(scale, patch)
        else:
            raise bad_request("error decoding patch: not an object")
        if not isinstance(patched, dict) or not isinstance(patched.get("metadata"), dict):
            raise patches.rejected()
        try:
            return self._registry.normalizer.decode(_SCALE, patched).obj
        except DecodeError as error:
            raise invalid("", "", "", [invalid_value("patch", strategic.go_map(patch), str(error))]) from error

    def _apply_scale(self, request: Request, kind: Kind, parent: Obj, raw: bytes) -> Response:
        """The applier owns the parent's replicas through the subresource. Raises ApiError (409) on conflicts."""
        manager = applying_manager(request)
        config = parse_apply(raw)
        check_applied(_SCALE, config)
        check_name(config, request.target.name)
        replicas = (config.get("spec") or {}).get("replicas")
        if not isinstance(replicas, int) or replicas < 0:
            cause = invalid_value("spec.replicas", replicas, "must be greater than or equal to 0")
            raise invalid("autoscaling", "Scale", request.target.name, [cause])
        assert kind.scale is not None
        head: Obj = {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": {}}
        wanted = _with_path(head, kind.scale.spec.split("."), replicas)
        writer = managed.Writer(manager, kind.api_version, self._registry.now(), "scale")
        schema = self._registry.normalizer.schema_of(kind)
        applied = apply.apply(schema, parent, wanted, writer, force=request.flag("force"))
        made = self._registry.update(
            kind.resource,
            request.target.namespace,
            request.target.name,
            applied.obj,
            subresource="scale",
            user=request.user,
            options=WriteOptions(dry_run(request), manager, "Apply", False, applied.entries),
        )
        return json_response(self._scale_of(kind, made))

    def _scale_of(self, kind: Kind, parent: Obj) -> Obj:
        assert kind.scale is not None
        meta = parent["metadata"]
        kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
        selector = _at_path(parent, kind.scale.selector.split(".")) if kind.scale.selector else None
        if isinstance(selector, dict):
            plain = kind.resource == "replicationcontrollers"
            selector = selector_text({"matchLabels": selector} if plain else selector)
        made_status: Obj = {"replicas": _at_path(parent, kind.scale.status.split(".")) or 0}
        if selector:
            made_status["selector"] = selector
        replicas = _at_path(parent, kind.scale.spec.split("."))
        return {
            "kind": "Scale",
            "apiVersion": "autoscaling/v1",
            "metadata": {name: meta[name] for name in kept if name in meta},
            "spec": {"replicas": replicas} if replicas else {},
            "status": made_status,
        }

    async def evict(self, request: Request) -> Response:
        target = request.target
        body = await self._writer.read_body(request, _EVICTION)
        check_name(body.obj, target.name)
        evictions.evict(self._registry, target.namespace, target.name, body.obj, dry_run=dry_run(request))
        return json_response(_success(), 201)

    async def bind(self, request: Request, name: str) -> Response:
        body = await self._writer.read_body(request, _BINDING)
        node = (body.obj.get("target") or {}).get("name", "")
        namespace = request.target.namespace
        pod = self._registry.get("pods", namespace, name or body.obj["metadata"].get("name", ""))
        if pod["spec"].get("nodeName"):
            kind = self._registry.kind_of("pods")
            raise status.conflict(kind, name, f'pod {name} is already assigned to node "{pod["spec"]["nodeName"]}"')
        if not node:
            raise invalid("", "Binding", name, [status.required("target.name")])
        bound = {**pod, "spec": {**pod["spec"], "nodeName": node}}
        options = self._writer.options(request, decoded=False)
        made = self._registry.update(
            "pods", namespace, pod["metadata"]["name"], bound, user=request.user, options=options
        )
        if not options.dry_run:
            self._registry.patch_status("pods", namespace, name, _scheduled(made, self._registry.now()))
        return json_response(_success(), 201)

    async def resize(self, request: Request, kind: Kind) -> Response:
        """Only cpu and memory may change, not the QoS class, and only where the node reports resources."""
        target = request.target
        old = self._registry.get("pods", target.namespace, target.name)
        if request.method == "GET":
            return json_response(old)
        if request.method == "PUT":
            new = (await self._writer.read_body(request, kind)).obj
            check_name(new, target.name)
        else:
            new = self._patched_pod(request, kind, old, await request.body())
        new = self._registry.normalizer.normalize(kind, new, old)
        resized = resize.resized(old, new)
        causes = resize.causes_of(resized, old, new)
        if causes:
            raise invalid("", "Pod", target.name, causes)
        made = self._registry.update(
            "pods",
            target.namespace,
            target.name,
            resized,
            subresource="resize",
            user=request.user,
            options=self._writer.options(request, decoded=False),
        )
        return json_response(made)

    def _patched_pod(self, request: Request, kind: Kind, old: Obj, raw: bytes) -> Obj:
        media = check_patch_type(kind, request)
        if media in APPLY_PATCHES:
            raise status.unsupported_media_type(f"{JSON_PATCH}, {MERGE_PATCH}, {STRATEGIC_PATCH}")
        patch = parse_patch(raw)
        if media == JSON_PATCH:
            patched = patches.json_patch(old, patch)
        elif not isinstance(patch, dict):
            raise bad_request("error decoding patch: not an object")
        elif media == MERGE_PATCH:
            patched = patches.merge(old, patch)
        else:
            patched = strategic.apply(self._registry.normalizer.schema_of(kind), old, patch)
        try:
            return self._registry.normalizer.decode(kind, patched, old).obj
        except DecodeError as error:
            raise invalid("", "", "", [invalid_value("patch", strategic.go_map(patch), str(error))]) from error

    async def token(self, request: Request) -> Response:
        target = request.target
        body = await self._writer.read_body(request, _TOKEN)
        spec = body.obj.get("spec") or {}
        seconds = spec.get("expirationSeconds") or 3600
        if seconds < 600:
            cause = invalid_value("spec.expirationSeconds", seconds, "may not specify a duration less than 10 minutes")
            raise invalid(_TOKEN.group, _TOKEN.kind, "", [cause])
        token, expires = self._authenticator.issue(target.namespace, target.name, seconds)
        made = {
            "kind": _TOKEN.kind,
            "apiVersion": _TOKEN.api_version,
            "metadata": {"name": target.name, "namespace": target.namespace, "creationTimestamp": self._registry.now()},
            "spec": {
                "audiences": spec.get("audiences") or ["https://kubernetes.default.svc"],
                "expirationSeconds": seconds,
            },
            "status": {"token": token, "expirationTimestamp": rfc3339(expires)},
        }
        return json_response(made, 201)

    def log(self, request: Request) -> Response:
        """Raises ApiError (400) for a container that is not there, 500 without a log provider."""
        target = request.target
        pod = self._registry.get("pods", target.namespace, target.name)
        container = log_container(pod, request.param("container"))
        options = log_options(request)
        if not pod["spec"].get("nodeName"):
            raise bad_request(f"pod {target.name} does not have a host assigned")
        if self._logs is None:
            raise failure(500, "", "no preferred addresses found; known addresses: []")
        return Response(200, content_type="text/plain", stream=_limited(self._logs(pod, container, options), options))

    @staticmethod
    def without_containers(what: str) -> Response:
        told = f"pods/{what} needs a real container, and the playground's containers are simulated"
        raise failure(501, "NotImplemented", told)


async def _limited(chunks: AsyncIterator[bytes], options: LogOptions) -> AsyncIterator[bytes]:
    left = options.limit_bytes
    async for chunk in chunks:
        if left is None:
            yield chunk
            continue
        if left <= 0:
            return
        yield chunk[:left]
        left -= len(chunk)


def log_container(pod: Obj, asked: str) -> str:
    spec = pod["spec"]
    listed = [one["name"] for group in ("initContainers", "containers") for one in spec.get(group) or []]
    name = pod["metadata"]["name"]
    if asked:
        if asked not in listed:
            raise bad_request(f"container {asked} is not valid for pod {name}")
        return asked
    default = (pod["metadata"].get("annotations") or {}).get("kubectl.kubernetes.io/default-container")
    containers = [one["name"] for one in spec.get("containers") or []]
    if default in containers:
        return str(default)
    if len(containers) == 1:
        return str(containers[0])
    told = f"a container name must be specified for pod {name}, choose one of: [{' '.join(containers)}]"
    inits = [one["name"] for one in spec.get("initContainers") or []]
    if inits:
        told += f" or one of the init containers: [{' '.join(inits)}]"
    raise bad_request(told)


def log_options(request: Request) -> LogOptions:
    """Raises ApiError (422)."""
    causes = []
    numbers: dict[str, int | None] = {}
    for name, low in (("tailLines", 0), ("limitBytes", 1), ("sinceSeconds", 1)):
        sent = request.param(name)
        numbers[name] = None
        if not sent:
            continue
        try:
            numbers[name] = int(sent)
        except ValueError as error:
            raise bad_request(f'strconv.ParseInt: parsing "{sent}": invalid syntax') from error
        if int(sent) < low:
            bound = "must be greater than or equal to 0" if low == 0 else "must be greater than 0"
            causes.append(invalid_value(name, int(sent), bound))
    since = request.param("sinceTime")
    if since and numbers["sinceSeconds"] is not None:
        causes.append(forbidden_field("", "at most one of `sinceTime` or `sinceSeconds` may be specified"))
    if causes:
        raise invalid("", "PodLogOptions", "", causes)
    try:
        moment = parse_rfc3339(since) if since else None
    except ValueError as error:
        raise bad_request(f'parsing time "{since}" as "2006-01-02T15:04:05Z07:00": cannot parse') from error
    return LogOptions(
        follow=request.flag("follow"),
        previous=request.flag("previous"),
        timestamps=request.flag("timestamps"),
        tail_lines=numbers["tailLines"],
        limit_bytes=numbers["limitBytes"],
        since_seconds=numbers["sinceSeconds"],
        since_time=moment,
    )


def _success() -> Obj:
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


def _scheduled(pod: Obj, now: str) -> Obj:
    held = pod.get("status") or {}
    kept = [one for one in held.get("conditions") or [] if one["type"] != "PodScheduled"]
    condition = {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": now}
    return {**held, "conditions": [*kept, condition]}


def _at_path(obj: Any, path: list[str]) -> Any:
    for name in path:
        obj = obj.get(name) if isinstance(obj, dict) else None
    return obj


def _with_path(obj: Obj, path: list[str], value: Any) -> Obj:
    if len(path) == 1:
        return {**obj, path[0]: value}
    return {**obj, path[0]: _with_path(obj.get(path[0]) or {}, path[1:], value)}
