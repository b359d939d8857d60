"""The resources that an application's backup may hold, in the order in which a restore creates them."""

from opsapi.workspaces.objects import CRON_JOB, DAEMON_SET, DEPLOYMENT, STATEFUL_SET, Kind
from opsapi.workspaces.writing import Resource

_SNAPSHOT_GROUP = "snapshot.storage.k8s.io"
_VELERO_GROUP = "velero.io"

SNAPSHOT_CONTENTS = Resource(_SNAPSHOT_GROUP, "v1", "volumesnapshotcontents", "VolumeSnapshotContent", False)
SNAPSHOTS = Resource(_SNAPSHOT_GROUP, "v1", "volumesnapshots", "VolumeSnapshot")
CLAIMS = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")
SECRETS = Resource("", "v1", "secrets", "Secret")
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")
SERVICES = Resource("", "v1", "services", "Service")
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment")
STATEFUL_SETS = Resource("apps", "v1", "statefulsets", "StatefulSet")
DAEMON_SETS = Resource("apps", "v1", "daemonsets", "DaemonSet")
CRON_JOBS = Resource("batch", "v1", "cronjobs", "CronJob")
BUDGETS = Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
AUTOSCALERS = Resource("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
INGRESSES = Resource("networking.k8s.io", "v1", "ingresses", "Ingress")
NAMESPACES = Resource("", "v1", "namespaces", "Namespace", False)

VELERO_BACKUPS = Resource(_VELERO_GROUP, "v1", "backups", "Backup")
VELERO_RESTORES = Resource(_VELERO_GROUP, "v1", "restores", "Restore")
VELERO_DELETIONS = Resource(_VELERO_GROUP, "v1", "deletebackuprequests", "DeleteBackupRequest")
VELERO_LOCATIONS = Resource(_VELERO_GROUP, "v1", "backupstoragelocations", "BackupStorageLocation")
VELERO_POD_VOLUMES = Resource(_VELERO_GROUP, "v1", "podvolumebackups", "PodVolumeBackup")

RESTORE_ORDER = (
    SNAPSHOT_CONTENTS,
    SNAPSHOTS,
    CLAIMS,
    SERVICE_ACCOUNTS,
    SECRETS,
    CONFIG_MAPS,
    SERVICES,
    DEPLOYMENTS,
    STATEFUL_SETS,
    DAEMON_SETS,
    CRON_JOBS,
    BUDGETS,
    AUTOSCALERS,
    INGRESSES,
)
"""Volumes and what pods mount before the workloads; what scales them and lets traffic in last."""
WORKLOADS = {kind.kind: resource for kind, resource in (
    (DEPLOYMENT, DEPLOYMENTS),
    (STATEFUL_SET, STATEFUL_SETS),
    (DAEMON_SET, DAEMON_SETS),
    (CRON_JOB, CRON_JOBS),
)}  # fmt: skip
WORKLOAD_KINDS: dict[str, Kind] = {kind.kind: kind for kind in (DEPLOYMENT, STATEFUL_SET, DAEMON_SET, CRON_JOB)}
_BY_KIND = {resource.kind: resource for resource in RESTORE_ORDER}


def resource_of(kind: str) -> Resource | None:
    """Of a kind that a backup may hold; None for any other."""
    return _BY_KIND.get(kind)


def place_in_order(resource: Resource) -> int:
    return RESTORE_ORDER.index(resource)
