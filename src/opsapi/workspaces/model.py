"""A workspace: one Kubernetes control plane, or some namespaces of one."""

from datetime import datetime
from enum import StrEnum

import msgspec


class Mode(StrEnum):
    OBSERVE = "observe"
    PROPOSE = "propose"
    ACT = "act"


class Plan(StrEnum):
    SHARED = "shared"
    """Limits come from ResourceQuotas; nothing of other tenants is shown."""
    DEDICATED = "dedicated"
    """Limits come from the nodes."""


class Source(StrEnum):
    CONFIG = "config"
    API = "api"


class ClusterAccess(msgspec.Struct, frozen=True, kw_only=True):
    """How a cluster is reached. Exactly one of `path`, `inline` and `in_cluster` is set.

    `inline` is a kubeconfig's YAML that passed the rules for uploads; `path` and `in_cluster` only come from the
    config file. `context` "" takes the kubeconfig's current one.
    """

    path: str = ""
    inline: str = ""
    in_cluster: bool = False
    context: str = ""

    def __repr__(self) -> str:
        held = "inline, hidden" if self.inline else (self.path or "in-cluster")
        return f"ClusterAccess({held}, context={self.context!r})"


class Workspace(msgspec.Struct, frozen=True, kw_only=True):
    """`namespaces` empty means the whole cluster. `act` is None where reading and acting share credentials."""

    id: str
    name: str
    organization: str = ""
    plan: Plan = Plan.DEDICATED
    mode: Mode = Mode.OBSERVE
    namespaces: tuple[str, ...] = ()
    read: ClusterAccess
    act: ClusterAccess | None = None
    source: Source = Source.CONFIG
    created_at: datetime | None
    """None for a workspace of the configuration file that does not say: then its oldest namespace tells."""

    def in_scope(self, namespace: str) -> bool:
        return not self.namespaces or namespace in self.namespaces
