"""Which application an alert's labels mean: looked up in its own workspace's inventory, else none. Pure over it."""

import re

from opsapi.workspaces.application_ids import APPLICATION_ID_LABEL, application_id
from opsapi.workspaces.model import Workspace
from opsapi.workspaces.objects import (
    APPLICATION_KINDS,
    CRON_JOB,
    DAEMON_SET,
    DEPLOYMENT,
    JOB,
    POD,
    REPLICA_SET,
    SERVICE,
    STATEFUL_SET,
    CronJob,
    Job,
    Kind,
    ObjectMeta,
    Pod,
    Service,
    Workload,
)
from opsapi.workspaces.ports import Cluster, Inventory

_WORKLOADS = ((DEPLOYMENT, "deployment"), (STATEFUL_SET, "statefulset"), (DAEMON_SET, "daemonset"))
_NAMED = ("container", "app", "app_kubernetes_io_name", "label_app_kubernetes_io_name")
_ID_LABELS = ("application_id", "label_" + re.sub(r"[^a-zA-Z0-9]", "_", APPLICATION_ID_LABEL))
MATCHED = frozenset(
    {
        "alertname",
        "severity",
        "namespace",
        "exported_namespace",
        "pod",
        "exported_pod",
        "service",
        "exported_service",
        "exported_container",
        "replicaset",
        "cronjob",
        "job_name",
        "node",
        *(label for _, label in _WORKLOADS),
        *_NAMED,
        *_ID_LABELS,
    }
)
"""Labels that are looked at."""
_OF_DEPLOYMENT = re.compile(r"(?P<name>.+)-[a-z0-9]{1,10}-[a-z0-9]{5}")
_OF_STATEFUL_SET = re.compile(r"(?P<name>.+)-\d+")
_OF_DAEMON_SET = re.compile(r"(?P<name>.+)-[a-z0-9]{5}")


class Matcher:
    """Labels are written by whoever writes rules: whatever they say, only what stands in the workspace is found."""

    def __init__(self, cluster: Cluster) -> None:
        self._workspace: Workspace = cluster.workspace
        self._inventory: Inventory = cluster.inventory
        self._by_id: dict[str, list[str]] | None = None

    def application(self, labels: dict[str, str]) -> str | None:
        """Its id, or None. The more a label says the sooner it counts: the workload itself, its pod, its service, a
        container or an app of that name."""
        named = self._named(labels)
        if named is not None:
            return named
        namespace = labels.get("exported_namespace") or labels.get("namespace") or ""
        if not namespace or not self._workspace.in_scope(namespace):
            return None
        for kind, label in _WORKLOADS:
            found = self._workload(kind, namespace, labels.get(label, ""))
            if found is not None:
                return found
        return (
            self._replica_set(namespace, labels.get("replicaset", ""))
            or self._cron_job(namespace, labels.get("cronjob", ""))
            or self._job(namespace, labels.get("job_name", ""))
            or self._pod(namespace, labels.get("exported_pod") or labels.get("pod") or "")
            or self._service(namespace, labels.get("exported_service") or labels.get("service") or "")
            or self._by_name(namespace, labels)
        )

    def _named(self, labels: dict[str, str]) -> str | None:
        """By an id that exactly one application of the workspace has."""
        wanted = next((labels[label] for label in _ID_LABELS if labels.get(label)), None)
        if wanted is None:
            return None
        if self._by_id is None:
            self._by_id = {}
            for kind in APPLICATION_KINDS:
                metas: list[ObjectMeta] = (
                    [one.metadata for one in self._inventory.all(kind, CronJob)]
                    if kind == CRON_JOB
                    else [one.metadata for one in self._inventory.all(kind, Workload)]
                )
                for meta in metas:
                    if self._workspace.in_scope(meta.namespace):
                        self._by_id.setdefault(self._id(kind, meta), []).append(meta.name)
        return wanted if len(self._by_id.get(wanted, ())) == 1 else None

    def _id(self, kind: Kind, meta: ObjectMeta) -> str:
        return application_id(self._workspace.id, kind, meta)

    def _workload(self, kind: Kind, namespace: str, name: str) -> str | None:
        held = self._inventory.get(kind, Workload, namespace, name) if name else None
        return None if held is None else self._id(kind, held.metadata)

    def _cron_job(self, namespace: str, name: str) -> str | None:
        held = self._inventory.get(CRON_JOB, CronJob, namespace, name) if name else None
        return None if held is None else self._id(CRON_JOB, held.metadata)

    def _job(self, namespace: str, name: str) -> str | None:
        held = self._inventory.get(JOB, Job, namespace, name) if name else None
        owner = held.metadata.controller if held is not None else None
        return self._cron_job(namespace, owner.name) if owner is not None and owner.kind == CRON_JOB.kind else None

    def _replica_set(self, namespace: str, name: str) -> str | None:
        held = self._inventory.get(REPLICA_SET, Workload, namespace, name) if name else None
        owner = held.metadata.controller if held is not None else None
        if owner is None or owner.kind != DEPLOYMENT.kind:
            return None
        return self._workload(DEPLOYMENT, namespace, owner.name)

    def _pod(self, namespace: str, name: str) -> str | None:
        """By its controllers; of a pod that is gone, by the name that its controller gave it."""
        if not name:
            return None
        held = self._inventory.get(POD, Pod, namespace, name)
        owner = held.metadata.controller if held is not None else None
        if owner is not None:
            if owner.kind == REPLICA_SET.kind:
                return self._replica_set(namespace, owner.name)
            if owner.kind == JOB.kind:
                return self._job(namespace, owner.name)
            kind = next((kind for kind, _ in _WORKLOADS if kind.kind == owner.kind), None)
            return self._workload(kind, namespace, owner.name) if kind is not None else None
        if held is not None:
            return None
        for pattern, kind in (
            (_OF_DEPLOYMENT, DEPLOYMENT),
            (_OF_STATEFUL_SET, STATEFUL_SET),
            (_OF_DAEMON_SET, DAEMON_SET),
        ):
            matched = pattern.fullmatch(name[:253])
            found = self._workload(kind, namespace, matched["name"]) if matched is not None else None
            if found is not None:
                return found
        return None

    def _service(self, namespace: str, name: str) -> str | None:
        """The one workload whose pods the service selects."""
        held = self._inventory.get(SERVICE, Service, namespace, name) if name else None
        if held is None or not held.spec.selector:
            return None
        wanted = held.spec.selector.items()
        found = [
            self._id(kind, one.metadata)
            for kind, _ in _WORKLOADS
            for one in self._inventory.all(kind, Workload, namespace)
            if wanted <= one.spec.template.metadata.labels.items()
        ]
        return found[0] if len(found) == 1 else None

    def _by_name(self, namespace: str, labels: dict[str, str]) -> str | None:
        for label in ("exported_container", *_NAMED):
            name = labels.get(label, "")
            for kind, _ in _WORKLOADS:
                found = self._workload(kind, namespace, name)
                if found is not None:
                    return found
        return None
