"""The API of the audit."""

from datetime import UTC, datetime
from typing import Annotated

import msgspec

from opsapi.audit.model import AuditEntry, Outcome
from opsapi.audit.ports import AuditFilter, AuditPosition, AuditStore
from opsapi.kit.caller import Call
from opsapi.kit.cursor import decode_cursor, encode_cursor
from opsapi.kit.endpoint import OTHER, Idempotency, NoBody, Params, Reply, Scope, endpoint
from opsapi.kit.errors import DependencyUnavailable, ValidationFailed
from opsapi.kit.permissions import Permission

Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class AuditParams(Params, frozen=True, kw_only=True, rename={"since": "from", "until": "to"}):
    """`from` (inclusive) and `to` (exclusive) like `2024-01-20T15:30:00Z`; `account` may be an id that nobody has."""

    account: str | None = None
    workspace: str | None = None
    endpoint: str | None = None
    operation: str | None = None
    request_id: str | None = None
    status: Annotated[int, msgspec.Meta(ge=100, le=599)] | None = None
    outcome: Outcome | None = None
    since: Moment | None = None
    until: Moment | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=500)] = 50
    cursor: str | None = None


class AuditPage(msgspec.Struct, frozen=True, kw_only=True):
    entries: list[AuditEntry]


class AuditEndpoints:
    def __init__(self, store: AuditStore) -> None:
        self._store = store

    @endpoint(
        "GET",
        "/internal/v1/audit",
        permission=Permission.AUDIT_READ,
        scope=Scope.SYSTEM,
        limit=OTHER,
        idempotency=Idempotency.SAFE,
        summary="Read the audit",
        tag="Audit",
        answer=AuditPage,
        params=AuditParams,
        errors=(ValidationFailed, DependencyUnavailable),
        fields=True,
    )
    async def list_audit_entries(self, call: Call, params: AuditParams, _body: NoBody) -> Reply[AuditPage]:
        """The newest first. Who holds `audit:read` in some workspaces sees the entries of these only."""
        wanted = AuditFilter(
            workspaces=call.caller.grants.workspaces(Permission.AUDIT_READ),
            account_id=params.account,
            workspace_id=params.workspace,
            endpoint=params.endpoint,
            operation_id=params.operation,
            request_id=params.request_id,
            status=params.status,
            outcome=params.outcome,
            since=_utc("from", params.since),
            until=_utc("to", params.until),
        )
        after = decode_cursor("audit", params.cursor, AuditPosition) if params.cursor is not None else None
        if after is not None:
            _utc("cursor", after.at)
        found = await self._store.page(wanted, after, params.limit + 1)
        page, more = found[: params.limit], len(found) > params.limit
        return Reply(
            AuditPage(entries=page),
            truncated=more,
            next_cursor=encode_cursor("audit", AuditPosition(page[-1].at, page[-1].id)) if more else None,
            untrusted=[f"/entries/{i}/{name}" for i, one in enumerate(page) for name in _untrusted(one)],
        )


def _untrusted(entry: AuditEntry) -> list[str]:
    """What callers wrote freely; ids and statuses are ours."""
    return [name for name in ("reason", "claimed_account_id", "agent_run", "path") if getattr(entry, name) is not None]


def _utc(field: str, moment: datetime | None) -> datetime | None:
    try:
        return None if moment is None else moment.astimezone(UTC)
    except OverflowError:
        raise ValidationFailed({field: "is out of range"}) from None
