"""What workspaces needs of the outside: live clusters, read through a cache, and a place to keep registrations."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Protocol

import msgspec

from opsapi.kit.caller import Call, System
from opsapi.workspaces.model import ClusterAccess, Workspace
from opsapi.workspaces.objects import Kind, KubernetesObject, ObjectT, Pod


class Sync(StrEnum):
    PENDING = "pending"
    """Never read in full yet: nothing can be said."""
    SYNCED = "synced"
    STALE = "stale"
    """Read once, but not confirmed for longer than the configured limit."""
    FORBIDDEN = "forbidden"
    UNSERVED = "unserved"
    """The cluster does not serve the API group."""


class KindState(msgspec.Struct, frozen=True):
    """How far the cache of one kind can be believed. `observed_at`: when it was last known to equal the cluster, in the
    cluster's time (as `Inventory.now`). Where a workspace is limited to namespaces, the worst of them counts."""

    sync: Sync
    observed_at: datetime | None
    reason: str = ""
    objects: int = 0
    restarts: int = 0
    """Lists and watches begun again since the start."""


Listener = Callable[[Kind, KubernetesObject | None, KubernetesObject | None], None]
"""Called with (kind, old, new) for every difference in the cache, synchronously and in order; must not raise."""


class Inventory(Protocol):
    """The cache of one workspace's objects. Reads never wait; every Struct handed out is frozen."""

    @property
    def workspace_id(self) -> str: ...

    def state(self, kind: Kind) -> KindState: ...

    def require(self, *kinds: Kind) -> datetime:
        """The oldest `observed_at` of `kinds`. Raises DependencyUnavailable where one is PENDING; FORBIDDEN and
        UNSERVED kinds are passed over (the caller reports them in `partial`)."""
        ...

    def get(self, kind: Kind, struct: type[ObjectT], namespace: str, name: str) -> ObjectT | None: ...

    def all(self, kind: Kind, struct: type[ObjectT], namespace: str = "") -> Iterable[ObjectT]: ...

    def owned_by(self, uid: str, kind: Kind, struct: type[ObjectT]) -> Sequence[ObjectT]:
        """Objects of `kind` whose controller has `uid`; an index."""
        ...

    def pods_on(self, node: str) -> Sequence[Pod]:
        """Pods bound to the node; an index."""
        ...

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """First replays what is there as (kind, None, object), then every change; returns what ends it."""
        ...

    def now(self) -> datetime:
        """The cluster's time (wall time corrected by the API server's Date header): the base of ages and cooldowns."""
        ...


class ContainerUsage(msgspec.Struct, frozen=True, gc=False):
    cpu_millicores: float
    memory_bytes: int


class PodUsage(msgspec.Struct, frozen=True, gc=False):
    containers: dict[str, ContainerUsage]
    at: datetime

    @property
    def cpu_millicores(self) -> float:
        return sum(c.cpu_millicores for c in self.containers.values())

    @property
    def memory_bytes(self) -> int:
        return sum(c.memory_bytes for c in self.containers.values())


class NodeUsage(msgspec.Struct, frozen=True, gc=False):
    cpu_millicores: float
    memory_bytes: int
    at: datetime


class UsageSnapshot(msgspec.Struct, frozen=True):
    """One reading of metrics.k8s.io. `reason` says why `pods` or `nodes` is None (unserved, forbidden, away)."""

    taken_at: datetime | None
    pods: dict[tuple[str, str], PodUsage] | None
    """By (namespace, name)."""
    nodes: dict[str, NodeUsage] | None
    reason: str = ""


class ClusterState(msgspec.Struct, frozen=True):
    """The control plane itself. `reachable` None: not tried yet; `observed_at` is in the cluster's time."""

    reachable: bool | None
    version: str | None
    """`1.36.0`, without the leading v."""
    reason: str
    observed_at: datetime | None
    latency_ms: float | None


class AccessRule(msgspec.Struct, frozen=True):
    """One right asked of a cluster: a rule of a Role (namespaced) or ClusterRole."""

    group: str
    resource: str
    verbs: tuple[str, ...]
    namespaced: bool
    feature: str


class AccessVerdict(msgspec.Struct, frozen=True):
    rule: AccessRule
    verb: str
    namespace: str
    allowed: bool
    reason: str


class Cluster(Protocol):
    """One live workspace."""

    @property
    def workspace(self) -> Workspace: ...

    @property
    def inventory(self) -> Inventory: ...

    def usage(self) -> UsageSnapshot: ...

    def state(self) -> ClusterState: ...

    async def review(self, rules: Sequence[AccessRule], *, acting: bool) -> list[AccessVerdict]:
        """Asks the cluster by SelfSubjectAccessReview what the credentials may do, per verb and namespace."""
        ...


class Clusters(Protocol):
    """The live workspaces of this process."""

    async def open(self, workspace: Workspace) -> Cluster:
        """Starts following the workspace; returns at once, before its first sync. Idempotent by id."""
        ...

    async def close(self, workspace_id: str) -> None: ...

    def find(self, workspace_id: str) -> Cluster | None: ...

    def all(self) -> Sequence[Cluster]: ...

    async def check_upload(self, kubeconfig: str, context: str) -> ClusterAccess:
        """The rules for a kubeconfig that comes through the API: self-contained, no exec, no paths, TLS verified, its
        server passes the SSRF guard (whose name resolution takes time, hence async). The answer holds only the chosen
        context. Raises UnusableKubeconfig naming each offending key."""
        ...


class UnreadableWorkspace(msgspec.Struct, frozen=True):
    """A registration whose credentials no configured key opens."""

    id: str
    name: str


class WorkspaceStore(Protocol):
    """Registrations that came through the API; kubeconfigs are encrypted at rest."""

    async def all(self) -> list[Workspace | UnreadableWorkspace]: ...

    async def add(self, workspace: Workspace, by: Call | System) -> None:
        """Seals the credentials and writes the registration and its audit entry in one transaction, then sets
        `by.audit.committed` on a call. Raises WorkspaceExists where the id is taken."""
        ...

    async def remove(self, workspace_id: str, by: Call | System) -> bool:
        """False where there is no such registration. The sealed credentials are erased."""
        ...

    async def reseal(self) -> int:
        """Seals again with the first key what an older one sealed; how many registrations that were."""
        ...


class Sealed(msgspec.Struct, frozen=True):
    key_id: str
    ciphertext: bytes


class Sealer(Protocol):
    """Encrypts with the first key of the configuration, decrypts with any of them."""

    @property
    def key_id(self) -> str:
        """Names the first key without telling it."""
        ...

    def seal(self, plain: bytes, *, bound_to: str) -> Sealed:
        """`bound_to` is authenticated with it: what was sealed for one workspace does not open for another."""
        ...

    def unseal(self, sealed: Sealed, *, bound_to: str) -> bytes:
        """Raises CannotUnseal where no key opens it."""
        ...


class CannotUnseal(Exception):
    """No configured key opens it: the key is gone, or what was sealed was altered or moved."""
