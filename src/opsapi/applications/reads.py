"""The API that reads applications: the list of a workspace's, and one's details."""

from typing import Annotated

import msgspec

from opsapi.applications import examples
from opsapi.applications.details import NO_REPLICAS, build_details
from opsapi.applications.details_model import Details
from opsapi.applications.errors import ApplicationNotFound
from opsapi.applications.identity import Applications, Order
from opsapi.applications.listing import ApplicationKind, ApplicationList, ListFilter, listed, parse_labels
from opsapi.applications.traffic import with_traffic
from opsapi.kit.caller import Call
from opsapi.kit.cursor import decode_cursor, encode_cursor
from opsapi.kit.endpoint import (
    APPLICATION_OPERATIONS,
    WORKSPACE_OPERATIONS,
    Idempotency,
    NoBody,
    Params,
    Partial,
    Reply,
    Scope,
    endpoint,
)
from opsapi.kit.errors import AmbiguousResource, DependencyUnavailable, ValidationFailed
from opsapi.kit.permissions import Permission
from opsapi.telemetry.ports import Metrics
from opsapi.telemetry.sources import MetricsSources
from opsapi.workspaces.errors import WorkspaceNotFound
from opsapi.workspaces.objects import APPLICATION_KINDS, POD, REPLICA_SET
from opsapi.workspaces.states import ApplicationState

_TAG = "Applications"


class ApplicationsParams(Params, frozen=True, kw_only=True):
    """`project` is a namespace, `name` a prefix, `label` like `team=web,tier=front` (all must match)."""

    workspace_id: str
    project: Annotated[str, msgspec.Meta(min_length=1, max_length=63)] | None = None
    kind: ApplicationKind | None = None
    status: ApplicationState | None = None
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=253)] | None = None
    label: Annotated[str, msgspec.Meta(min_length=1, max_length=1000)] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=500)] = 50
    cursor: str | None = None


class DetailsParams(Params, frozen=True, kw_only=True):
    """`limit`: how many pods are shown, worst first."""

    application_id: str
    limit: Annotated[int, msgspec.Meta(ge=1, le=500)] = 50


class _Position(msgspec.Struct, frozen=True):
    after: Order


class ApplicationReadEndpoints:
    def __init__(self, applications: Applications, metrics: Metrics | None = None) -> None:
        """Without `metrics` no source counts requests, and the details say so."""
        self._applications = applications
        self._metrics = metrics or MetricsSources()

    @endpoint(
        "GET",
        "/internal/v1/workspaces/{workspace_id}/applications",
        permission=Permission.WORKSPACE_READ,
        scope=Scope.WORKSPACE,
        limit=WORKSPACE_OPERATIONS,
        idempotency=Idempotency.SAFE,
        summary="List a workspace's applications",
        tag=_TAG,
        answer=ApplicationList,
        errors=(WorkspaceNotFound, ValidationFailed, DependencyUnavailable),
        fields=True,
    )
    async def list_applications(self, call: Call, params: ApplicationsParams, _body: NoBody) -> Reply[ApplicationList]:
        """In the order of project, name and kind; filters combine."""
        call.audit.workspace_id = params.workspace_id
        index = self._applications.index(params.workspace_id, call.caller.grants)
        wanted = ListFilter(
            project=params.project,
            kind=params.kind,
            status=params.status,
            name=params.name,
            labels=parse_labels(params.label) if params.label is not None else {},
        )
        filters = msgspec.json.encode(wanted, order="sorted").decode()
        purpose = f"applications:{params.workspace_id}:{filters}"
        after = decode_cursor(purpose, params.cursor, _Position).after if params.cursor is not None else None
        observed_at = index.view.inventory.require(*APPLICATION_KINDS, REPLICA_SET, POD)
        page, last = listed(index, wanted, after, params.limit)
        return Reply(
            page,
            observed_at=observed_at,
            partial=_unscaled(page),
            truncated=last is not None,
            next_cursor=encode_cursor(purpose, _Position(last)) if last is not None else None,
            warnings=[*index.view.unread(*APPLICATION_KINDS), *index.view.stale(*APPLICATION_KINDS, POD)],
        )

    @endpoint(
        "GET",
        "/internal/v1/applications/{application_id}/details",
        permission=Permission.APPLICATION_READ,
        scope=Scope.APPLICATION,
        limit=APPLICATION_OPERATIONS,
        idempotency=Idempotency.SAFE,
        summary="Get an application's details",
        tag=_TAG,
        answer=Details,
        errors=(ApplicationNotFound, AmbiguousResource, ValidationFailed, DependencyUnavailable),
        examples=(examples.DETAILS,),
        fields=True,
    )
    async def get_application_details(self, call: Call, params: DetailsParams, _body: NoBody) -> Reply[Details]:
        """The workload, its pods (worst first), the services that select it, its health and measured usage."""
        ref, view = self._applications.find(params.application_id, call.caller.grants)
        call.audit.workspace_id = ref.workspace_id
        call.audit.resource = f"application/{ref.id}"
        built = await with_traffic(build_details(ref, view, params.limit), ref, self._metrics)
        return Reply(
            built.data,
            observed_at=built.observed_at,
            partial=built.partial,
            truncated=built.truncated,
            warnings=[*view.stale(ref.kind, POD), *built.warnings],
        )


def _unscaled(page: ApplicationList) -> list[Partial]:
    if all(one.replicas is not None for one in page.applications):
        return []
    return [Partial("applications[].replicas", NO_REPLICAS)]
