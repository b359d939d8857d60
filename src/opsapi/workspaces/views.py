"""The views of the live workspaces: what is kept running beside each cache so that reads are cheap."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Protocol

from opsapi.kit.clock import rfc3339
from opsapi.kit.endpoint import Partial
from opsapi.kit.permissions import Grants
from opsapi.workspaces.activity import ActivitySource, Entry, EventLog
from opsapi.workspaces.addons import observed, why_not
from opsapi.workspaces.errors import WorkspaceNotFound
from opsapi.workspaces.model import Plan, Workspace
from opsapi.workspaces.nodes import NO_NODES, NodeBoard, Nodes, Page, SortKey
from opsapi.workspaces.objects import (
    APPLICATION_KINDS,
    EVENT,
    FISSION_FUNCTION,
    KINDS,
    KNATIVE_SERVICE,
    NAMESPACE,
    NODE,
    POD,
    REPLICA_SET,
    TEKTON_PIPELINE,
    TEKTON_PIPELINE_RUN,
    Kind,
    KubernetesObject,
    ObjectReference,
    Pod,
)
from opsapi.workspaces.overview import MAX_ACTIVITIES, Built, build_overview, merge_newest
from opsapi.workspaces.ports import Cluster, Clusters, Inventory, Sync
from opsapi.workspaces.tallies import Tallies
from opsapi.workspaces.usage import UsageBook, UsageFigures

_CORE = (POD, *APPLICATION_KINDS, REPLICA_SET, NAMESPACE)
_ADDONS = (KNATIVE_SERVICE, FISSION_FUNCTION, TEKTON_PIPELINE, TEKTON_PIPELINE_RUN)
_SMALL_SNAPSHOT = 2_000
"""Pods up to which a new reading of usage is worked through within the request that finds it."""


class WorkspaceView:
    """One workspace's running totals and the views built from them."""

    def __init__(self, cluster: Cluster, sources: Sequence[ActivitySource] = ()) -> None:
        self.cluster = cluster
        self.tallies = Tallies(cluster.workspace)
        self.events = EventLog()
        self._sources = sources
        self._usage = UsageBook(cluster.inventory, self.tallies)
        self._nodes = NodeBoard(cluster.inventory, self.tallies, lambda: self.figures)
        self._addons = 0
        self._built: tuple[tuple[object, ...], Built] | None = None
        self._unsubscribe = cluster.inventory.subscribe(self._observe)

    @property
    def workspace(self) -> Workspace:
        return self.cluster.workspace

    @property
    def kinds(self) -> Sequence[Kind]:
        return KINDS

    @property
    def inventory(self) -> Inventory:
        return self.cluster.inventory

    @property
    def figures(self) -> UsageFigures:
        """The last reading of usage that was worked through; a small new one is, at once."""
        snapshot = self.cluster.usage()
        if not self._usage.is_current(snapshot) and len(snapshot.pods or ()) <= _SMALL_SNAPSHOT:
            for _ in self.read_usage():
                pass
        return self._usage.figures

    def read_usage(self) -> Iterator[None]:
        """Works a new reading of usage through, yielding now and then; the health loop drives it."""
        self.settle()
        return self._usage.read(self.cluster.usage())

    def settle(self) -> Tallies:
        self.tallies.settle(self.inventory.now())
        return self.tallies

    def overview(self) -> tuple[Built, datetime]:
        """The overview and when its oldest part was observed.

        Raises DependencyUnavailable until the kinds it rests on have been read once.
        """
        observed_at = self.inventory.require(*_CORE, NODE)
        self.settle()
        figures, entries = self.figures, self._other_entries()
        key = (
            self.tallies.version,
            self.events.version,
            self._addons,
            figures,
            self.cluster.state().reachable,
            self._syncs(),
            entries,
        )
        if self._built is None or self._built[0] != key:
            self._built = key, self._build(figures, entries)
        return self._built[1], observed_at

    def nodes(self, after: SortKey | None, limit: int) -> tuple[Page, list[Partial], datetime]:
        """A page of nodes, why any of it is null, and when it was observed. Raises DependencyUnavailable."""
        observed_at = self.inventory.require(NODE, POD)
        reason = ""
        if self.workspace.plan is Plan.SHARED:
            reason = "on the shared plan the nodes are the platform's and carry other tenants' workloads"
        elif not observed(self.inventory, NODE):
            reason = why_not(self.inventory, NODE)
        if reason:
            hidden = [Partial(field, reason) for field in ("total_nodes", "nodes", "cluster_metrics")]
            return Page(Nodes(self.workspace.id, None, None, NO_NODES), None), hidden, observed_at
        return self._nodes.page(after, limit), self._node_partial(), observed_at

    def stale(self, *kinds: Kind) -> list[str]:
        """A warning for each of the kinds whose cache has not been confirmed for longer than the limit."""
        return [
            f"{kind} were last confirmed at {rfc3339(state.observed_at)}: {state.reason or 'the watch is interrupted'}"
            for kind in kinds
            if (state := self.inventory.state(kind)).sync is Sync.STALE and state.observed_at is not None
        ]

    def unread(self, *kinds: Kind) -> list[str]:
        """A warning for each of the kinds that the answer has to do without."""
        return [why_not(self.inventory, kind) for kind in kinds if not observed(self.inventory, kind)]

    def close(self) -> None:
        self._unsubscribe()

    def _observe(self, kind: Kind, old: KubernetesObject | None, new: KubernetesObject | None) -> None:
        if kind == EVENT:
            self.events.observe(kind, old, new)
        elif kind in _ADDONS:
            self._addons += 1
        else:
            self.tallies.observe(kind, old, new)

    def _build(self, figures: UsageFigures, entries: tuple[Entry, ...]) -> Built:
        merged = merge_newest(self.events.newest(MAX_ACTIVITIES, self._name_of), entries, MAX_ACTIVITIES)
        return build_overview(self.workspace, self.cluster.state(), self.inventory, self.tallies, figures, merged)

    def _other_entries(self) -> tuple[Entry, ...]:
        merged: list[Entry] = []
        for source in self._sources:
            merged = merge_newest(merged, source.recent(self.workspace.id, MAX_ACTIVITIES), MAX_ACTIVITIES)
        return tuple(merged)

    def _syncs(self) -> tuple[Sync, ...]:
        return tuple(self.inventory.state(kind).sync for kind in KINDS)

    def _name_of(self, reference: ObjectReference) -> str:
        """The application that a pod, ReplicaSet or Job belongs to; else the object's own name."""
        root = self.tallies.parent_of(reference.uid)
        if reference.kind == POD.kind:
            pod = self.inventory.get(POD, Pod, reference.namespace, reference.name)
            root = self.tallies.root_of(pod.metadata.controller) if pod is not None else ""
        application = self.tallies.applications.get(root or reference.uid)
        return application.object.metadata.name if application is not None else reference.name

    def _node_partial(self) -> list[Partial]:
        figures = self.figures
        reason = "no source of disk usage is connected"
        partial = [
            Partial("nodes[].usage.storage_percentage", reason),
            Partial("cluster_metrics.total_usage.storage_percentage", reason),
        ]
        if not figures.nodes or len(figures.nodes) < len(self.tallies.nodes):
            why = figures.reason or "metrics.k8s.io has no reading of the node"
            for field in ("cpu_percentage", "memory_percentage"):
                partial.append(Partial(f"nodes[].usage.{field}", why))
                if not figures.nodes:
                    partial.append(Partial(f"cluster_metrics.total_usage.{field}", why))
        return partial


