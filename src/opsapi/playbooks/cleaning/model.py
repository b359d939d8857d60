"""What a call for cleaning says, what is found, and the order that the steps read. Pure."""

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from opsapi.playbooks.model import Context, PlaybookParameters
from opsapi.workspaces.writing import ObjectKey, Resource

ACTION = "cleanup_resources"
FIND = "find_leftovers"
DELETE = "delete_leftovers"
VERIFY = "verify_deletion"

PODS = Resource("", "v1", "pods", "Pod")
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")
SECRETS = Resource("", "v1", "secrets", "Secret")
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")
SERVICES = Resource("", "v1", "services", "Service")
CLAIMS = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
VOLUMES = Resource("", "v1", "persistentvolumes", "PersistentVolume", namespaced=False)
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment")
REPLICA_SETS = Resource("apps", "v1", "replicasets", "ReplicaSet")
STATEFUL_SETS = Resource("apps", "v1", "statefulsets", "StatefulSet")
DAEMON_SETS = Resource("apps", "v1", "daemonsets", "DaemonSet")
JOBS = Resource("batch", "v1", "jobs", "Job")
CRON_JOBS = Resource("batch", "v1", "cronjobs", "CronJob")
INGRESSES = Resource("networking.k8s.io", "v1", "ingresses", "Ingress")
GATEWAYS = Resource("gateway.networking.k8s.io", "v1", "gateways", "Gateway")

REFERRERS = (
    PODS, DEPLOYMENTS, STATEFUL_SETS, DAEMON_SETS, REPLICA_SETS, JOBS, CRON_JOBS, SERVICE_ACCOUNTS, INGRESSES,
)  # fmt: skip
"""Kinds that may refer to ConfigMaps and Secrets; where one cannot be read, none of those is called unreferenced."""
OPTIONAL_REFERRERS = (GATEWAYS,)
"""The same, where they are served."""
EXPIRING = (
    CONFIG_MAPS, SECRETS, PODS, JOBS, CRON_JOBS, DEPLOYMENTS, STATEFUL_SETS, DAEMON_SETS, SERVICES, INGRESSES,
)  # fmt: skip
"""Kinds that are deleted past their janitor/ttl or janitor/expires. Neither namespaces nor what holds data."""
BY_KIND = {one.kind: one for one in (*EXPIRING, *REFERRERS, CLAIMS, VOLUMES)}

Age = Annotated[float, Meta(ge=0)]


class CleanParameters(PlaybookParameters, frozen=True, kw_only=True):
    """Ages in seconds since an object ended (or was made, for ConfigMaps and Secrets); policy bounds them.

    `revision_history_limit`: old ReplicaSets to keep per Deployment where that is fewer than its own limit. `delete`
    names unreferenced ConfigMaps and Secrets to delete, as `ConfigMap/namespace/name`; a person has to approve them.
    `namespaces` narrows it down; `max_deletions` lowers policy's cap.
    """

    namespaces: tuple[str, ...] | None = None
    job_age_seconds: Age | None = None
    pod_age_seconds: Age | None = None
    unreferenced_age_seconds: Age | None = None
    revision_history_limit: Annotated[int, Meta(ge=1, le=1000)] | None = None
    max_deletions: Annotated[int, Meta(ge=1, le=10_000)] | None = None
    delete: tuple[str, ...] = ()


class CleaningSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ages in seconds."""

    job_age_seconds: float = 7 * 86400
    """How long a Job has been over before it is deleted."""
    pod_age_seconds: float = 3 * 86400
    """How long a Pod has been over before it is deleted."""
    unreferenced_age_seconds: float = 7 * 86400
    """How old a ConfigMap or Secret that nothing refers to must be to be reported."""
    snapshots_kept_seconds: Annotated[float, Meta(ge=3600)] = 30 * 86400
    """How long what was deleted can be brought back."""


class Category(StrEnum):
    COMPLETED_JOB = "completed_job"
    COMPLETED_POD = "completed_pod"
    OLD_REPLICA_SET = "old_replica_set"
    EXPIRED = "expired"
    UNREFERENCED = "unreferenced"
    UNUSED_VOLUME = "unused_volume"


class Leftover(msgspec.Struct, frozen=True, kw_only=True):
    """One object that may go. `deletes`: it is to be deleted, else it is reported alone, and `why` says both."""

    category: Category
    kind: str
    namespace: str
    name: str
    uid: str
    why: str
    age_seconds: float
    deletes: bool = True

    @property
    def place(self) -> str:
        return "/".join(part for part in (self.kind, self.namespace, self.name) if part)

    def key(self, workspace_id: str) -> ObjectKey:
        return ObjectKey(workspace_id, BY_KIND[self.kind], self.namespace, self.name, self.uid)


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What counts as a leftover: resolved ages and limits."""

    namespaces: tuple[str, ...] = ()
    job_age_seconds: float
    pod_age_seconds: float
    unreferenced_age_seconds: float
    revision_history_limit: int | None = None
    max_deletions: int
    delete: tuple[str, ...] = ()


class CleanOrder(msgspec.Struct, frozen=True, kw_only=True):
    """`reported` are not deleted; `left_over` is how many more there are beyond the cap; `unobserved` maps a kind that
    could not be read to the reason."""

    workspace_id: str
    limits: Limits
    items: tuple[Leftover, ...] = ()
    reported: tuple[Leftover, ...] = ()
    reported_total: int = 0
    left_over: int = 0
    unobserved: dict[str, str] = {}
    reason: str | None = None
    confirm: bool = False
    context: Context = Context()
