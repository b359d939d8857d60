"""The API of workspaces: registrations, overview and nodes."""

from datetime import datetime
from typing import Annotated

import msgspec

from opsapi.kit.caller import Call
from opsapi.kit.cursor import decode_cursor, encode_cursor
from opsapi.kit.endpoint import (
    OTHER,
    WORKSPACE_OPERATIONS,
    Body,
    Idempotency,
    NoBody,
    NoParams,
    Params,
    Reply,
    Scope,
    endpoint,
)
from opsapi.kit.errors import DependencyUnavailable, InvalidState, ValidationFailed
from opsapi.kit.permissions import Permission
from opsapi.operations.errors import OperationInProgress
from opsapi.workspaces import examples
from opsapi.workspaces.errors import WorkspaceNotFound
from opsapi.workspaces.model import Mode, Plan, Source, Workspace
from opsapi.workspaces.nodes import Nodes, SortKey
from opsapi.workspaces.objects import APPLICATION_KINDS, NODE, POD
from opsapi.workspaces.overview import created_at, status_of
from opsapi.workspaces.overview_model import Overview
from opsapi.workspaces.ports import Cluster, Sync
from opsapi.workspaces.registration import Kubeconfig, NewWorkspace, Registry
from opsapi.workspaces.views import Views, WorkspaceView

_TAG = "Workspaces"
_WORKSPACES = "/internal/v1/workspaces"
_WORKSPACE = _WORKSPACES + "/{workspace_id}"


class WorkspacesParams(Params, frozen=True, kw_only=True):
    limit: Annotated[int, msgspec.Meta(ge=1, le=200)] = 50
    cursor: str | None = None


class WorkspaceParams(Params, frozen=True, kw_only=True):
    workspace_id: str


class NodesParams(Params, frozen=True, kw_only=True):
    workspace_id: str
    limit: Annotated[int, msgspec.Meta(ge=1, le=500)] = 50
    cursor: str | None = None


class RegisterBody(Body, frozen=True, kw_only=True):
    """A workspace to register. The kubeconfigs (YAML) must be self-contained: certificates and tokens inline, TLS
    verified, no exec, no auth-provider, no file paths, no proxy-url. They are stored encrypted and never shown again.
    `acting_kubeconfig`: other credentials for changes than for reading. `namespaces` empty: the whole cluster."""

    id: str | None = None
    name: str
    organization: str = ""
    plan: Plan = Plan.DEDICATED
    mode: Mode = Mode.OBSERVE
    namespaces: list[str] = msgspec.field(default_factory=list)
    kubeconfig: Kubeconfig
    context: str = ""
    acting_kubeconfig: Kubeconfig | None = None
    acting_context: str = ""


class WorkspaceInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A registration. `status`: `active`, `unreachable` or `unknown`. `namespaces` empty: the whole cluster."""

    id: str
    name: str
    organization: str
    plan: Plan
    mode: Mode
    namespaces: list[str]
    source: Source
    acts_with_own_credentials: bool
    status: str
    created_at: datetime | None


class KindInfo(msgspec.Struct, frozen=True, kw_only=True):
    """How far the cache of a kind can be believed."""

    kind: str
    sync: Sync
    objects: int
    observed_at: datetime | None
    reason: str


class WorkspaceDetail(msgspec.Struct, frozen=True, kw_only=True):
    workspace: WorkspaceInfo
    kubernetes_version: str | None
    reason: str | None
    """Why the status is not `active`, or the version not known."""
    kinds: list[KindInfo]


class WorkspaceList(msgspec.Struct, frozen=True, kw_only=True):
    workspaces: list[WorkspaceInfo]


class Removed(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    removed: bool


class _Position(msgspec.Struct, frozen=True):
    after: str


class _NodePosition(msgspec.Struct, frozen=True):
    after: SortKey


class WorkspaceEndpoints:
    def __init__(self, registry: Registry, views: Views) -> None:
        self._registry = registry
        self._views = views

    @endpoint(
        "GET",
        _WORKSPACES,
        permission=None,
        scope=Scope.SYSTEM,
        limit=OTHER,
        idempotency=Idempotency.SAFE,
        summary="List workspaces",
        tag=_TAG,
        answer=WorkspaceList,
        errors=(ValidationFailed,),
        fields=True,
    )
    async def list_workspaces(self, call: Call, params: WorkspacesParams, _body: NoBody) -> Reply[WorkspaceList]:
        """Those in which anything is granted to the caller, by id."""
        after = decode_cursor("workspaces", params.cursor, _Position).after if params.cursor is not None else ""
        found = [workspace for workspace in self._registry.visible(call.caller.grants) if workspace.id > after]
        page = found[: params.limit]
        more = len(found) > params.limit
        return Reply(
            WorkspaceList(workspaces=[self._info(workspace) for workspace in page]),
            truncated=more,
            next_cursor=encode_cursor("workspaces", _Position(page[-1].id)) if more else None,
        )

    @endpoint(
        "POST",
        _WORKSPACES,
        permission=Permission.WORKSPACES_ADMIN,
        scope=Scope.SYSTEM,
        limit=OTHER,
        idempotency=Idempotency.KEYED,
        summary="Register a workspace",
        tag=_TAG,
        answer=WorkspaceInfo,
        success=(201,),
        errors=(ValidationFailed, InvalidState, DependencyUnavailable),
        examples=(examples.REGISTRATION,),
    )
    async def register_workspace(self, call: Call, _params: NoParams, body: RegisterBody) -> Reply[WorkspaceInfo]:
        """Stores the credentials encrypted and begins to follow the cluster at once; its first reading takes a moment,
        during which reads answer 503 with Retry-After."""
        new = NewWorkspace(
            id=body.id,
            name=body.name,
            organization=body.organization,
            plan=body.plan,
            mode=body.mode,
            namespaces=tuple(body.namespaces),
            kubeconfig=body.kubeconfig,
            context=body.context,
            acting_kubeconfig=body.acting_kubeconfig,
            acting_context=body.acting_context,
        )
        workspace = await self._registry.register(new, call)
        return Reply(self._info(workspace), status=201)

    @endpoint(
        "GET",
        _WORKSPACE,
        permission=Permission.WORKSPACE_READ,
        scope=Scope.WORKSPACE,
        limit=OTHER,
        idempotency=Idempotency.SAFE,
        summary="Get a workspace",
        tag=_TAG,
        answer=WorkspaceDetail,
        errors=(WorkspaceNotFound,),
        fields=True,
    )
    async def get_workspace(self, call: Call, params: WorkspaceParams, _body: NoBody) -> Reply[WorkspaceDetail]:
        """The registration, whether its control plane answers, and how far the cache of each kind can be believed."""
        view = self._view(call, params.workspace_id)
        state = view.cluster.state()
        kinds = []
        for kind in view.kinds:
            held = view.inventory.state(kind)
            kinds.append(
                KindInfo(
                    kind=str(kind),
                    sync=held.sync,
                    objects=held.objects,
                    observed_at=_whole(held.observed_at),
                    reason=held.reason,
                )
            )
        detail = WorkspaceDetail(
            workspace=self._info(view.workspace),
            kubernetes_version=state.version,
            reason=state.reason or ("not tried yet" if state.reachable is None else None),
            kinds=kinds,
        )
        return Reply(detail, observed_at=state.observed_at)

    @endpoint(
        "DELETE",
        _WORKSPACE,
        permission=Permission.WORKSPACES_ADMIN,
        scope=Scope.SYSTEM,
        limit=OTHER,
        idempotency=Idempotency.NATURAL,
        summary="Remove a workspace's registration",
        tag=_TAG,
        answer=Removed,
        errors=(WorkspaceNotFound, InvalidState, OperationInProgress, DependencyUnavailable),
    )
    async def remove_workspace(self, call: Call, params: WorkspaceParams, _body: NoBody) -> Reply[Removed]:
        """Erases its stored credentials and stops following it; nothing changes in the cluster. A workspace of the
        configuration file is removed there."""
        await self._registry.remove(params.workspace_id, call)
        return Reply(Removed(id=params.workspace_id, removed=True))

    @endpoint(
        "GET",
        _WORKSPACE + "/overview",
        permission=Permission.WORKSPACE_READ,
        scope=Scope.WORKSPACE,
        limit=WORKSPACE_OPERATIONS,
        idempotency=Idempotency.SAFE,
        summary="Get a workspace's overview",
        tag=_TAG,
        answer=Overview,
        errors=(WorkspaceNotFound, DependencyUnavailable),
        examples=(examples.OVERVIEW,),
        fields=True,
    )
    async def get_workspace_overview(self, call: Call, params: WorkspaceParams, _body: NoBody) -> Reply[Overview]:
        """Counts by state, usage against what there is, a score with published deductions, the worst issues first and
        the newest activities first."""
        view = self._view(call, params.workspace_id)
        built, observed_at = view.overview()
        return Reply(
            built.data,
            observed_at=observed_at,
            partial=built.partial,
            untrusted=built.untrusted,
            truncated=built.truncated,
            encoded=built.encoded,
            warnings=[*built.warnings, *view.stale(POD, NODE, *APPLICATION_KINDS)],
        )

    @endpoint(
        "GET",
        _WORKSPACE + "/nodes",
        permission=Permission.WORKSPACE_READ,
        scope=Scope.WORKSPACE,
        limit=WORKSPACE_OPERATIONS,
        idempotency=Idempotency.SAFE,
        summary="Get a workspace's nodes",
        tag=_TAG,
        answer=Nodes,
        errors=(WorkspaceNotFound, ValidationFailed, DependencyUnavailable),
        examples=(examples.NODES,),
        fields=True,
    )
    async def get_nodes(self, call: Call, params: NodesParams, _body: NoBody) -> Reply[Nodes]:
        """The nodes, worst first: not ready, without network, under pressure, cordoned, ready; within that the busiest.
        `cluster_metrics` covers all nodes, not the page."""
        view = self._view(call, params.workspace_id)
        purpose = f"nodes:{params.workspace_id}"
        after = decode_cursor(purpose, params.cursor, _NodePosition).after if params.cursor is not None else None
        page, partial, observed_at = view.nodes(after, params.limit)
        more = page.next_key is not None
        return Reply(
            page.data,
            observed_at=observed_at,
            partial=partial,
            truncated=more,
            encoded=page.encoded,
            next_cursor=encode_cursor(purpose, _NodePosition(page.next_key)) if page.next_key is not None else None,
            warnings=view.stale(NODE, POD),
        )

    def _view(self, call: Call, workspace_id: str) -> WorkspaceView:
        call.audit.workspace_id = workspace_id
        return self._views.find(workspace_id, call.caller.grants)

    def _info(self, workspace: Workspace) -> WorkspaceInfo:
        cluster = self._views.cluster(workspace.id)
        return WorkspaceInfo(
            id=workspace.id,
            name=workspace.name,
            organization=workspace.organization,
            plan=workspace.plan,
            mode=workspace.mode,
            namespaces=list(workspace.namespaces),
            source=workspace.source,
            acts_with_own_credentials=workspace.act is not None,
            status=status_of(cluster.state()) if cluster is not None else "unknown",
            created_at=_created(workspace, cluster),
        )


def _created(workspace: Workspace, cluster: Cluster | None) -> datetime | None:
    return workspace.created_at if cluster is None else created_at(workspace, cluster.inventory)


def _whole(moment: datetime | None) -> datetime | None:
    return moment.replace(microsecond=0) if moment is not None else None
