"""What is recommended, and the order that the steps read. Pure."""

from decimal import Decimal
from typing import Annotated

import msgspec
from msgspec import Meta

from opsapi.applications.ports import WorkloadRef
from opsapi.kit.quantity import parse_quantity
from opsapi.playbooks.model import PlaybookParameters
from opsapi.workspaces.objects import DAEMON_SET, DEPLOYMENT, STATEFUL_SET
from opsapi.workspaces.writing import ObjectKey, Resource

ACTION = "optimize_resources"
ANALYZE = "analyze_usage"
APPLY = "apply_recommendations"
WORKLOADS = (DEPLOYMENT, STATEFUL_SET, DAEMON_SET)
PODS = Resource("", "v1", "pods", "Pod")
RESOURCES = {kind.kind: Resource(kind.group, kind.version, kind.resource, kind.kind) for kind in WORKLOADS}


class OptimizeParameters(PlaybookParameters, frozen=True, kw_only=True):
    """`target_component` absent: every Deployment, StatefulSet and DaemonSet of the workspace."""


class OptimizingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Times in seconds, unless said otherwise."""

    history_hours: Annotated[float, Meta(ge=3, le=168)] = 24
    """How far back usage is looked at. A recommendation needs at least 100 readings over 3 hours."""
    change_percentage: Annotated[float, Meta(ge=0, le=100)] = 10
    """What differs less than this from what is set is left as it is: a rollout is not free."""
    most_applications: Annotated[int, Meta(ge=1, le=100)] = 10
    """How many one operation changes at most; those that save most come first."""
    verify_seconds: Annotated[float, Meta(gt=0, le=3600)] = 600
    """How long a rollout may take to be complete and ready; then the template is rolled back."""
    hold_seconds: Annotated[float, Meta(ge=0, le=3600)] = 120
    """How long it must then stay ready, without an OOM kill or a restart."""
    poll_seconds: Annotated[float, Meta(gt=0, le=60)] = 2
    """How often it is looked at."""


class Quantities(msgspec.Struct, frozen=True, kw_only=True):
    """As a template states them; null where it states none."""

    cpu_request: str | None = None
    memory_request: str | None = None
    cpu_limit: str | None = None
    memory_limit: str | None = None


def same(one: Quantities | None, other: Quantities | None) -> bool:
    """By amount: an API server writes `1024Mi` as `1Gi`."""
    if one is None or other is None:
        return one is other
    pairs = zip(msgspec.structs.astuple(one), msgspec.structs.astuple(other), strict=True)
    return all(amount(held) == amount(wanted) for held, wanted in pairs)


def amount(text: str | None) -> Decimal | None:
    """In base units; None for what is no quantity, too: it counts as not set."""
    try:
        return None if text is None else parse_quantity(text)
    except ValueError:
        return None


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One container. `unknown` maps `cpu` or `memory` to the reason why nothing is recommended for it; `recommended`
    then has what is set. `points` are the moments that were measured, of the resource with fewer. `savings` a month
    over all replicas, negative where more is needed; null where nothing changes."""

    container: str
    points: int
    current: Quantities
    recommended: Quantities
    unknown: dict[str, str]
    cpu_p95_millicores: float | None
    memory_max_bytes: int | None
    oom_killed: bool
    savings: float | None

    @property
    def changes(self) -> bool:
        return self.current != self.recommended


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """One application. `why_not`: why it is left as it is, null where it is changed; `patch` is what to commit at its
    source where a GitOps tool keeps it."""

    application_id: str
    application: str
    replicas: int
    source: str | None
    containers: tuple[Row, ...]
    savings: float
    why_not: str | None = None
    patch: str | None = None


class ContainerOrder(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    before: Quantities
    after: Quantities


class AppOrder(msgspec.Struct, frozen=True, kw_only=True):
    """One application's new sizes; `generation` and `before` are as planned."""

    application_id: str
    kind: str
    namespace: str
    name: str
    uid: str
    generation: int
    replicas: int
    containers: tuple[ContainerOrder, ...]

    @property
    def place(self) -> str:
        return f"{self.namespace}/{self.kind}/{self.name}"

    def key(self, workspace_id: str) -> ObjectKey:
        return ObjectKey(workspace_id, RESOURCES[self.kind], self.namespace, self.name, self.uid)

    def pod_key(self, workspace_id: str, name: str, uid: str) -> ObjectKey:
        return ObjectKey(workspace_id, PODS, self.namespace, name, uid)

    def ref(self, workspace_id: str) -> WorkloadRef:
        kind = next(known for known in WORKLOADS if known.kind == self.kind)
        return WorkloadRef(workspace_id, kind, self.namespace, self.name, self.uid)


class OptimizeOrder(msgspec.Struct, frozen=True, kw_only=True):
    workspace_id: str
    target_component: str | None
    reason: str | None
    confirm: bool
    applications: tuple[AppOrder, ...]
    found: tuple[Found, ...]
    looked_at: int
    currency: str
    prices: str

    @property
    def alone(self) -> bool:
        """One application was named: its lock is held from the begin; else each is taken for its turn."""
        return self.target_component is not None


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """What a dry run and the operation's result show. `savings` a month, of what is changed; `looked_at` counts
    applications, of which `applications` lists those with something to say, the largest savings first."""

    looked_at: int
    changed: int
    savings: float
    currency: str
    prices: str
    applications: tuple[Found, ...]


def table(order: OptimizeOrder) -> Table:
    changed = {app.application_id for app in order.applications}
    return Table(
        looked_at=order.looked_at,
        changed=len(order.applications),
        savings=round(sum(one.savings for one in order.found if one.application_id in changed), 2),
        currency=order.currency,
        prices=order.prices,
        applications=order.found,
    )
