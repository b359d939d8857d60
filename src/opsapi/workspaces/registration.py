"""Which workspaces there are: those of the configuration file and those registered through the API or the CLI."""

import asyncio
import logging
import re
from collections.abc import Sequence
from typing import Annotated

import msgspec

from opsapi.kit.caller import Call, System
from opsapi.kit.clock import Clock
from opsapi.kit.errors import DependencyUnavailable, ValidationFailed
from opsapi.kit.ids import new_id
from opsapi.kit.permissions import Grants
from opsapi.operations.errors import InProgressDetails, OperationInProgress
from opsapi.operations.model import State
from opsapi.operations.ports import Ledger, OperationFilter
from opsapi.workspaces.errors import RegisteredInConfig, UnusableKubeconfig, WorkspaceExists, WorkspaceNotFound
from opsapi.workspaces.model import ClusterAccess, Mode, Plan, Source, Workspace
from opsapi.workspaces.ports import Clusters, UnreadableWorkspace, WorkspaceStore
from opsapi.workspaces.views import Views

SYNCHRONIZE_SECONDS = 3.0
_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_PRINTABLE = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]*")
_log = logging.getLogger(__name__)

Kubeconfig = Annotated[str, msgspec.Meta(max_length=262_144)]


class NewWorkspace(msgspec.Struct, frozen=True, kw_only=True):
    """What a registration asks for; kubeconfigs as YAML, never shown again."""

    id: str | None = None
    name: str
    organization: str = ""
    plan: Plan = Plan.DEDICATED
    mode: Mode = Mode.OBSERVE
    namespaces: tuple[str, ...] = ()
    kubeconfig: str
    context: str = ""
    acting_kubeconfig: str | None = None
    acting_context: str = ""


