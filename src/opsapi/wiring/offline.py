"""Clusters and registrations for commands: nothing is followed, each is asked only what the command needs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from opsapi.adapters.kubernetes.clusters import KubernetesClusters, LiveCluster
from opsapi.adapters.sql.workspaces import SqlWorkspaceStore
from opsapi.settings.model import Settings
from opsapi.wiring.service import sealer_of, tuning_of, workspace_of
from opsapi.wiring.state import State
from opsapi.workspaces.model import Workspace
from opsapi.workspaces.ports import ClusterState
from opsapi.workspaces.registration import Registry
from opsapi.workspaces.views import Views


@dataclass(frozen=True, slots=True)
class Offline:
    state: State
    clusters: KubernetesClusters
    store: SqlWorkspaceStore
    registry: Registry

    async def workspaces(self) -> list[Workspace]:
        """Configured and registered ones, by id; those whose credentials no key opens are left out."""
        configured = [workspace_of(one) for one in self.state.settings.workspaces]
        stored = [one for one in await self.store.all() if isinstance(one, Workspace)]
        return sorted([*configured, *stored], key=lambda workspace: workspace.id)

    async def connect(self, workspace_id: str) -> LiveCluster | None:
        """A cluster that can be asked; it is closed with the rest."""
        for workspace in await self.workspaces():
            if workspace.id == workspace_id:
                return self.clusters.connect(workspace)
        return None


@asynccontextmanager
async def offline(state: State) -> AsyncIterator[Offline]:
    clusters = KubernetesClusters(tuning_of(state.settings))
    store = SqlWorkspaceStore(state.database, sealer_of(state.settings), state.clock)
    try:
        yield Offline(state, clusters, store, Registry(clusters, Views(clusters), store, state.ledger, state.clock))
    finally:
        await clusters.close_all()


async def connect_only(settings: Settings, workspace_id: str) -> ClusterState:
    """Asks one of the configuration's clusters who it is, without any database."""
    clusters = KubernetesClusters(tuning_of(settings))
    given = next(one for one in settings.workspaces if one.id == workspace_id)
    try:
        return await clusters.connect(workspace_of(given)).ask()
    finally:
        await clusters.close_all()
