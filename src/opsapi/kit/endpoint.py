"""One declaration per endpoint, from which routing, guard, decoding, encoding, audit, OpenAPI, the permission table,
the agents' tools and the client all come. Pure: knows nothing of HTTP's machinery.

A domain declares with the decorator on the methods of its endpoints class:

    class NodeEndpoints:
        @endpoint(GET, "/internal/v1/workspaces/{workspace_id}/nodes", permission=Permission.WORKSPACE_READ,
                  scope=Scope.WORKSPACE, limit=WORKSPACE_OPERATIONS, idempotency=Idempotency.SAFE, …)
        async def nodes(self, call: Call, params: NodesParams, body: NoBody) -> Reply[Nodes]: ...

and wiring passes instances to `declared`, which binds the methods.
"""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Generic, Literal, TypeVar

import msgspec

from opsapi.kit.caller import Call
from opsapi.kit.errors import OpsError
from opsapi.kit.permissions import Permission

Method = Literal["GET", "POST", "PATCH", "DELETE"]
T = TypeVar("T")
Handler = Callable[[Call, Any, Any], Awaitable["Reply[Any] | EventStream"]]


class Scope(StrEnum):
    """Where the permission must hold, and what the rate limit is counted by."""

    SYSTEM = "system"
    """Unbound permissions, or answers filtered by the handler to what the caller may see."""
    WORKSPACE = "workspace"
    """In the workspace that the path's `workspace_id` names."""
    APPLICATION = "application"
    """In the workspace of the application that the path's `application_id` names."""


class Idempotency(StrEnum):
    SAFE = "safe"
    """Changes nothing; a key is ignored."""
    KEYED = "keyed"
    """Honours Idempotency-Key."""
    NATURAL = "natural"
    """Repeating it changes nothing more (DELETE); honours the key too."""
    REFUSED = "refused"
    """Answers with a secret, which is never stored for a replay: the key is refused."""


@dataclass(frozen=True, slots=True)
class LimitClass:
    """Requests a minute, counted per account and, with `scoped`, per the workspace or application addressed."""

    name: str
    per_minute: int
    scoped: bool = False


HEALTH = LimitClass("health", 100)
WORKSPACE_OPERATIONS = LimitClass("workspace_operations", 50, scoped=True)
APPLICATION_OPERATIONS = LimitClass("application_operations", 30, scoped=True)
LOG_QUERIES = LimitClass("log_queries", 20)
OPERATION_READS = LimitClass("operation_reads", 300)
ALERTS = LimitClass("alerts", 600)
OTHER = LimitClass("other", 100)
LIMIT_CLASSES = (HEALTH, WORKSPACE_OPERATIONS, APPLICATION_OPERATIONS, LOG_QUERIES, OPERATION_READS, ALERTS, OTHER)
"""Defaults; the configuration may set others by name."""


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of request bodies: unknown fields are refused."""


class Params(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of path and query parameters, one field each, decoded from strings; unknown ones are refused.

    `str`, `int`, `float`, `bool`, enums and `list[str]` (comma-separated) are allowed. A field named in the path's
    braces comes from the path.
    """


class NoBody(Body, frozen=True, kw_only=True):
    """The endpoint takes no body (an empty one or `{}` is accepted)."""


class NoParams(Params, frozen=True, kw_only=True):
    pass


class Partial(msgspec.Struct, frozen=True):
    """Why a field is null: `field` is its dotted path below `data`, with `[]` for every element of a list."""

    field: str
    reason: str


