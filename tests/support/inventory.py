"""An in-memory cluster: what a test puts in is what the product sees."""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

from opsapi.kit.errors import DependencyUnavailable
from opsapi.workspaces.errors import UnusableKubeconfig
from opsapi.workspaces.model import ClusterAccess, Mode, Plan, Source, Workspace
from opsapi.workspaces.objects import POD, Kind, KubernetesObject, ObjectT, Pod
from opsapi.workspaces.ports import (
    AccessRule,
    AccessVerdict,
    ClusterState,
    KindState,
    Listener,
    Sync,
    UsageSnapshot,
)

START = datetime(2024, 1, 20, 15, 30, tzinfo=UTC)


def make_workspace(workspace_id: str = "ws-123", **changes: object) -> Workspace:
    held: dict[str, object] = {
        "id": workspace_id,
        "name": "Production Environment",
        "plan": Plan.DEDICATED,
        "mode": Mode.ACT,
        "read": ClusterAccess(path="/dev/null"),
        "source": Source.CONFIG,
        "created_at": datetime(2024, 1, 1, tzinfo=UTC),
    }
    return Workspace(**(held | changes))  # type: ignore[arg-type]


class FakeInventory:
    """Implements Inventory. Every kind is SYNCED until `states` says otherwise; `at` is the cluster's time."""

    def __init__(self, workspace_id: str = "ws-123", at: datetime = START) -> None:
        self._workspace_id = workspace_id
        self.at = at
        self.states: dict[Kind, KindState] = {}
        self.objects: dict[Kind, dict[tuple[str, str], KubernetesObject]] = {}
        self.listeners: list[Listener] = []

    @property
    def workspace_id(self) -> str:
        return self._workspace_id

    def put(self, kind: Kind, *objects: KubernetesObject) -> None:
        for new in objects:
            meta = new.metadata  # type: ignore[attr-defined]
            held = self.objects.setdefault(kind, {})
            old = held.get((meta.namespace, meta.name))
            held[(meta.namespace, meta.name)] = new
            if old is not None and old.metadata.uid != meta.uid:  # type: ignore[attr-defined]
                self._tell(kind, old, None)
                old = None
            self._tell(kind, old, new)

    def remove(self, kind: Kind, namespace: str, name: str) -> None:
        old = self.objects.get(kind, {}).pop((namespace, name), None)
        if old is not None:
            self._tell(kind, old, None)

    def _tell(self, kind: Kind, old: KubernetesObject | None, new: KubernetesObject | None) -> None:
        for listener in list(self.listeners):
            listener(kind, old, new)

    def set_sync(self, kind: Kind, sync: Sync, reason: str = "") -> None:
        observed = None if sync in (Sync.PENDING, Sync.FORBIDDEN, Sync.UNSERVED) else self.at
        self.states[kind] = KindState(sync, observed, reason)

    def state(self, kind: Kind) -> KindState:
        return self.states.get(kind) or KindState(Sync.SYNCED, self.at, objects=len(self.objects.get(kind, {})))

    def require(self, *kinds: Kind) -> datetime:
        observed = self.at
        for kind in kinds:
            state = self.state(kind)
            if state.sync is Sync.PENDING:
                reason = f"{kind} have not been read yet"
                raise DependencyUnavailable("kubernetes_api", reason, workspace_id=self._workspace_id)
            if state.observed_at is not None:
                observed = min(observed, state.observed_at)
        return observed

    def get(self, kind: Kind, struct: type[ObjectT], namespace: str, name: str) -> ObjectT | None:
        found = self.objects.get(kind, {}).get((namespace, name))
        assert found is None or isinstance(found, struct)
        return found

    def all(self, kind: Kind, struct: type[ObjectT], namespace: str = "") -> Iterable[ObjectT]:
        for (held_in, _), found in self.objects.get(kind, {}).items():
            assert isinstance(found, struct)
            if not namespace or held_in == namespace:
                yield found

    def owned_by(self, uid: str, kind: Kind, struct: type[ObjectT]) -> Sequence[ObjectT]:
        return [
            found
            for found in self.all(kind, struct)
            if (controller := found.metadata.controller) is not None and controller.uid == uid  # type: ignore[attr-defined]
        ]

    def pods_on(self, node: str) -> Sequence[Pod]:
        return [pod for pod in self.all(POD, Pod) if pod.spec.node_name == node]

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        for kind, held in self.objects.items():
            for found in held.values():
                listener(kind, None, found)
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)

    def now(self) -> datetime:
        return self.at


class FakeCluster:
    """Implements Cluster; set `used`, `reached` and `denied` (feature names whose rights the review refuses)."""

    def __init__(self, workspace: Workspace | None = None, inventory: FakeInventory | None = None) -> None:
        self._workspace = workspace or make_workspace()
        self.fake = inventory or FakeInventory(self._workspace.id)
        self.used = UsageSnapshot(None, None, None, "metrics.k8s.io is not served")
        self.reached = ClusterState(True, "1.36.0", "", START, 3.0)
        self.denied: set[str] = set()
        self.reviews: list[bool] = []

    @property
    def workspace(self) -> Workspace:
        return self._workspace

    @property
    def inventory(self) -> FakeInventory:
        return self.fake

    def usage(self) -> UsageSnapshot:
        return self.used

    def state(self) -> ClusterState:
        return self.reached

    async def review(self, rules: Sequence[AccessRule], *, acting: bool) -> list[AccessVerdict]:
        self.reviews.append(acting)
        namespaces = self._workspace.namespaces or ("",)
        return [
            AccessVerdict(rule, verb, namespace, rule.feature not in self.denied, "")
            for rule in rules
            for verb in rule.verbs
            for namespace in (namespaces if rule.namespaced else ("",))
        ]


class FakeClusters:
    """Implements Clusters; opening makes an empty FakeCluster unless one was given with `hold`."""

    def __init__(self, *held: FakeCluster) -> None:
        self.ready = {cluster.workspace.id: cluster for cluster in held}
        self.opened: dict[str, FakeCluster] = dict(self.ready)

    async def open(self, workspace: Workspace) -> FakeCluster:
        if workspace.id not in self.opened:
            self.opened[workspace.id] = self.ready.get(workspace.id) or FakeCluster(workspace)
        return self.opened[workspace.id]

    async def close(self, workspace_id: str) -> None:
        self.opened.pop(workspace_id, None)

    def find(self, workspace_id: str) -> FakeCluster | None:
        return self.opened.get(workspace_id)

    def all(self) -> Sequence[FakeCluster]:
        return list(self.opened.values())

    async def check_upload(self, kubeconfig: str, context: str) -> ClusterAccess:
        if "exec" in kubeconfig:
            raise UnusableKubeconfig({"kubeconfig.users[].user.exec": "may not run programs"})
        return ClusterAccess(inline=kubeconfig, context=context)
