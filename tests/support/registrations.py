"""Registrations in memory."""

from datetime import datetime, timedelta
from typing import Generic, TypeVar

from opsapi.kit.caller import Call, System
from opsapi.kit.clock import Clock
from opsapi.workspaces.activity import ActivitySource
from opsapi.workspaces.endpoints import WorkspaceEndpoints
from opsapi.workspaces.errors import WorkspaceExists
from opsapi.workspaces.model import Workspace
from opsapi.workspaces.ports import Clusters, UnreadableWorkspace
from opsapi.workspaces.registration import Registry
from opsapi.workspaces.views import Views
from support.inventory import START


class StillClock:
    """Time that moves when told."""

    def __init__(self) -> None:
        self.at = START
        self.seconds = 0.0

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.seconds

    def pass_by(self, span: timedelta) -> None:
        self.at += span
        self.seconds += span.total_seconds()


class FakeWorkspaceStore:
    """Implements WorkspaceStore; `by` remembers who wrote."""

    def __init__(self) -> None:
        self.held: dict[str, Workspace] = {}
        self.unreadable: list[UnreadableWorkspace] = []
        self.by: list[Call | System] = []
        self.resealed = 0

    async def all(self) -> list[Workspace | UnreadableWorkspace]:
        return sorted([*self.unreadable, *self.held.values()], key=lambda one: one.id)

    async def add(self, workspace: Workspace, by: Call | System) -> None:
        if workspace.id in self.held:
            raise WorkspaceExists(workspace.id)
        self.held[workspace.id] = workspace
        self._commit(by)

    async def remove(self, workspace_id: str, by: Call | System) -> bool:
        if self.held.pop(workspace_id, None) is None:
            return False
        self._commit(by)
        return True

    async def reseal(self) -> int:
        self.resealed += 1
        return 0

    def _commit(self, by: Call | System) -> None:
        self.by.append(by)
        if isinstance(by, Call):
            by.audit.committed = True


C = TypeVar("C", bound=Clusters)


class House(Generic[C]):
    """The reading side of the service over fakes, or over real clusters and a store in memory."""

    def __init__(self, clusters: C, *sources: ActivitySource) -> None:
        self.clock = StillClock()
        self.clusters = clusters
        self.views = Views(clusters, sources)
        self.store = FakeWorkspaceStore()
        clock: Clock = self.clock
        self.registry = Registry(clusters, self.views, self.store, None, clock)
        self.workspaces = WorkspaceEndpoints(self.registry, self.views)
