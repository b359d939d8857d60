"""Which application a call means by `target_component`."""

from collections.abc import Sequence
from difflib import get_close_matches

import msgspec

from opsapi.applications.errors import ProtectedNamespace
from opsapi.kit.errors import AmbiguousResource, DependencyUnavailable, ResourceDetails, ResourceNotFound
from opsapi.operations.model import lock_key
from opsapi.policy.model import PolicySettings
from opsapi.workspaces.application_ids import application_id
from opsapi.workspaces.objects import APPLICATION_KINDS, CRON_JOB, CronJob, Kind, Workload, WorkloadMeta
from opsapi.workspaces.ports import Cluster, Sync

_API = "kubernetes_api"
_SHOWN = 10


class Component(msgspec.Struct, frozen=True):
    """An application as the inventory knows it."""

    workspace_id: str
    id: str
    kind: Kind
    meta: WorkloadMeta

    @property
    def place(self) -> str:
        """`shop/Deployment/web`."""
        return f"{self.meta.namespace}/{self.kind.kind}/{self.meta.name}"

    @property
    def lock(self) -> str:
        return lock_key(self.workspace_id, self.id)


class ComponentNotFound(ResourceNotFound):
    """Names what comes near, among what the caller may see."""

    def __init__(self, wanted: str, known: Sequence[str]) -> None:
        super().__init__("application", wanted)
        near = get_close_matches(wanted, known, _SHOWN, 0.4) or sorted(known)[:_SHOWN]
        self.details = ResourceDetails(resource_type="application", resource_id=wanted[:253], alternatives=near)


def components(cluster: Cluster, policy: PolicySettings, kinds: Sequence[Kind] = APPLICATION_KINDS) -> list[Component]:
    """Every application that may be operated on, in the order of namespace, name and kind.

    Raises DependencyUnavailable where the cluster is away or its applications are not known.
    """
    _require(cluster, kinds)
    found = [one for one in _all(cluster, kinds) if not policy.protects(one.meta.namespace)]
    return sorted(found, key=lambda one: (one.meta.namespace, one.meta.name, one.kind.kind))


def find_component(
    cluster: Cluster, policy: PolicySettings, wanted: str, kinds: Sequence[Kind] = APPLICATION_KINDS
) -> Component:
    """By id, else by name, or by `namespace/name`, or by `namespace/Kind/name`.

    Raises ComponentNotFound, AmbiguousResource, ProtectedNamespace, and as `components` does.
    """
    _require(cluster, kinds)
    everything = _all(cluster, kinds)
    found = [one for one in everything if one.id == wanted] or [one for one in everything if wanted in _names(one)]
    free = [one for one in found if not policy.protects(one.meta.namespace)]
    if found and not free:
        raise ProtectedNamespace(found[0].meta.namespace)
    if not free:
        shown = {one.meta.name for one in everything if not policy.protects(one.meta.namespace)}
        raise ComponentNotFound(wanted, sorted(shown))
    if len(free) > 1:
        places = sorted(one.place for one in free)
        raise AmbiguousResource("application", wanted, places, "its id, or namespace/Kind/name, as target_component")
    return free[0]


def _names(one: Component) -> tuple[str, str, str]:
    return one.meta.name, f"{one.meta.namespace}/{one.meta.name}", one.place


def _require(cluster: Cluster, kinds: Sequence[Kind]) -> None:
    workspace_id, inventory = cluster.workspace.id, cluster.inventory
    reached = cluster.state()
    if reached.reachable is False:
        raise DependencyUnavailable(_API, reached.reason or "it does not answer", workspace_id=workspace_id)
    inventory.require(*kinds)
    for kind in kinds:
        state = inventory.state(kind)
        if state.sync in (Sync.FORBIDDEN, Sync.UNSERVED):
            reason = state.reason or f"{kind} cannot be read"
            raise DependencyUnavailable(_API, reason, workspace_id=workspace_id)


def _all(cluster: Cluster, kinds: Sequence[Kind]) -> list[Component]:
    workspace = cluster.workspace
    found = []
    for kind in kinds:
        metas = (
            [one.metadata for one in cluster.inventory.all(kind, CronJob)]
            if kind == CRON_JOB
            else [one.metadata for one in cluster.inventory.all(kind, Workload)]
        )
        found += [
            Component(workspace.id, application_id(workspace.id, kind, meta), kind, meta)
            for meta in metas
            if workspace.in_scope(meta.namespace)
        ]
    return found