@dataclass(slots=True)
class Reply(Generic[T]):
    """What a handler answers. `status` 0 takes the declaration's first success status.

    `observed_at`: the age of the oldest observation behind the answer. `untrusted`: JSON Pointers below `data` to
    text that workloads or callers wrote. `next_cursor` continues a list. `operation_id` makes a 202 with `Location`.
    """

    data: T
    status: int = 0
    observed_at: datetime | None = None
    partial: list[Partial] = field(default_factory=list)
    truncated: bool = False
    untrusted: list[str] = field(default_factory=list)
    next_cursor: str | None = None
    operation_id: str | None = None
    poll_after_ms: int | None = None
    warnings: list[str] = field(default_factory=list)
    encoded: msgspec.Raw | None = None
    """`data` as JSON already, where many calls get the same answer; sent in its place unless fields were selected."""


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """`data` is encoded as JSON on one line. One without a name is a comment that keeps the line open."""

    name: str
    data: Any = None


@dataclass(frozen=True, slots=True)
class EventStream:
    """What a handler answers in place of a Reply: server-sent events, until there are no more or the client goes.

    https://html.spec.whatwg.org/multipage/server-sent-events.html
    """

    events: AsyncIterator[ServerSentEvent]


@dataclass(frozen=True, slots=True)
class Example:
    """A golden example for the docs: what is sent and what `data` comes back."""

    name: str
    response: Any
    request: Any = None
    status: int = 0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The declaration. Permission, limit and idempotency have no default, so an endpoint without them cannot exist."""

    method: Method
    path: str
    permission: Permission | None
    """None: any authenticated account (whoami)."""
    scope: Scope
    limit: LimitClass
    idempotency: Idempotency
    name: str
    summary: str
    tag: str
    answer: Any
    description: str = ""
    params: type[Params] = NoParams
    body: type[Body] = NoBody
    success: tuple[int, ...] = (200,)
    errors: tuple[type[OpsError], ...] = ()
    examples: tuple[Example, ...] = ()
    dry_run: bool = False
    fields: bool = False
    """Whether `?fields=a,b.c` may select parts of `data`; http handles it."""
    audit_reads: bool = True
    streams: bool = False
    """Answers an EventStream of `answer`s."""
    basic_auth: bool = False
    """Takes `Authorization: Basic` with `account:token` as well, for clients that can send no other headers."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A declaration with the handler that serves it."""

    declaration: Endpoint
    handle: Handler


_ATTRIBUTE = "__endpoint__"


def endpoint(
    method: Method,
    path: str,
    *,
    permission: Permission | None,
    scope: Scope,
    limit: LimitClass,
    idempotency: Idempotency,
    summary: str,
    tag: str,
    answer: Any,
    **optional: Any,
) -> Callable[[T], T]:
    """Declares the decorated method as an endpoint; its name is the operationId, its docstring the description, and
    `params` and `body` are the types that its signature names."""

    def mark(function: T) -> T:
        declaration = Endpoint(
            method=method,
            path=path,
            permission=permission,
            scope=scope,
            limit=limit,
            idempotency=idempotency,
            name=function.__name__,  # type: ignore[attr-defined]
            summary=summary,
            tag=tag,
            answer=answer,
            **(_said(function) | optional),
        )
        setattr(function, _ATTRIBUTE, declaration)
        return function

    return mark


def _said(function: Any) -> dict[str, Any]:
    said: dict[str, Any] = {"description": " ".join((function.__doc__ or "").split())}
    for annotation in inspect.get_annotations(function).values():
        if isinstance(annotation, type) and issubclass(annotation, Params):
            said["params"] = annotation
        elif isinstance(annotation, type) and issubclass(annotation, Body):
            said["body"] = annotation
    return said


def declarations(*classes: type) -> list[Endpoint]:
    """The declarations of endpoint classes, without instances: for OpenAPI and the permission table."""
    return [
        getattr(member, _ATTRIBUTE) for cls in classes for member in vars(cls).values() if hasattr(member, _ATTRIBUTE)
    ]


def declared(instances: Iterable[object]) -> list[Bound]:
    """Binds the declared methods of each instance."""
    return [
        Bound(declaration, getattr(instance, declaration.name))
        for instance in instances
        for declaration in declarations(type(instance))
    ]