class Registry:
    """Opens what is registered and closes what was removed, here or by another process.

    Holds the registrations that this process serves; the database stays the truth of those that came through the API.
    """

    def __init__(
        self, clusters: Clusters, views: Views, store: WorkspaceStore, ledger: Ledger | None, clock: Clock
    ) -> None:
        self._clusters = clusters
        self._views = views
        self._store = store
        self._ledger = ledger
        self._clock = clock
        self._served: dict[str, Workspace] = {}
        self._turn = asyncio.Lock()
        self.unreadable: tuple[UnreadableWorkspace, ...] = ()
        """Registrations that cannot be served because no configured key opens their credentials."""

    async def start(self, configured: Sequence[Workspace]) -> None:
        """Opens the configuration's workspaces, then the registered ones."""
        async with self._turn:
            for workspace in configured:
                await self._open(workspace)
        await self._store.reseal()
        await self.synchronize()

    async def follow(self) -> None:
        """Keeps to what other processes register and remove; runs until cancelled."""
        while True:
            await asyncio.sleep(SYNCHRONIZE_SECONDS)
            try:
                await self.synchronize()
            except DependencyUnavailable:
                _log.warning("registrations could not be read; what is served stays as it is")

    async def synchronize(self) -> None:
        """Raises DependencyUnavailable when the database is away."""
        async with self._turn:
            stored = await self._store.all()
            readable = {one.id: one for one in stored if isinstance(one, Workspace)}
            unreadable = tuple(one for one in stored if isinstance(one, UnreadableWorkspace))
            for one in set(unreadable) - set(self.unreadable):
                _log.error("no configured key opens the credentials of workspace %s", one.id)
            self.unreadable = unreadable
            for served in list(self._served.values()):
                if served.source is Source.API and readable.get(served.id) != served:
                    await self._close(served.id)
            for workspace in readable.values():
                if workspace.id not in self._served:
                    await self._open(workspace)

    async def register(self, new: NewWorkspace, by: Call | System) -> Workspace:
        """Checks, stores and opens a workspace.

        Raises ValidationFailed, UnusableKubeconfig, WorkspaceExists, NoEncryptionKey, DependencyUnavailable.
        """
        _check(new)
        workspace_id = new.id or new_id("ws")
        if workspace_id in self._served:
            raise WorkspaceExists(workspace_id)
        read = await self._clusters.check_upload(new.kubeconfig, new.context)
        act = await self._upload_acting(new)
        workspace = Workspace(
            id=workspace_id,
            name=new.name,
            organization=new.organization,
            plan=new.plan,
            mode=new.mode,
            namespaces=new.namespaces,
            read=read,
            act=act,
            source=Source.API,
            created_at=self._clock.now().replace(microsecond=0),
        )
        async with self._turn:
            await self._store.add(workspace, by)
            await self._open(workspace)
        return workspace

    async def remove(self, workspace_id: str, by: Call | System) -> None:
        """Ends the service of a workspace and erases its credentials; nothing changes in its cluster.

        Raises WorkspaceNotFound, RegisteredInConfig, OperationInProgress, DependencyUnavailable.
        """
        served = self._served.get(workspace_id)
        if served is not None and served.source is Source.CONFIG:
            raise RegisteredInConfig(workspace_id)
        await self._refuse_while_busy(workspace_id)
        async with self._turn:
            if not await self._store.remove(workspace_id, by):
                raise WorkspaceNotFound(workspace_id)
            await self._close(workspace_id)

    def find(self, workspace_id: str) -> Workspace | None:
        return self._served.get(workspace_id)

    def visible(self, grants: Grants) -> list[Workspace]:
        """By id."""
        return [self._served[workspace_id] for workspace_id in sorted(self._served) if grants.sees(workspace_id)]

    async def _upload_acting(self, new: NewWorkspace) -> ClusterAccess | None:
        if new.acting_kubeconfig is None:
            return None
        try:
            return await self._clusters.check_upload(new.acting_kubeconfig, new.acting_context)
        except UnusableKubeconfig as error:
            raise error.of_acting() from None

    async def _open(self, workspace: Workspace) -> None:
        cluster = await self._clusters.open(workspace)
        self._views.attach(cluster)
        self._served[workspace.id] = workspace

    async def _close(self, workspace_id: str) -> None:
        self._served.pop(workspace_id, None)
        self._views.detach(workspace_id)
        await self._clusters.close(workspace_id)

    async def _refuse_while_busy(self, workspace_id: str) -> None:
        if self._ledger is None:
            return
        wanted = OperationFilter(
            workspaces=frozenset({workspace_id}), states=frozenset({State.QUEUED, State.RUNNING}), limit=1
        )
        for operation in await self._ledger.find(wanted):
            raise OperationInProgress(
                InProgressDetails(
                    resource_id=workspace_id,
                    current_operation=operation.action,
                    estimated_completion=operation.estimated_completion,
                    current_operation_id=operation.id,
                )
            )


def _check(new: NewWorkspace) -> None:
    fields: dict[str, str] = {}
    if new.id is not None and not _ID.fullmatch(new.id):
        fields["id"] = "must be 1 to 63 lower-case letters, digits and hyphens, starting and ending with no hyphen"
    for field, text, shortest in (("name", new.name, 1), ("organization", new.organization, 0)):
        if not shortest <= len(text.strip()) or len(text) > 200 or not _PRINTABLE.fullmatch(text):
            fields[field] = f"must be {shortest} to 200 printable characters"
    for position, namespace in enumerate(new.namespaces):
        if not _NAMESPACE.fullmatch(namespace):
            fields[f"namespaces[{position}]"] = "is no namespace's name"
    if len(set(new.namespaces)) < len(new.namespaces):
        fields["namespaces"] = "names one twice"
    if len(new.namespaces) > 100:
        fields["namespaces"] = "must be at most 100; leave it empty for the whole cluster"
    if new.acting_context and new.acting_kubeconfig is None:
        fields["acting_context"] = "belongs to an acting_kubeconfig"
    if fields:
        raise ValidationFailed(fields)
