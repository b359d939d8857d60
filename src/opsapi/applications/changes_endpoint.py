"""GET /applications/{application_id}/changes."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from opsapi.applications.changes_model import UNKNOWN, Change
from opsapi.applications.changes_ports import ChangeStore
from opsapi.kit.caller import Call
from opsapi.kit.cursor import decode_cursor, encode_cursor
from opsapi.kit.endpoint import (
    APPLICATION_OPERATIONS,
    Example,
    Idempotency,
    NoBody,
    Params,
    Partial,
    Reply,
    Scope,
    endpoint,
)
from opsapi.kit.errors import AmbiguousResource, DependencyUnavailable, ResourceNotFound, ValidationFailed
from opsapi.kit.permissions import Permission

_EXAMPLE = {
    "application_id": "app-123",
    "workspace_id": "ws-123",
    "changes": [
        {
            "id": "chg-7k2m9q4x1v8c5b3n",
            "field": "replicas",
            "before": 3,
            "after": 5,
            "changed_at": "2024-01-20T15:30:02Z",
            "observed_at": "2024-01-20T15:30:02Z",
            "kind": "Deployment",
            "project": "shop",
            "name": "web-app",
            "uid": "0b2c9a52-6b0e-4b0a-9a39-6f1f2f4f8a11",
            "actor": "sa-scaler",
            "actor_kind": "agent",
            "manager": "opsapi",
            "operation_id": "op-7k2m9q4x1v8c5b3n",
            "approved_by": None,
            "reason": "Increased traffic detected",
        }
    ],
}


class ChangesParams(Params, frozen=True, kw_only=True):
    application_id: str
    limit: Annotated[int, Meta(ge=1, le=500)] = 50
    cursor: str | None = None


class ChangeView(msgspec.Struct, frozen=True, kw_only=True):
    """`actor`: the account behind an operation of this service, the HorizontalPodAutoscaler that set the replicas
    (`actor_kind` is `autoscaler` then), else `unknown`; `manager` is what Kubernetes says wrote the field. `changed_at`
    is null where Kubernetes does not say when."""

    id: str
    field: str
    before: Any
    after: Any
    changed_at: datetime | None
    observed_at: datetime
    kind: str
    project: str
    name: str
    uid: str
    actor: str
    actor_kind: str | None
    manager: str | None
    operation_id: str | None
    approved_by: str | None
    reason: str | None


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    application_id: str
    workspace_id: str
    changes: list[ChangeView]


class Position(msgspec.Struct, frozen=True):
    observed_at: Annotated[datetime, Meta(tz=True)]
    id: str


class ChangesEndpoints:
    def __init__(self, store: ChangeStore) -> None:
        self._store = store

    @endpoint(
        "GET",
        "/internal/v1/applications/{application_id}/changes",
        permission=Permission.WORKSPACE_READ,
        scope=Scope.APPLICATION,
        limit=APPLICATION_OPERATIONS,
        idempotency=Idempotency.SAFE,
        summary="Who changed an application",
        tag="Applications",
        answer=Changes,
        params=ChangesParams,
        errors=(ValidationFailed, ResourceNotFound, AmbiguousResource, DependencyUnavailable),
        examples=(Example("changes", response=_EXAMPLE),),
        fields=True,
    )
    async def list_application_changes(self, call: Call, params: ChangesParams, _body: NoBody) -> Reply[Changes]:
        """Every change of its replicas, images, resources and autoscaler that was seen, the newest first: before and
        after, who wrote it, when and, where it was an operation of this service, for whom and why."""
        workspace_id = call.audit.workspace_id
        if workspace_id is None:
            raise ResourceNotFound("application", params.application_id)
        purpose = f"changes {workspace_id} {params.application_id}"
        before = None
        if params.cursor is not None:
            position = decode_cursor(purpose, params.cursor, Position)
            before = (position.observed_at, position.id)
        found = await self._store.page(workspace_id, params.application_id, before=before, limit=params.limit + 1)
        page, more = found[: params.limit], len(found) > params.limit
        return Reply(
            Changes(
                application_id=params.application_id,
                workspace_id=workspace_id,
                changes=[_view(change) for change in page],
            ),
            partial=_unattributed(page),
            truncated=more,
            untrusted=[f"/changes/{i}/reason" for i, change in enumerate(page) if change.reason is not None],
            next_cursor=encode_cursor(purpose, Position(page[-1].observed_at, page[-1].id)) if more else None,
        )


def _view(change: Change) -> ChangeView:
    return ChangeView(
        id=change.id,
        field=change.field,
        before=change.before,
        after=change.after,
        changed_at=change.changed_at.replace(microsecond=0) if change.changed_at is not None else None,
        observed_at=change.observed_at.replace(microsecond=0),
        kind=change.kind,
        project=change.namespace,
        name=change.name,
        uid=change.uid,
        actor=change.actor or UNKNOWN,
        actor_kind=change.actor_kind,
        manager=change.manager,
        operation_id=change.operation_id,
        approved_by=change.approved_by,
        reason=change.reason,
    )


def _unattributed(page: list[Change]) -> list[Partial]:
    found = []
    if any(change.changed_at is None for change in page):
        found.append(
            Partial("changes[].changed_at", "the object's managedFields do not say when the field was written")
        )
    if any(change.manager is None for change in page):
        found.append(Partial("changes[].manager", "the object's managedFields do not name a writer of the field"))
    return found
