"""One HTTP request as the API server understands it: verb, resource, parameters, content types, body."""

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from opsapi.playground.machinery.status import failure
from opsapi.playground.registry import User

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MAX_BODY = 3 << 20
_METHOD_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch"}
_NAMESPACE_SUBRESOURCES = ("status", "finalize")
_TRUE = ("true", "1", "True", "t", "T", "TRUE")


@dataclass(frozen=True, slots=True)
class Target:
    """What a path and method name, in authorization's terms. `is_resource` is False for /healthz and the like."""

    verb: str
    path: str
    is_resource: bool = False
    group: str = ""
    version: str = ""
    namespace: str = ""
    resource: str = ""
    name: str = ""
    subresource: str = ""


@dataclass(slots=True)
class Request:
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    raw_headers: list[tuple[bytes, bytes]]
    receive: Receive
    target: Target
    user: User = field(default=User("system:anonymous", ("system:unauthenticated",)))

    def param(self, name: str, default: str = "") -> str:
        values = self.query.get(name)
        return values[0] if values else default

    def all_headers(self, name: str) -> list[str]:
        return [value.decode("latin-1") for key, value in self.raw_headers if key.decode("latin-1").lower() == name]

    def flag(self, name: str) -> bool:
        values = self.query.get(name)
        return bool(values) and values[0] in ("", *_TRUE) if values else False

    async def body(self) -> bytes:
        """Raises ApiError (413) beyond 3 MiB."""
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await self.receive()
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > MAX_BODY:
                told = f"Request entity too large: limit is {MAX_BODY}"
                raise failure(413, "RequestEntityTooLarge", told, {})
            chunks.append(chunk)
            if not message.get("more_body", False):
                return b"".join(chunks)


def read_scope(scope: Scope, receive: Receive) -> Request:
    query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
    path = scope["path"]
    target = read_target(scope["method"], path, query)
    return Request(scope["method"], path, query, headers, list(scope["headers"]), receive, target)


def read_target(method: str, path: str, query: dict[str, list[str]]) -> Target:
    parts = [part for part in path.split("/") if part]
    verb = method.lower()
    if len(parts) >= 3 and parts[0] == "api":
        group, version, rest = "", parts[1], parts[2:]
    elif len(parts) >= 4 and parts[0] == "apis":
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return Target(verb, path)
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in _NAMESPACE_SUBRESOURCES:
        namespace, rest = rest[1], rest[2:]
    elif rest[0] == "namespaces" and len(rest) > 1:
        namespace = rest[1]
    name = rest[1] if len(rest) > 1 else ""
    subresource = "/".join(rest[2:])
    return Target(_verb(method, name, query), path, True, group, version, namespace, rest[0], name, subresource)


def _verb(method: str, name: str, query: dict[str, list[str]]) -> str:
    if method in ("GET", "HEAD"):
        if (query.get("watch") or [""])[0] in _TRUE:
            return "watch"
        return "get" if name else "list"
    if method == "DELETE":
        return "delete" if name else "deletecollection"
    return _METHOD_VERBS.get(method, method.lower())


@dataclass(frozen=True, slots=True)
class Rendering:
    """How the client wants objects: plain, as a Table, or only their metadata. `version` is meta.k8s.io's."""

    kind: str = ""
    version: str = "v1"


_RENDERED = ("Table", "PartialObjectMetadata", "PartialObjectMetadataList")
JSON_TYPES = ("application/json", "*/*", "application/*", "")


def negotiate(accept: str, *, discovery: bool = False) -> Rendering:
    """The first of the accepted types that this server writes. Raises ApiError (406)."""
    for clause in accept.split(",") if accept else ("",):
        media, *parameters = (part.strip() for part in clause.split(";"))
        if media not in JSON_TYPES:
            continue
        held = dict(part.partition("=")[::2] for part in parameters)
        wanted = held.get("as", "")
        if not wanted:
            return Rendering()
        if discovery and wanted == "APIGroupDiscoveryList" and held.get("v") in ("v2", "v2beta1"):
            return Rendering(wanted, held["v"])
        if wanted in _RENDERED and held.get("g") == "meta.k8s.io" and held.get("v") in ("v1", "v1beta1"):
            return Rendering(wanted, held["v"])
    told = "only the following media types are accepted: application/json"
    raise failure(406, "NotAcceptable", told)