class ViewWatcher(Protocol):
    def attached(self, view: WorkspaceView) -> None: ...

    def detached(self, view: WorkspaceView) -> None: ...


class Views:
    """The views of every live workspace, by id."""

    def __init__(self, clusters: Clusters, sources: Sequence[ActivitySource] = ()) -> None:
        self._clusters = clusters
        self._sources = sources
        self._views: dict[str, WorkspaceView] = {}
        self._watchers: list[ViewWatcher] = []

    def watch(self, watcher: "ViewWatcher") -> None:
        """Tells `watcher` of every view that comes and goes, those already there included."""
        self._watchers.append(watcher)
        for view in self._views.values():
            watcher.attached(view)

    def attach(self, cluster: Cluster) -> WorkspaceView:
        """Begins to keep a workspace's totals; best called before its first list, when there is nothing to replay."""
        known = self._views.get(cluster.workspace.id)
        if known is not None and known.cluster is cluster:
            return known
        if known is not None:
            self.detach(cluster.workspace.id)
        view = self._views[cluster.workspace.id] = WorkspaceView(cluster, self._sources)
        for watcher in self._watchers:
            watcher.attached(view)
        return view

    def detach(self, workspace_id: str) -> None:
        view = self._views.pop(workspace_id, None)
        if view is not None:
            view.close()
            for watcher in self._watchers:
                watcher.detached(view)

    def find(self, workspace_id: str, grants: Grants) -> WorkspaceView:
        """Raises WorkspaceNotFound also for what the caller may not see."""
        if not grants.sees(workspace_id):
            raise WorkspaceNotFound(workspace_id)
        cluster = self._clusters.find(workspace_id)
        if cluster is None:
            raise WorkspaceNotFound(workspace_id)
        return self.attach(cluster)

    def cluster(self, workspace_id: str) -> Cluster | None:
        return self._clusters.find(workspace_id)

    def visible(self, grants: Grants) -> Iterator[WorkspaceView]:
        for cluster in self._clusters.all():
            if grants.sees(cluster.workspace.id):
                yield self.attach(cluster)

    def all(self) -> list[WorkspaceView]:
        return [self.attach(cluster) for cluster in self._clusters.all()]
