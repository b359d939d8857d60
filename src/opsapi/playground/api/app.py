"""The ASGI application: faults, authentication, authorization, and the way to each handler."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from email.utils import format_datetime
from typing import Any

from opsapi.playground.api import metrics, openapi_v2
from opsapi.playground.api.authentication import Authenticator, impersonated
from opsapi.playground.api.authorization import Attributes, Authorizer, attributes_of, refusal
from opsapi.playground.api.discovery import AGGREGATED, METRICS_GROUP, VERSION, Discovery
from opsapi.playground.api.faults import ApiFaults
from opsapi.playground.api.listing import Lister
from opsapi.playground.api.openapi import OpenApi
from opsapi.playground.api.providers import LogProvider, MetricsProvider
from opsapi.playground.api.request import Receive, Rendering, Request, Scope, Send, Target, negotiate, read_scope
from opsapi.playground.api.responses import Response, error_response, json_response, text_response, warning
from opsapi.playground.api.reviews import Reviews
from opsapi.playground.api.subresources import Subresources
from opsapi.playground.api.watching import CutMidLineError, Watcher, watch_response
from opsapi.playground.api.writes import Writer, field_manager
from opsapi.playground.kinds import Kind
from opsapi.playground.machinery import managed
from opsapi.playground.machinery.registry import ObjectRegistry
from opsapi.playground.machinery.status import failure, method_not_allowed, no_such_resource
from opsapi.playground.registry import ApiError, User

log = logging.getLogger(__name__)
Control = Callable[[Request], Awaitable[Response]]
"""Serves /playground/…; called for authenticated members of system:masters only."""

_HEALTH_CHECKS = ("ping", "log", "informer-sync", "poststarthook/start-apiextensions-controllers", "storage-readiness")
_REVIEWS = (
    "selfsubjectaccessreviews",
    "selfsubjectrulesreviews",
    "selfsubjectreviews",
    "subjectaccessreviews",
    "localsubjectaccessreviews",
    "tokenreviews",
)
# The sentence is the real server's.
_ENDPOINTS_DEPRECATED = "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"
_CONTAINER_SUBRESOURCES = ("exec", "attach", "portforward", "proxy")


@dataclass(slots=True)
class ApiOptions:
    """`tokens` maps bearer tokens to users. Without `logs` or `metrics` a cluster without kubelets answers."""

    tokens: dict[str, User] = field(default_factory=dict)
    logs: LogProvider | None = None
    metrics: MetricsProvider | None = None
    faults: ApiFaults = field(default_factory=ApiFaults)
    control: Control | None = None


def create_app(registry: ObjectRegistry, options: ApiOptions | None = None) -> "PlaygroundApi":
    return PlaygroundApi(registry, options or ApiOptions())


class PlaygroundApi:
    """An ASGI app. `close` ends its watches; everything runs on one event loop."""

    def __init__(self, registry: ObjectRegistry, options: ApiOptions) -> None:
        self.registry = registry
        self.options = options
        self.faults = options.faults
        self.closing = asyncio.Event()
        self.authenticator = Authenticator(registry, options.tokens)
        self.authorizer = Authorizer(registry)
        self.discovery = Discovery(registry.kinds, metrics=options.metrics is not None)
        self._openapi = OpenApi(registry.kinds, registry.custom, self.discovery)
        self._reviews = Reviews(self.authenticator, self.authorizer)
        self._lister = Lister(registry)
        self._writer = Writer(registry, self._lister)
        self._subresources = Subresources(registry, self._lister, self._writer, self.authenticator, options.logs)
        self._watchers: set[Watcher] = set()

    def close(self) -> None:
        self.closing.set()
        for watcher in self._watchers:
            watcher.wake()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = read_scope(scope, receive)
        verdict = self.faults.judge(request.target)
        if verdict.delay:
            await asyncio.sleep(verdict.delay)
        if verdict.drop:
            abort = scope.get("opsapi.abort")
            if abort is not None:
                abort()
                return
        response = await self._respond(request, verdict.error)
        await self._send(response, request, receive, send, scope)

    async def _respond(self, request: Request, injected: ApiError | None) -> Response:
        try:
            if injected is not None:
                raise injected
            return await self._serve(request)
        except ApiError as error:
            return error_response(error)
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            told = "Internal error occurred: the playground failed on this request; its log has the traceback"
            return error_response(failure(500, "InternalError", told, {"causes": [{"message": "internal error"}]}))

    async def _send(self, response: Response, request: Request, receive: Receive, send: Send, scope: Scope) -> None:
        date = format_datetime(self.registry.clock.now(), usegmt=True)
        headers = [
            (b"content-type", response.content_type.encode("latin-1")),
            (b"date", date.encode("latin-1")),
            (b"cache-control", b"no-cache, private"),
        ]
        headers.extend((k.lower().encode("latin-1"), v.encode("latin-1", "replace")) for k, v in response.headers)
        if response.stream is None:
            headers.append((b"content-length", str(len(response.body)).encode("latin-1")))
            await send({"type": "http.response.start", "status": response.status, "headers": headers})
            body = b"" if request.method == "HEAD" else response.body
            await send({"type": "http.response.body", "body": body})
            return
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        await self._stream(response, receive, send, scope)

    async def _stream(self, response: Response, receive: Receive, send: Send, scope: Scope) -> None:
        """Sends until the stream ends or the client goes."""
        assert response.stream is not None
        stream = response.stream

        async def pump() -> None:
            async for chunk in stream:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})

        pumping = asyncio.ensure_future(pump())
        leaving = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait({pumping, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if pumping.done():
                pumping.result()
                await send({"type": "http.response.body", "body": b""})
        except CutMidLineError:
            abort = scope.get("opsapi.abort")
            if abort is not None:
                # Let what was written reach the client before the connection breaks.
                await asyncio.sleep(0.01)
                abort()
        except ApiError as error:
            log.info("a stream ended early: %s", error)
        finally:
            for task in (pumping, leaving):
                task.cancel()
            await asyncio.gather(pumping, leaving, return_exceptions=True)
            closer = getattr(stream, "aclose", None)
            if closer is not None:
                await closer()

    # Routing

    async def _serve(self, request: Request) -> Response:
        user = self.authenticator.authenticate(request.headers.get("authorization", ""))
        user = self._impersonated(request, user)
        request.user = user
        asked = attributes_of(request.target)
        if not self.authorizer.allows(user, asked):
            raise refusal(user, asked)
        if request.target.is_resource:
            return await self._resource(request)
        if request.path.startswith("/playground/") and self.options.control is not None:
            return await self.options.control(request)
        return self._other(request)

    def _impersonated(self, request: Request, user: User) -> User:
        """Whom the Impersonate headers name, if the caller may. Raises ApiError (403)."""
        name = request.headers.get("impersonate-user")
        if not name:
            return user
        if name.startswith("system:serviceaccount:"):
            _, _, namespace, account = name.split(":", 3)
            asked = Attributes("impersonate", "", "serviceaccounts", "", namespace, account)
        else:
            asked = Attributes("impersonate", "", "users", "", "", name)
        if not self.authorizer.allows(user, asked):
            raise refusal(user, asked)
        groups = request.all_headers("impersonate-group")
        for group in groups:
            asked = Attributes("impersonate", "", "groups", "", "", group)
            if not self.authorizer.allows(user, asked):
                raise refusal(user, asked)
        return impersonated(name, groups)

    def _other(self, request: Request) -> Response:
        parts = [part for part in request.path.split("/") if part]
        if request.method not in ("GET", "HEAD"):
            return text_response("404 page not found\n", 404)
        found = self._document(request, parts)
        return found if found is not None else text_response("404 page not found\n", 404)

    def _document(self, request: Request, parts: list[str]) -> Response | None:
        head = parts[0] if parts else ""
        if head in ("healthz", "livez", "readyz"):
            return _health(request, head)
        if parts == ["version"]:
            return json_response(VERSION)
        if head in ("api", "apis"):
            return self._discovered(request, parts)
        if parts[:2] == ["openapi", "v3"]:
            return self._openapi_document(parts[2:])
        if parts == ["openapi", "v2"]:
            if openapi_v2.ACCEPTED in request.headers.get("accept", ""):
                return Response(200, openapi_v2.document(), openapi_v2.CONTENT_TYPE)
            info = {"title": "Kubernetes", "version": VERSION["gitVersion"]}
            return json_response({"swagger": "2.0", "info": info, "paths": {}, "definitions": {}})
        if not parts:
            paths = ["/api", "/api/v1", "/apis", "/healthz", "/livez", "/openapi/v3", "/readyz", "/version"]
            return json_response({"paths": paths})
        return None

    def _openapi_document(self, parts: list[str]) -> Response | None:
        if not parts:
            return json_response(self._openapi.index())
        group, version = ("", parts[-1]) if parts[0] == "api" else (parts[1] if len(parts) == 3 else "", parts[-1])
        body = self._openapi.document(group, version)
        return Response(200, body) if body else None

    def _discovered(self, request: Request, parts: list[str]) -> Response | None:
        if len(parts) == 1:
            core = parts[0] == "api"
            wanted = negotiate(request.headers.get("accept", ""), discovery=True)
            if wanted.kind:
                content_type = AGGREGATED.format(version=wanted.version)
                return json_response(self.discovery.aggregated(wanted.version, core=core), content_type=content_type)
            if core:
                return json_response(self.discovery.api_versions(request.headers.get("host", "")))
            return json_response(self.discovery.groups())
        if parts[0] == "api":
            found = self.discovery.resources("", parts[1])
        elif len(parts) == 2:
            found = self.discovery.group(parts[1])
        else:
            if (parts[1], parts[2]) == METRICS_GROUP and self.options.metrics is None:
                return text_response("service unavailable\n", 503)
            found = self.discovery.resources(parts[1], parts[2])
        return None if found is None else json_response(found)

    async def _resource(self, request: Request) -> Response:
        target = request.target
        if (target.group, target.version) == METRICS_GROUP:
            return metrics.serve(self.options.metrics, self._lister, request)
        kind = self.registry.kinds.served(target.group, target.version, target.resource)
        if kind is None and (target.group, target.resource) == ("", "bindings"):
            return await self._subresources.bind(request, "")
        if kind is None or not _scope_fits(kind, target):
            raise no_such_resource()
        if kind.plural in _REVIEWS and not kind.custom:
            return await self._review(request, kind)
        if target.subresource:
            return await self._subresource(request, kind)
        rendering = negotiate(request.headers.get("accept", ""))
        response = await self._object(request, kind, rendering)
        if kind.resource == "endpoints":
            response.headers.append(warning(_ENDPOINTS_DEPRECATED))
        return response

    async def _object(self, request: Request, kind: Kind, rendering: Rendering) -> Response:
        verb = request.target.verb
        if verb not in kind.verbs or (verb == "create" and request.target.name):
            raise method_not_allowed()
        if verb in ("update", "patch") and not request.target.name:
            raise method_not_allowed()
        if verb == "watch":
            return self._watch(request, kind, rendering)
        if verb == "get":
            return self._lister.get(request, kind, rendering)
        if verb == "list":
            return self._lister.list_objects(request, kind, rendering)
        if verb == "create":
            return await self._writer.create(request, kind, rendering)
        if verb == "update":
            return await self._writer.update(request, kind, rendering)
        if verb == "patch":
            return await self._writer.patch(request, kind, rendering)
        if verb == "delete":
            return await self._writer.delete(request, kind, rendering)
        return await self._writer.delete_collection(request, kind)

    def _watch(self, request: Request, kind: Kind, rendering: Rendering) -> Response:
        watcher = Watcher(self.registry, self._lister, request, kind, rendering)
        self._watchers.add(watcher)
        response = watch_response(watcher, self.closing, self.faults)
        response.stream = self._tracked(watcher, response.stream)
        return response

    async def _tracked(self, watcher: Watcher, stream: Any) -> Any:
        try:
            async for chunk in stream:
                yield chunk
        finally:
            self._watchers.discard(watcher)
            await stream.aclose()

    async def _review(self, request: Request, kind: Kind) -> Response:
        if request.target.verb != "create":
            raise method_not_allowed()
        body = await self._writer.read_body(request, kind)
        writer = managed.Writer(field_manager(request), kind.api_version, self.registry.now())
        answered = self._reviews.answer(kind, body.obj, request.user, request.target.namespace, writer)
        return json_response(answered, 201)

    async def _subresource(self, request: Request, kind: Kind) -> Response:
        name, verb = request.target.subresource, request.target.verb
        top = name.partition("/")[0]
        sub = kind.subresource(top)
        if sub is None:
            raise no_such_resource()
        if top in _CONTAINER_SUBRESOURCES:
            self._subresources.without_containers(top)
        if verb not in sub.verbs and not (verb == "get" and "get" in sub.verbs):
            raise method_not_allowed()
        rendering = negotiate(request.headers.get("accept", "")) if name != "log" else Rendering()
        if name == "scale":
            return await self._subresources.scale(request, kind)
        if name in ("status", "finalize", "approval", "ephemeralcontainers"):
            return await self._part(request, kind, rendering, name)
        handlers: dict[str, Callable[[], Awaitable[Response]]] = {
            "eviction": lambda: self._subresources.evict(request),
            "binding": lambda: self._subresources.bind(request, request.target.name),
            "resize": lambda: self._subresources.resize(request, kind),
            "token": lambda: self._subresources.token(request),
        }
        if name == "log":
            return self._subresources.log(request)
        if name not in handlers:
            raise no_such_resource()
        return await handlers[name]()

    async def _part(self, request: Request, kind: Kind, rendering: Rendering, name: str) -> Response:
        if name == "ephemeralcontainers":
            self._subresources.without_containers(name)
        verb = request.target.verb
        if verb == "get":
            return self._lister.get(request, kind, rendering)
        part = "status" if name == "approval" else name
        if verb == "update":
            return await self._writer.update(request, kind, rendering, part)
        return await self._writer.patch(request, kind, rendering, part)


def _scope_fits(kind: Kind, target: Target) -> bool:
    """Namespaced kinds take a namespace (but for lists and watches of all), cluster-scoped ones none."""
    if kind.resource == "namespaces":
        return True
    if kind.namespaced:
        return bool(target.namespace) or (not target.name and target.verb in ("list", "watch", "deletecollection"))
    return not target.namespace


def _health(request: Request, name: str) -> Response:
    if "verbose" not in request.query:
        return text_response("ok")
    lines = "".join(f"[+]{check} ok\n" for check in _HEALTH_CHECKS)
    return text_response(f"{lines}{name} check passed\n")


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


__all__ = ["ApiOptions", "Control", "PlaygroundApi", "create_app"]
