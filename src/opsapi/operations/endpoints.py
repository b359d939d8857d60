"""Reading operations: the list, and one, with a wait for its next change."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from opsapi.kit.caller import Call
from opsapi.kit.clock import Clock
from opsapi.kit.cursor import decode_cursor, encode_cursor
from opsapi.kit.endpoint import (
    OPERATION_READS,
    EventStream,
    Example,
    Idempotency,
    NoBody,
    Params,
    Reply,
    Scope,
    ServerSentEvent,
    endpoint,
)
from opsapi.kit.errors import DependencyUnavailable, ValidationFailed
from opsapi.kit.permissions import Grants, Permission
from opsapi.operations.errors import OperationNotFound
from opsapi.operations.model import Operation, State
from opsapi.operations.ports import Ledger, OperationFilter
from opsapi.operations.settings import EngineSettings
from opsapi.operations.signals import Signals
from opsapi.operations.view import OperationList, OperationView, summary, unobserved, untrusted, view

_LONGEST_ID = Meta(max_length=253)
_POLL_MS = 1000
_STREAM_SECONDS = 600.0
_KEEP_ALIVE_SECONDS = 15.0
"""Below the time after which proxies cut a silent line."""
_VISIBLE_BY = (
    Permission.WORKSPACE_READ,
    Permission.APPLICATION_READ,
    Permission.INCIDENT_READ,
    Permission.APPROVALS_WRITE,
)
"""Whoever may start or decide an operation in a workspace may follow it there."""
_RESPONSE = {
    "operation_id": "op-789",
    "operation": "auto_heal",
    "status": "running",
    "started_at": "2024-01-20T15:30:00Z",
    "estimated_completion": "2024-01-20T15:35:00Z",
    "steps": [
        {
            "step": "identify_unhealthy_pods",
            "status": "completed",
            "duration": "5s",
            "result": "Found 2 unhealthy pods",
        },
        {"step": "restart_pods", "status": "in_progress", "estimated_duration": "30s"},
        {"step": "verify_health", "status": "pending", "estimated_duration": "60s"},
    ],
    "outcome": None,
    "workspace_id": "ws-123",
    "application_id": None,
    "created_at": "2024-01-20T15:30:00Z",
    "finished_at": None,
    "requested_by": "sa-healer",
    "requested_by_kind": "agent",
    "on_behalf_of": None,
    "agent_run": "run-42",
    "approved_by": None,
    "reason": None,
    "parameters": {"action": "restart_unhealthy_pods"},
    "plan_hash": None,
    "result": None,
    "error": None,
}


class OperationsParams(Params, frozen=True, kw_only=True):
    """Filters; all that are given must hold. `state` may list several, comma-separated."""

    workspace: Annotated[str, _LONGEST_ID] | None = None
    application: Annotated[str, _LONGEST_ID] | None = None
    operation: Annotated[str, _LONGEST_ID] | None = None
    state: list[State] | None = None
    limit: Annotated[int, Meta(ge=1, le=500)] = 50
    cursor: str | None = None


class OperationParams(Params, frozen=True, kw_only=True):
    """`wait`: seconds to hold the line until something changes, at most what the configuration allows."""

    operation_id: str
    wait: Annotated[float, Meta(ge=0, le=3600)] = 0


class OperationPath(Params, frozen=True, kw_only=True):
    operation_id: str


class Position(msgspec.Struct, frozen=True):
    created_at: Annotated[datetime, Meta(tz=True)]
    id: str


class OperationEndpoints:
    def __init__(self, ledger: Ledger, signals: Signals, clock: Clock, settings: EngineSettings) -> None:
        self._ledger = ledger
        self._signals = signals
        self._clock = clock
        self._settings = settings

    @endpoint(
        "GET",
        "/internal/v1/operations",
        permission=None,
        scope=Scope.SYSTEM,
        limit=OPERATION_READS,
        idempotency=Idempotency.SAFE,
        summary="List operations",
        tag="Operations",
        answer=OperationList,
        params=OperationsParams,
        errors=(ValidationFailed, DependencyUnavailable),
        fields=True,
    )
    async def list_operations(self, call: Call, params: OperationsParams, _body: NoBody) -> Reply[OperationList]:
        """The newest first, of the workspaces in which the account may read workspaces, applications or incidents."""
        purpose = f"operations {params.workspace} {params.application} {params.operation} {sorted(params.state or ())}"
        before = None
        if params.cursor is not None:
            position = decode_cursor(purpose, params.cursor, Position)
            before = (position.created_at, position.id)
        workspaces = visible_workspaces(call.caller.grants)
        if params.workspace is not None:
            shown = workspaces is None or params.workspace in workspaces
            workspaces = frozenset({params.workspace}) if shown else frozenset()
        wanted = OperationFilter(
            workspaces=workspaces,
            application_id=params.application,
            action=params.operation,
            states=frozenset(params.state or ()) or None,
            before=before,
            limit=params.limit + 1,
        )
        found = await self._ledger.find(wanted)
        page, more = found[: params.limit], len(found) > params.limit
        now = self._clock.now()
        return Reply(
            OperationList([summary(operation, now) for operation in page]),
            truncated=more,
            untrusted=[f"/operations/{i}/reason" for i, operation in enumerate(page) if operation.reason is not None],
            next_cursor=encode_cursor(purpose, Position(page[-1].created_at, page[-1].id)) if more else None,
        )

    @endpoint(
        "GET",
        "/internal/v1/operations/{operation_id}",
        permission=None,
        scope=Scope.SYSTEM,
        limit=OPERATION_READS,
        idempotency=Idempotency.SAFE,
        summary="Follow an operation",
        tag="Operations",
        answer=OperationView,
        params=OperationParams,
        errors=(ValidationFailed, OperationNotFound, DependencyUnavailable),
        examples=(Example("running", response=_RESPONSE),),
        fields=True,
    )
    async def get_operation(self, call: Call, params: OperationParams, _body: NoBody) -> Reply[OperationView]:
        """One operation with its steps. With `?wait=30` the answer comes as soon as anything about it changes, or
        after so many seconds (at most the configured limit); one that has ended is answered at once."""
        with self._signals.subscribe(params.operation_id) as progress:
            operation = await self._visible(call, params.operation_id)
            until = self._clock.monotonic() + min(params.wait, self._settings.wait_max_seconds)
            first = operation
            while not operation.state.final and operation == first:
                left = until - self._clock.monotonic()
                if left <= 0:
                    break
                await progress.wait(min(left, self._settings.poll_seconds))
                operation = await self._visible(call, params.operation_id)
        call.audit.workspace_id = operation.workspace_id
        call.audit.operation_id = operation.id
        now = self._clock.now()
        return Reply(
            view(operation, now),
            partial=unobserved(operation, now),
            untrusted=untrusted(operation),
            poll_after_ms=None if operation.state.final else _POLL_MS,
        )

    @endpoint(
        "GET",
        "/internal/v1/operations/{operation_id}/events",
        permission=None,
        scope=Scope.SYSTEM,
        limit=OPERATION_READS,
        idempotency=Idempotency.SAFE,
        summary="Follow an operation by server-sent events",
        tag="Operations",
        answer=OperationView,
        errors=(ValidationFailed, OperationNotFound, DependencyUnavailable),
        streams=True,
    )
    async def stream_operation(self, call: Call, params: OperationPath, _body: NoBody) -> EventStream:
        """The operation as it stands, at once and whenever anything about it changes, each as an event `operation` with
        the whole of it; the stream ends with the operation, or after ten minutes (then connect again)."""
        operation = await self._visible(call, params.operation_id)
        call.audit.workspace_id = operation.workspace_id
        call.audit.operation_id = operation.id
        return EventStream(self._changes(call, operation))

    async def _changes(self, call: Call, operation: Operation) -> AsyncIterator[ServerSentEvent]:
        until = self._clock.monotonic() + _STREAM_SECONDS
        quiet_since = self._clock.monotonic()
        shown: Operation | None = None
        with self._signals.subscribe(operation.id) as progress:
            while True:
                if operation != shown:
                    shown, quiet_since = operation, self._clock.monotonic()
                    yield ServerSentEvent("operation", view(operation, self._clock.now()))
                if operation.state.final or self._clock.monotonic() >= until:
                    return
                await progress.wait(self._settings.poll_seconds)
                if self._clock.monotonic() - quiet_since >= _KEEP_ALIVE_SECONDS:
                    quiet_since = self._clock.monotonic()
                    yield ServerSentEvent("")
                operation = await self._visible(call, operation.id)

    async def _visible(self, call: Call, operation_id: str) -> Operation:
        operation = await self._ledger.get(operation_id) if len(operation_id) <= 80 else None
        if operation is None:
            raise OperationNotFound(operation_id)
        workspaces = visible_workspaces(call.caller.grants)
        if workspaces is not None and operation.workspace_id not in workspaces:
            raise OperationNotFound(operation_id)
        return operation


def visible_workspaces(grants: Grants) -> frozenset[str] | None:
    """Where the account may see operations; None means everywhere."""
    found: frozenset[str] = frozenset()
    for permission in _VISIBLE_BY:
        workspaces = grants.workspaces(permission)
        if workspaces is None:
            return None
        found |= workspaces
    return found
