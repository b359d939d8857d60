"""Audit entries. An entry never holds a token, a body or an answer."""

from datetime import datetime
from enum import StrEnum

import msgspec

from opsapi.kit.caller import AuditTrail, Call, Caller, System
from opsapi.kit.ids import new_id


class Outcome(StrEnum):
    """By the answer's status: below 400, below 500, the rest."""

    SUCCEEDED = "succeeded"
    REFUSED = "refused"
    FAILED = "failed"

    @classmethod
    def of(cls, status: int) -> "Outcome":
        return cls.SUCCEEDED if status < 400 else cls.REFUSED if status < 500 else cls.FAILED


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """`at`: when the request came in, UTC. `account_id` is null where no credentials held; then
    `claimed_account_id` is what the request said. `address` is the client's, `path` as sent, without the query."""

    id: str
    at: datetime
    account_id: str | None
    account_kind: str | None
    claimed_account_id: str | None = None
    token_id: str | None = None
    on_behalf_of: str | None = None
    agent_run: str | None = None
    address: str | None = None
    endpoint: str | None = None
    method: str
    path: str
    workspace_id: str | None = None
    resource: str | None = None
    operation_id: str | None = None
    status: int
    error_code: str | None = None
    outcome: Outcome
    duration_ms: float | None = None
    request_id: str
    reason: str | None = None


def request_entry(
    *,
    at: datetime,
    method: str,
    path: str,
    request_id: str,
    status: int,
    caller: Caller | None = None,
    claimed_account_id: str | None = None,
    address: str | None = None,
    endpoint: str | None = None,
    trail: AuditTrail | None = None,
    error_code: str | None = None,
    seconds: float | None = None,
) -> AuditEntry:
    """An entry of any request, also of one that got no further than its credentials."""
    trail = trail or AuditTrail()
    known = caller is not None
    return AuditEntry(
        id=new_id("aud"),
        at=at,
        account_id=caller.account_id if caller else None,
        account_kind=str(caller.kind) if caller else None,
        claimed_account_id=None if known else claimed_account_id or None,
        token_id=caller.token_id if caller else None,
        on_behalf_of=caller.on_behalf_of if caller else None,
        agent_run=caller.agent_run if caller else None,
        address=caller.address if caller else address,
        endpoint=endpoint,
        method=method,
        path=path,
        workspace_id=trail.workspace_id,
        resource=trail.resource,
        operation_id=trail.operation_id,
        status=status,
        error_code=error_code,
        outcome=Outcome.of(status),
        duration_ms=None if seconds is None else round(seconds * 1000, 3),
        request_id=request_id,
        reason=trail.reason,
    )


def entry_from(call: Call, status: int, *, now: float, error_code: str | None = None) -> AuditEntry:
    """An entry of a call past the guard; `now` is the clock's monotonic seconds, as `call.started` is."""
    return request_entry(
        at=call.received_at,
        method=call.method,
        path=call.path,
        request_id=call.request_id,
        status=status,
        caller=call.caller,
        endpoint=call.endpoint,
        trail=call.audit,
        error_code=error_code,
        seconds=now - call.started,
    )


def system_entry(
    by: System, status: int, *, at: datetime, resource: str | None = None, trail: AuditTrail | None = None
) -> AuditEntry:
    """An entry of what no request asked for: `method` is the origin in capitals, `path` the action."""
    trail = trail or AuditTrail(resource=resource)
    return AuditEntry(
        id=new_id("aud"),
        at=at,
        account_id=by.account_id,
        account_kind="system",
        on_behalf_of=by.user,
        method=by.origin.upper(),
        path=by.action,
        workspace_id=trail.workspace_id,
        resource=resource or trail.resource,
        operation_id=trail.operation_id,
        status=status,
        outcome=Outcome.of(status),
        request_id=new_id("req"),
        reason=trail.reason,
    )
