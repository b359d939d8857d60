"""The live workspaces: for each, a cache, the reflectors that fill it, a probe and the metrics' poller."""

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import Any, Protocol

from opsapi.adapters.kubernetes import upload
from opsapi.adapters.kubernetes.addresses import AddressGuard
from opsapi.adapters.kubernetes.cache import Cache
from opsapi.adapters.kubernetes.clustertime import ClusterClock
from opsapi.adapters.kubernetes.connect import KubeconfigAccess
from opsapi.adapters.kubernetes.namespaces import NamespacePoller
from opsapi.adapters.kubernetes.probe import Probe
from opsapi.adapters.kubernetes.recollection import Recollection
from opsapi.adapters.kubernetes.reflector import Reflector
from opsapi.adapters.kubernetes.review import review
from opsapi.adapters.kubernetes.timing import SystemTiming, Timing
from opsapi.adapters.kubernetes.transport import Transport
from opsapi.adapters.kubernetes.tuning import Tuning
from opsapi.adapters.kubernetes.usage import UsagePoller
from opsapi.workspaces.model import ClusterAccess, Plan, Workspace
from opsapi.workspaces.objects import KINDS, NAMESPACE, Kind
from opsapi.workspaces.ports import AccessRule, AccessVerdict, ClusterState, Inventory, UsageSnapshot

logger = logging.getLogger(__name__)


class _Part(Protocol):
    def run(self) -> Coroutine[Any, Any, None]: ...


class LiveCluster:
    """Implements the Cluster port."""

    def __init__(self, workspace: Workspace, tuning: Tuning, timing: Timing, guard: AddressGuard) -> None:
        self._workspace = workspace
        self._tuning = tuning
        self.clock = ClusterClock(timing)
        self.cache = Cache(workspace.id, tuning, timing, self.clock)

        def transport(access: ClusterAccess, *, acting: bool) -> Transport:
            guarded = guard if access.inline else None
            held = KubeconfigAccess(access, timing, guard=guarded, reuse_connections=not acting)
            return Transport(held, tuning, timing, self.clock)

        self._reading = transport(workspace.read, acting=False)
        self.acting = transport(workspace.act or workspace.read, acting=True)
        """For writes and what is read fresh before them."""
        self._reflectors: list[Reflector] = []
        self._pollers: list[NamespacePoller] = []
        for kind in KINDS:
            self._follow(kind, timing)
        self._probe = Probe(self._reading, tuning, timing, self.clock, self._server_returned)
        self._usage = UsagePoller(
            self._reading, tuning, timing, self.clock, workspace.namespaces, with_nodes=self._sees_whole_cluster
        )
        self._task: asyncio.Task[None] | None = None

    @property
    def workspace(self) -> Workspace:
        return self._workspace

    @property
    def inventory(self) -> Inventory:
        return self.cache

    def usage(self) -> UsageSnapshot:
        return self._usage.snapshot

    @property
    def recollection(self) -> Recollection:
        return self._usage.recollection

    async def measure(self) -> None:
        """Reads metrics.k8s.io now, whether or not the workspace is followed."""
        await self._usage.poll()

    def state(self) -> ClusterState:
        return self._probe.state

    async def review(self, rules: Sequence[AccessRule], *, acting: bool) -> list[AccessVerdict]:
        return await review(
            self.acting if acting else self._reading,
            rules,
            self._workspace.namespaces,
            at_once=self._tuning.reviews_at_once,
            workspace_id=self._workspace.id,
        )

    async def ask(self) -> ClusterState:
        """Asks the API server now, whether or not the workspace is followed."""
        return await self._probe.ask()

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"workspace {self._workspace.id}")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._reading.close()
        await self.acting.close()

    @property
    def _sees_whole_cluster(self) -> bool:
        """On a shared cluster what is cluster-wide belongs to other tenants too, so it is not even asked for."""
        return not self._workspace.namespaces or self._workspace.plan is Plan.DEDICATED

    def _follow(self, kind: Kind, timing: Timing) -> None:
        namespaces = self._workspace.namespaces
        if kind == NAMESPACE and namespaces:
            for namespace in namespaces:
                feed = self.cache.feed(kind, namespace)
                self._pollers.append(NamespacePoller(feed, self._reading, self._tuning, timing))
        elif not kind.namespaced and not self._sees_whole_cluster:
            self.cache.feed(kind).forbid("the workspace is limited to namespaces of a shared cluster")
        else:
            for namespace in (namespaces if kind.namespaced else ()) or ("",):
                feed = self.cache.feed(kind, namespace)
                self._reflectors.append(Reflector(feed, self._reading, self._tuning, timing))

    def _server_returned(self) -> None:
        for reflector in self._reflectors:
            reflector.nudge()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            parts: list[_Part] = [*self._reflectors, *self._pollers, self._probe, self._usage]
            for part in parts:
                group.create_task(self._guarded(part.run(), type(part).__name__))

    async def _guarded(self, running: Coroutine[Any, Any, None], name: str) -> None:
        """Each part deals with its own failures; should one end all the same, the others go on."""
        try:
            await running
        except Exception:
            logger.exception("%s of workspace %s ended", name, self._workspace.id)


class KubernetesClusters:
    """Implements the Clusters port; `close_all` on shutdown."""

    def __init__(self, tuning: Tuning | None = None, timing: Timing | None = None) -> None:
        self._tuning = tuning or Tuning()
        self._timing = timing or SystemTiming()
        self._guard = AddressGuard(self._tuning.upload_allow)
        self._live: dict[str, LiveCluster] = {}

    async def open(self, workspace: Workspace) -> LiveCluster:
        if workspace.id not in self._live:
            self.connect(workspace).start()
        return self._live[workspace.id]

    def connect(self, workspace: Workspace) -> LiveCluster:
        """A cluster that can be asked and written to but is not followed."""
        live = self._live[workspace.id] = LiveCluster(workspace, self._tuning, self._timing, self._guard)
        return live

    async def close(self, workspace_id: str) -> None:
        live = self._live.pop(workspace_id, None)
        if live is not None:
            await live.close()

    async def close_all(self) -> None:
        await asyncio.gather(*(self.close(workspace_id) for workspace_id in list(self._live)))

    def find(self, workspace_id: str) -> LiveCluster | None:
        return self._live.get(workspace_id)

    def all(self) -> Sequence[LiveCluster]:
        return tuple(self._live.values())

    async def check_upload(self, kubeconfig: str, context: str) -> ClusterAccess:
        return await upload.check_upload(kubeconfig, context, guard=self._guard, now=self._timing.now())
